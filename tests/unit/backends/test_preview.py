from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import (
    DDIMScheduler,
    EulerDiscreteScheduler,
    FlowMatchEulerDiscreteScheduler,
    LCMScheduler,
    UniPCMultistepScheduler,
)

from kinoloom.backends.local.preview import LatentPreview, clean_estimate, clean_latents


class MixingVAE:
    """A VAE whose latents are the mean colours of its cells, mixed into more channels.

    For such a one a linear map is exact, so a preview must be the small picture itself.
    """

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, ratio: int, channels: int) -> None:
        self.spatial_compression_ratio = ratio
        self.config = SimpleNamespace()
        self.encoder = torch.nn.Conv3d(3, channels, 1)  # by which it is known to look at video
        generator = torch.Generator().manual_seed(0)
        self._mix = torch.randn(channels, 3, generator=generator)
        self._offset = torch.randn(channels, 1, 1, 1, generator=generator)

    def encode(self, video: torch.Tensor) -> SimpleNamespace:
        ratio = self.spatial_compression_ratio
        cells = torch.nn.functional.avg_pool3d(video, (1, ratio, ratio))
        latents = torch.einsum("cr,brfhw->bcfhw", self._mix, cells) + self._offset
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


class MixingImageVAE(MixingVAE):
    """The same for single pictures; its cells' size is told by its blocks only."""

    def __init__(self, ratio: int, channels: int) -> None:
        super().__init__(ratio, channels)
        self.ratio = self.spatial_compression_ratio
        del self.spatial_compression_ratio
        self.config.block_out_channels = [1] * ratio.bit_length()
        self.encoder = torch.nn.Conv2d(3, channels, 1)  # type: ignore[assignment]

    def encode(self, pictures: torch.Tensor) -> SimpleNamespace:
        assert pictures.ndim == 4
        cells = torch.nn.functional.avg_pool2d(pictures, self.ratio)
        latents = torch.einsum("cr,brhw->bchw", self._mix, cells) + self._offset[..., 0]
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


@pytest.mark.parametrize(("ratio", "channels"), [(8, 4), (8, 16)])
def test_a_preview_of_one_picture_is_in_its_colours(ratio: int, channels: int) -> None:
    vae = MixingImageVAE(ratio, channels)
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (5, 7, 3)).astype(np.float32)
    picture = torch.from_numpy(small / 127.5 - 1).permute(2, 0, 1)[None]
    large = torch.nn.functional.interpolate(picture, (5 * ratio, 7 * ratio))
    latents = vae.encode(large).latent_dist.mode()[0]
    seen = LatentPreview(vae).picture(latents[:, None])
    assert np.abs(seen.astype(float) - small).max() < 6


IMAGES: dict[str, Any] = {
    "block_out_channels": (8,) * 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
}
SVD = {
    "block_out_channels": (32,) * 4,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
}
WAN: dict[str, Any] = {"base_dim": 3, "z_dim": 16, "dim_mult": [1] * 4, "num_res_blocks": 1}
LTX: dict[str, Any] = {
    "latent_channels": 8,
    "block_out_channels": (8,) * 4,
    "layers_per_block": (1,) * 5,
    "decoder_layers_per_block": (1,) * 5,
    "patch_size": 1,
}


@pytest.mark.parametrize(("ratio", "channels"), [(8, 4), (16, 8), (32, 128)])
def test_a_preview_shows_the_middle_frame_in_its_colours(ratio: int, channels: int) -> None:
    vae = MixingVAE(ratio, channels)
    rng = np.random.default_rng(1)
    small = rng.integers(0, 256, (3, 5, 7, 3)).astype(np.float32)  # three frames of 7x5 cells
    video = torch.from_numpy(small / 127.5 - 1).permute(3, 0, 1, 2)[None]
    large = torch.nn.functional.interpolate(video, (3, 5 * ratio, 7 * ratio))
    latents = vae.encode(large).latent_dist.mode()[0]
    seen = LatentPreview(vae).picture(latents)
    assert seen.shape == (5, 7, 3)
    assert seen.dtype == np.uint8
    assert np.abs(seen.astype(float) - small[1]).max() < 6
    assert np.abs(seen.astype(float) - small[0]).max() > 50


