from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    AutoencoderKLWan,
    HunyuanVideo15Transformer3DModel,
    LTXConditionPipeline,
    UniPCMultistepScheduler,
    WanPipeline,
    WanTransformer3DModel,
)
from diffusers.hooks.hooks import CacheContext, _set_cache_context
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

from kinoloom.backends.base import Speed
from kinoloom.backends.local.speed import apply_speed, denoisers, remove_speed
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.speed import StepCache
from kinoloom.errors import ModelBroken

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 8
Render = Callable[..., np.ndarray]


class Stopped(Exception):
    """What a cancelled render raises."""


def cached(kind: str, **settings: Any) -> Speed:
    return Speed(cache=StepCache(kind=kind, settings=settings))  # type: ignore[arg-type]


FIRST_BLOCK = cached("first_block", threshold=0.5)
MAG = cached("mag", threshold=0.9, retention_ratio=0.1, mag_ratios=[1.0] * STEPS)
LITE = cached("taylor_seer", use_lite_mode=True, cache_interval=3, disable_cache_before_step=2)
TAYLOR_LTX = cached(
    "taylor_seer",
    cache_identifiers=[r"transformer_blocks\.\d+\.(attn1|attn2|ff)"],
    cache_interval=3,
    disable_cache_before_step=2,
    taylor_factors_dtype="float32",
)
TAYLOR_WAN = cached(
    "taylor_seer",
    cache_identifiers=[r"blocks\.\d+\.(attn1|attn2|ffn)"],
    cache_interval=3,
    disable_cache_before_step=2,
)
PYRAMID = cached(
    "pyramid",
    spatial_attention_block_skip_range=2,
    spatial_attention_timestep_skip_range=[0, 1000],
)


@pytest.fixture(scope="module")
def ltx(tiny_card: ModelCard) -> Any:
    pipe = LTXConditionPipeline.from_pretrained(str(tiny_card.source.folder), dtype=torch.float32)
    # One block is both the first and the last, which first-block caches cannot work with.
    config = dict(pipe.transformer.config) | {"num_layers": 3}
    torch.manual_seed(0)
    pipe.transformer = type(pipe.transformer).from_config(config).eval()
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def wan() -> Any:
    """Wan 2.2 with its two experts, embeddings given, latents returned."""
    torch.manual_seed(0)
    experts = [
        WanTransformer3DModel(
            num_attention_heads=2,
            attention_head_dim=12,
            in_channels=16,
            out_channels=16,
            text_dim=8,
            freq_dim=16,
            ffn_dim=16,
            num_layers=3,
        ).eval()
        for _ in range(2)
    ]
    pipe = WanPipeline(
        tokenizer=None,
        text_encoder=None,
        vae=AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1] * 4, num_res_blocks=1),
        scheduler=UniPCMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0
        ),
        transformer=experts[0],
        transformer_2=experts[1],
        boundary_ratio=0.7,
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def render_ltx(pipe: Any, steps: int = STEPS, stop: int | None = None) -> np.ndarray:
    return pipe(
        prompt="a red ball rolling",
        width=64,
        height=64,
        num_frames=9,
        guidance_scale=2.0,
        num_inference_steps=steps,
        max_sequence_length=16,
        image_cond_noise_scale=0.0,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
        callback_on_step_end=stopper(stop),
    ).frames.numpy()


def render_wan(pipe: Any, steps: int = STEPS, stop: int | None = None) -> np.ndarray:
    embeds = torch.randn(1, 4, 8, generator=torch.Generator().manual_seed(1))
    return pipe(
        prompt_embeds=embeds,
        negative_prompt_embeds=-embeds,
        width=32,
        height=32,
        num_frames=5,
        guidance_scale=3.0,
        num_inference_steps=steps,
        generator=torch.Generator().manual_seed(3),
        output_type="latent",
        callback_on_step_end=stopper(stop),
    ).frames.numpy()


