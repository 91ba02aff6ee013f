from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from kinoloom.backends.local.preview import LatentPreview, clean_estimate


class MixingVAE:
    """A VAE whose latents are the mean colours of its cells, mixed into more channels.

    For such a one a linear map is exact, so a preview must be the small picture itself.
    """

    device, dtype = torch.device("cpu"), torch.float32

    def __init__(self, ratio: int, channels: int) -> None:
        self.spatial_compression_ratio = ratio
        generator = torch.Generator().manual_seed(0)
        self._mix = torch.randn(channels, 3, generator=generator)
        self._offset = torch.randn(channels, 1, 1, 1, generator=generator)

    def encode(self, video: torch.Tensor) -> SimpleNamespace:
        ratio = self.spatial_compression_ratio
        cells = torch.nn.functional.avg_pool3d(video, (1, ratio, ratio))
        latents = torch.einsum("cr,brfhw->bcfhw", self._mix, cells) + self._offset
        return SimpleNamespace(latent_dist=SimpleNamespace(mode=lambda: latents))


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