VAES: dict[str, tuple[str, dict[str, Any]]] = {
    "sdxl": ("AutoencoderKL", IMAGES | {"norm_num_groups": 4}),
    "flux": ("AutoencoderKL", IMAGES | {"norm_num_groups": 4, "latent_channels": 16}),
    "svd": ("AutoencoderKLTemporalDecoder", SVD),
    "wan": ("AutoencoderKLWan", WAN),
    "wan-2.2-5b": (
        "AutoencoderKLWan",
        WAN
        | {
            "base_dim": 4,
            "z_dim": 48,
            "is_residual": True,
            "patch_size": 2,
            "in_channels": 12,
            "out_channels": 12,
            "scale_factor_spatial": 16,
            "latents_mean": [0.0] * 48,
            "latents_std": [1.0] * 48,
        },
    ),
    "hunyuanvideo-1.5": (
        "AutoencoderKLHunyuanVideo15",
        {"latent_channels": 4, "block_out_channels": (8,) * 5, "layers_per_block": 1},
    ),
    "framepack": (
        "AutoencoderKLHunyuanVideo",
        {
            "latent_channels": 4,
            "block_out_channels": (8,) * 4,
            "norm_num_groups": 4,
            "layers_per_block": 1,
        },
    ),
    "ltx": ("AutoencoderKLLTXVideo", LTX | {"decoder_block_out_channels": (8,) * 4}),
    "ltx-2": (
        "AutoencoderKLLTX2Video",
        LTX | {"decoder_block_out_channels": (8,) * 3, "decoder_layers_per_block": (1,) * 4},
    ),
}


@pytest.mark.parametrize("name", VAES)
def test_every_familys_vae_can_be_projected(name: str, one_thread: None) -> None:
    cls, config = VAES[name]
    vae = _random(cls, config)
    channels = config.get("z_dim") or config.get("latent_channels", 4)
    seen = LatentPreview(vae).picture(torch.randn(channels, 3, 4, 6))
    assert seen.shape == (4, 6, 3)
    assert seen.std() > 5


def test_a_vae_that_overflows_in_half_precision_is_asked_in_full(one_thread: None) -> None:
    cls, config = VAES["sdxl"]
    vae = _random(cls, config).half()
    latents = torch.randn(4, 1, 8, 8)
    expected = LatentPreview(_random(cls, config).half().float()).picture(latents)
    assert np.array_equal(LatentPreview(vae).picture(latents), expected)
    assert vae.dtype == torch.float16