def stopper(stop: int | None) -> Callable[..., dict[str, Any]]:
    def call(pipe: Any, index: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if index == stop:
            raise Stopped
        return tensors

    return call


class Count:
    """For each denoiser, how often the attention of its second block was computed."""

    def __init__(self, pipe: Any) -> None:
        self.calls: list[int] = []
        self._handles = []
        for place, (_, module) in enumerate(denoisers(pipe)):
            self.calls.append(0)
            inner = next(m for name, m in module.named_modules() if name.endswith("1.attn1.to_q"))
            self._handles.append(inner.register_forward_pre_hook(partial(self._count, place)))

    def _count(self, place: int, *_: object) -> None:
        self.calls[place] += 1

    def take(self) -> list[int]:
        """The counts since the last time."""
        calls, self.calls = self.calls, [0] * len(self.calls)
        return calls

    def end(self) -> None:
        for handle in self._handles:
            handle.remove()


CASES = [
    *[("ltx", name) for name in ("FIRST_BLOCK", "MAG", "LITE", "TAYLOR_LTX", "PYRAMID")],
    *[("wan", name) for name in ("FIRST_BLOCK", "MAG", "LITE", "TAYLOR_WAN")],
]


@pytest.mark.parametrize(("model", "name"), CASES)
def test_a_cache_changes_a_run_not_the_next_one_and_comes_off_without_a_trace(
    model: str, name: str, request: pytest.FixtureRequest
) -> None:
    pipe, speed = request.getfixturevalue(model), globals()[name]
    render: Render = globals()[f"render_{model}"]
    count = Count(pipe)
    with torch.inference_mode():
        plain, whole = render(pipe), count.take()
        apply_speed(pipe, speed, STEPS)
        fast, less = render(pipe), count.take()
        count.end()
        assert not np.array_equal(fast, plain)
        # Work is saved, in both experts of a model that has two.
        assert all(0 < n < w for n, w in zip(less, whole, strict=True))
        # Stopped in the middle, and nobody cleaned up after it.
        for stop in (0, 4):
            with pytest.raises(Stopped):
                render(pipe, stop=stop)
            apply_speed(pipe, speed, STEPS)
            assert np.array_equal(render(pipe), fast)
        remove_speed(pipe)
        assert np.array_equal(render(pipe), plain)


def test_another_speed_takes_the_place_of_the_one_before(ltx: Any) -> None:
    with torch.inference_mode():
        apply_speed(ltx, FIRST_BLOCK, STEPS)
        first = render_ltx(ltx)
        apply_speed(ltx, LITE, STEPS)
        second = render_ltx(ltx)
        assert not np.array_equal(first, second)
        apply_speed(ltx, FIRST_BLOCK, STEPS)
        assert np.array_equal(render_ltx(ltx), first)
        apply_speed(ltx, Speed(), STEPS)
        assert not ltx.transformer.is_cache_enabled
        remove_speed(ltx)


def test_mag_follows_the_number_of_steps(ltx: Any) -> None:
    apply_speed(ltx, MAG, STEPS)
    assert len(ltx.transformer._cache_config.mag_ratios) == STEPS
    apply_speed(ltx, MAG, 5)
    assert len(ltx.transformer._cache_config.mag_ratios) == 5
    remove_speed(ltx)


def test_a_window_begins_without_what_the_one_before_left(ltx: Any) -> None:
    """FramePack runs all its windows in one call and names no passes."""
    transformer = ltx.transformer

    def window() -> list[np.ndarray]:
        generator = torch.Generator().manual_seed(5)
        inputs: dict[str, Any] = {
            "hidden_states": torch.randn(1, 8, 8, generator=generator),
            "encoder_hidden_states": torch.randn(1, 4, 16, generator=generator),
            "encoder_attention_mask": torch.ones(1, 4),
            "num_frames": 2,
            "height": 2,
            "width": 2,
        }
        outputs = []
        for timestep in (900.0, 600.0, 300.0, 100.0):
            inputs["hidden_states"] = inputs["hidden_states"] * 0.9
            out = transformer(**inputs, timestep=torch.tensor([timestep])).sample
            outputs.append(out.numpy())
        return outputs

    for speed in (FIRST_BLOCK, LITE, PYRAMID):
        with torch.inference_mode():
            apply_speed(ltx, speed, 4)
            first, second = window(), window()
        for a, b in zip(first, second, strict=True):
            assert np.array_equal(a, b)
        remove_speed(ltx)


def test_blocks_that_diffusers_does_not_know_are_made_known() -> None:
    torch.manual_seed(0)
    transformer = HunyuanVideo15Transformer3DModel(
        in_channels=9,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=16,
        num_layers=3,
        num_refiner_layers=1,
        text_embed_dim=8,
        text_embed_2_dim=8,
        image_embed_dim=8,
        rope_axes_dim=(4, 6, 6),
    ).eval()
    pipe = type("Pipe", (), {"transformer": transformer})()
    generator = torch.Generator().manual_seed(1)
    inputs: dict[str, Any] = {
        "hidden_states": torch.randn(1, 9, 2, 4, 4, generator=generator),
        "encoder_hidden_states": torch.randn(1, 6, 8, generator=generator),
        "encoder_attention_mask": torch.ones(1, 6),
        "encoder_hidden_states_2": torch.randn(1, 5, 8, generator=generator),
        "encoder_attention_mask_2": torch.ones(1, 5),
        "image_embeds": torch.zeros(1, 3, 8),
    }

    def run() -> list[torch.Tensor]:
        return [
            transformer(**inputs, timestep=torch.tensor([t])).sample for t in (900.0, 890.0, 880.0)
        ]

    with torch.inference_mode():
        plain = run()
        apply_speed(pipe, FIRST_BLOCK, 3)
        fast = run()
        remove_speed(pipe)
        assert all(torch.equal(a, b) for a, b in zip(run(), plain, strict=True))
    assert torch.equal(fast[0], plain[0])
    assert not torch.equal(fast[2], plain[2])


def test_attention_is_set_on_this_model_only_and_reset(ltx: Any) -> None:
    everyone = _AttentionBackendRegistry.get_active_backend()
    processors = list(ltx.transformer.attn_processors.values())
    with torch.inference_mode():
        plain = render_ltx(ltx, steps=2)
        apply_speed(ltx, Speed(attention="_native_math"), 2)
        assert {p._attention_backend for p in processors} == {"_native_math"}
        assert _AttentionBackendRegistry.get_active_backend() == everyone
        np.testing.assert_allclose(render_ltx(ltx, steps=2), plain, atol=1e-4)
        remove_speed(ltx)
        assert {p._attention_backend for p in processors} == {None}
        assert np.array_equal(render_ltx(ltx, steps=2), plain)


def test_compiled_blocks_are_plain_again_afterwards(ltx: Any) -> None:
    blocks = ltx.transformer.transformer_blocks
    apply_speed(ltx, Speed(compile=True), STEPS)
    compiled = [b._compiled_call_impl for b in blocks]
    assert all(c is not None for c in compiled)
    apply_speed(ltx, Speed(compile=True), STEPS)  # would otherwise be compiled anew
    assert [b._compiled_call_impl for b in blocks] == compiled
    remove_speed(ltx)
    assert all(b._compiled_call_impl is None for b in blocks)


@pytest.mark.parametrize(
    "speed",
    [
        cached("first_block", treshold=0.1),
        cached("mag", threshold=0.1),
        cached("taylor_seer", taylor_factors_dtype="float33"),
        Speed(attention="telepathy"),
        Speed(attention="sage"),
    ],
    ids=lambda s: s.attention or s.cache.kind,
)
def test_settings_that_diffusers_refuses_are_the_cards_mistake(ltx: Any, speed: Speed) -> None:
    with torch.inference_mode():
        plain = render_ltx(ltx, steps=2)
        with pytest.raises(ModelBroken) as caught:
            apply_speed(ltx, speed, STEPS)
        assert "lossless" in caught.value.hints[0]
        assert np.array_equal(render_ltx(ltx, steps=2), plain)


def test_the_name_of_a_pass_outlives_a_new_beginning(wan: Any) -> None:
    """With and without the prompt, each pass keeps a state of its own."""
    transformer = wan.transformer
    apply_speed(wan, FIRST_BLOCK, STEPS)
    hook = transformer.blocks[0]._diffusers_hook.hooks["fbc_leader_block_hook"]
    inputs: dict[str, Any] = {
        "hidden_states": torch.randn(1, 16, 2, 4, 4),
        "encoder_hidden_states": torch.randn(1, 4, 8),
        "timestep": torch.tensor([900]),
    }
    with torch.inference_mode():
        for name in ("cond", "uncond"):
            _set_cache_context(transformer, CacheContext(name))
            transformer(**inputs)
    assert set(hook.state_manager._state_cache) == {"cond", "uncond"}
    remove_speed(wan)