def _random(cls: str, config: dict[str, Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return getattr(diffusers, cls)(**config).eval()


def test_an_offloaded_vae_is_asked_where_it_computes() -> None:
    vae = MixingVAE(8, 4)
    vae.device = torch.device("meta")  # where the weights of an offloaded one are said to be
    vae._hf_hook = SimpleNamespace(execution_device=torch.device("cpu"))  # type: ignore[attr-defined]
    grey = vae.encode(torch.zeros(1, 3, 1, 16, 16)).latent_dist.mode()[0]
    assert np.abs(LatentPreview(vae).picture(grey).astype(int) - 127).max() < 6


def test_colours_out_of_range_are_cut_not_wrapped() -> None:
    vae = MixingVAE(8, 4)
    white = vae.encode(torch.full((1, 3, 1, 16, 16), 3.0)).latent_dist.mode()[0]
    black = vae.encode(torch.full((1, 3, 1, 16, 16), -3.0)).latent_dist.mode()[0]
    preview = LatentPreview(vae)
    assert preview.picture(white).min() == 255
    assert preview.picture(black).max() == 0


def test_a_preview_takes_latents_in_half_precision() -> None:
    vae = MixingVAE(8, 4)
    grey = vae.encode(torch.zeros(1, 3, 1, 16, 16)).latent_dist.mode()[0]
    seen = LatentPreview(vae).picture(grey.bfloat16())
    assert np.abs(seen.astype(int) - 127).max() < 6


def test_the_clean_estimate_is_exact_for_a_straight_flow() -> None:
    """A solver that is told the true velocity points to the clean latents at every step."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 6, 4, generator=generator)
    noise = torch.randn(1, 6, 4, generator=generator)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(timesteps=[1000.0, 700.0, 250.0])
    latents = noise
    for index, t in enumerate(scheduler.timesteps):
        before = latents
        latents = scheduler.step(noise - clean, t, before, return_dict=False)[0]
        sigmas = float(scheduler.sigmas[index]), float(scheduler.sigmas[index + 1])
        torch.testing.assert_close(
            clean_estimate(before, latents, *sigmas), clean, atol=1e-5, rtol=0
        )


def test_the_clean_estimate_is_the_models_own() -> None:
    """With any velocity it is what the model believes: x - sigma * v."""
    generator = torch.Generator().manual_seed(3)
    before, velocity = torch.randn(2, 1, 6, 4, generator=generator)
    after = before + (0.3 - 0.8) * velocity
    expected = before - 0.8 * velocity
    torch.testing.assert_close(clean_estimate(before, after, 0.8, 0.3), expected)


def test_without_a_step_the_latents_are_their_own_estimate() -> None:
    latents = torch.randn(1, 6, 4)
    assert clean_estimate(latents, latents, 0.5, 0.5) is latents


def _noisy(scheduler: Any, clean: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Latents before the first step of a scheduler, as a pipeline makes them."""
    if isinstance(scheduler, FlowMatchEulerDiscreteScheduler):
        return noise
    if isinstance(scheduler, EulerDiscreteScheduler):
        return clean + noise * scheduler.sigmas[0]
    found: torch.Tensor = scheduler.add_noise(clean, noise, scheduler.timesteps[:1])
    return found


@pytest.mark.parametrize(
    "make",
    [
        lambda: DDIMScheduler(beta_schedule="linear", clip_sample=False),
        lambda: DDIMScheduler(clip_sample=False, timestep_spacing="linspace"),
        lambda: EulerDiscreteScheduler(timestep_spacing="trailing"),
        lambda: EulerDiscreteScheduler(use_karras_sigmas=True),
        lambda: FlowMatchEulerDiscreteScheduler(shift=3.0),
        lambda: UniPCMultistepScheduler(solver_order=1),
    ],
)
def test_the_clean_latents_of_a_model_that_knows_them_are_found(make: Callable[[], Any]) -> None:
    """With a model that is right, the steps of every solver point to what it believes."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 4, 8, 8, generator=generator)
    noise = torch.randn(1, 4, 8, 8, generator=generator)
    scheduler = make()
    scheduler.set_timesteps(5)
    latents = _noisy(scheduler, clean, noise)
    flow = isinstance(scheduler, FlowMatchEulerDiscreteScheduler)
    for index, t in enumerate(scheduler.timesteps):
        before = latents
        result = scheduler.step(noise - clean if flow else noise, t, before)
        latents = result.prev_sample
        found = clean_latents(scheduler, index, before, latents)
        # DDIM's own steps may miss its timesteps, so that the model is right only at the first.
        believed = getattr(result, "pred_original_sample", None)
        torch.testing.assert_close(
            found, clean if believed is None else believed, atol=2e-3, rtol=0
        )
        assert index or torch.allclose(found, clean, atol=2e-3)


def test_steps_from_the_middle_of_a_schedule_on_have_its_noise_levels() -> None:
    """As those of a stage that refines what another one made."""
    generator = torch.Generator().manual_seed(0)
    clean = torch.randn(1, 4, 8, 8, generator=generator)
    noise = torch.randn(1, 4, 8, 8, generator=generator)
    scheduler = FlowMatchEulerDiscreteScheduler()
    scheduler.set_timesteps(10)
    sigma = scheduler.sigmas[6]
    latents = sigma * noise + (1 - sigma) * clean
    for index, t in enumerate(scheduler.timesteps[6:]):
        before = latents
        latents = scheduler.step(noise - clean, t, before).prev_sample
        found = clean_latents(scheduler, index, before, latents)
        torch.testing.assert_close(found, clean, atol=1e-4, rtol=0)


def test_a_solver_that_adds_new_noise_is_shown_as_it_is() -> None:
    scheduler = LCMScheduler()
    scheduler.set_timesteps(4)
    before, after = torch.randn(2, 1, 4, 8, 8).unbind(0)
    assert clean_latents(scheduler, 1, before, after) is after


def test_the_first_step_of_a_window_has_no_latents_before_it() -> None:
    scheduler = EulerDiscreteScheduler()
    scheduler.set_timesteps(4)
    after = torch.randn(1, 4, 8, 8)
    assert clean_latents(scheduler, 0, None, after) is after
    assert clean_latents(scheduler, 1, after[..., 1:], after) is after
