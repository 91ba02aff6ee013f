from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter
from diffusers import StableDiffusionPipeline as Base
from diffusers.models.attention import BasicTransformerBlock, FreeNoiseTransformerBlock
from safetensors.torch import save_file

from kinoloom.backends.base import Inputs, Lora, Speed
from kinoloom.backends.local import speed
from kinoloom.backends.local.families.animatediff import FAMILY
from kinoloom.backends.local.lora import apply_loras
from kinoloom.backends.local.scheduling import scheduler_for
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.speed import Scheduler
from kinoloom.errors import ModelBroken
from tiny_models.animatediff import (
    ADAPTER,
    motion_folder,
    references_folder,
    write_animatediff,
)
from tiny_models.drive import decoded, load, noise, render, take_of

_NONE = SimpleNamespace(hooks={})
DDIM = Scheduler.model_validate(
    {
        "class": "DDIMScheduler",
        "settings": {
            "beta_schedule": "linear",
            "clip_sample": False,
            "timestep_spacing": "linspace",
        },
    }
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "animatediff"
    write_animatediff(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    pipe = AnimateDiffPipeline.from_pretrained(
        str(folder), motion_adapter=MotionAdapter.from_pretrained(str(motion_folder(folder)))
    )
    pipe.set_progress_bar_config(disable=True)
    place = references_folder(folder)
    pipe.parts = {"ip_adapter": place / ADAPTER, "ip_encoder": place / "image_encoder"}
    return pipe


def test_words_change_the_clip_and_the_negative_ones_too(pipe: Any, one_thread: None) -> None:
    wanted = take_of(frames=4, scheduler=DDIM)
    red, latents = render(FAMILY, pipe, wanted)
    assert red.shape == (4, 64, 64, 3)
    assert [tuple(x.shape) for x in latents] == [(4, 4, 8, 8)] * 2
    again, _ = render(FAMILY, pipe, wanted)
    assert np.array_equal(red, again)
    assert np.abs(red[0] - red[1]).mean() > 0.005  # it moves
    for changes in ({"prompt": "a blue square"}, {"negative": "a blue square"}):
        other, _ = render(FAMILY, pipe, take_of(frames=4, scheduler=DDIM, **changes))
        assert np.abs(red - other).mean() > 0.005


def test_embeddings_give_what_the_prompt_gives(folder: Path, pipe: Any, one_thread: None) -> None:
    wanted = take_of(frames=4, scheduler=DDIM)
    given, latents = render(FAMILY, pipe, wanted)
    words = {"prompt": wanted.prompt, "negative_prompt": wanted.negative}
    own, _ = render(FAMILY, pipe, wanted, words=words)
    assert np.array_equal(given, own)
    reader = load(folder, unet=None, vae=None, motion_adapter=None, cls=AnimateDiffPipeline)
    writer = AnimateDiffPipeline(**(pipe.components | {"text_encoder": None, "tokenizer": None}))
    writer.set_progress_bar_config(disable=True)
    read = FAMILY.encode(reader, wanted, {})
    apart, _ = render(FAMILY, writer, wanted, words=read)
    np.testing.assert_allclose(given, apart, atol=1e-6)  # other addresses, other rounding
    np.testing.assert_allclose(given, decoded(pipe, latents[-1]), atol=1e-5)


def test_without_guidance_there_is_no_negative_prompt(pipe: Any) -> None:
    assert set(FAMILY.encode(pipe, take_of(guidance=1.0), {})) == {"prompt_embeds"}


def test_a_reference_changes_the_clip_and_leaves_nothing_behind(
    pipe: Any, one_thread: None
) -> None:
    wanted = take_of(frames=4, scheduler=DDIM)
    plain, _ = render(FAMILY, pipe, wanted)
    steered = [
        render(FAMILY, pipe, wanted, Inputs(references=pictures))[0]
        for pictures in ((noise(1),), (noise(2),), (noise(1), noise(2)), (noise(1),))
    ]
    assert np.array_equal(steered[0], steered[3])
    for one, other in ((plain, steered[0]), (steered[0], steered[1]), (steered[0], steered[2])):
        assert np.abs(one - other).mean() > 0.001
    after, _ = render(FAMILY, pipe, wanted)
    assert np.array_equal(plain, after)


def test_an_encoded_reference_is_the_picture_itself(pipe: Any, one_thread: None) -> None:
    wanted, inputs = take_of(frames=4, scheduler=DDIM), Inputs(references=(noise(1),))
    given, _ = render(FAMILY, pipe, wanted, inputs)
    known = FAMILY.arguments(pipe, wanted, inputs)["ip_adapter_image_embeds"]
    assert FAMILY.arguments(pipe, wanted, inputs)["ip_adapter_image_embeds"] is known
    unguided = take_of(guidance=1.0, frames=4)
    assert [len(x) for x in known] == [2]
    lone = FAMILY.arguments(pipe, unguided, inputs)["ip_adapter_image_embeds"]
    assert [len(x) for x in lone] == [1]
    torch.testing.assert_close(lone[0], known[0][1:])
    assert pipe.image_encoder is None
    assert given.shape == (4, 64, 64, 3)


def test_a_card_without_an_adapter_cannot_take_references(pipe: Any) -> None:
    parts, pipe.parts = pipe.parts, {}
    try:
        FAMILY.prepare(pipe, take_of(frames=4), Inputs())
        with pytest.raises(ModelBroken, match="reference") as caught:
            FAMILY.prepare(pipe, take_of(frames=4), Inputs(references=(noise(1),)))
    finally:
        pipe.parts = parts
    assert "ip_adapter" in (caught.value.cause or "")


def test_a_long_clip_goes_through_windows(pipe: Any, one_thread: None) -> None:
    short = take_of(frames=16, scheduler=DDIM)
    before, _ = render(FAMILY, pipe, short)
    wanted = take_of(frames=18, scheduler=DDIM)
    long, latents = render(FAMILY, pipe, wanted)
    assert long.shape == (18, 64, 64, 3)
    assert latents[-1].shape == (4, 18, 8, 8)
    assert _kinds(pipe) == {FreeNoiseTransformerBlock}
    other, _ = render(FAMILY, pipe, take_of(frames=18, scheduler=DDIM, prompt="a blue box"))
    assert np.abs(long - other).mean() > 0.005
    after, _ = render(FAMILY, pipe, short)
    assert _kinds(pipe) == {BasicTransformerBlock}
    assert np.array_equal(before, after)


def test_windows_are_those_of_diffusers(folder: Path, pipe: Any, one_thread: None) -> None:
    wanted = take_of(frames=18, scheduler=DDIM)
    ours, _ = render(FAMILY, pipe, wanted)
    fresh = AnimateDiffPipeline.from_pretrained(
        str(folder), motion_adapter=MotionAdapter.from_pretrained(str(motion_folder(folder)))
    )
    fresh.set_progress_bar_config(disable=True)
    fresh.scheduler = scheduler_for(fresh.scheduler, wanted)
    fresh.enable_free_noise(context_length=16, context_stride=4)
    theirs = fresh(
        prompt=wanted.prompt,
        negative_prompt=wanted.negative,
        num_frames=18,
        width=64,
        height=64,
        num_inference_steps=2,
        guidance_scale=wanted.guidance,
        generator=torch.Generator("cpu").manual_seed(wanted.seed),
        output_type="np",
    ).frames[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_a_motion_lora_survives_windows_and_references(
    pipe: Any, tmp_path: Path, one_thread: None
) -> None:
    file = tmp_path / "zoom-in.safetensors"
    save_file(_motion_lora(pipe.unet), file)
    short, long = take_of(frames=4, scheduler=DDIM), take_of(frames=17, scheduler=DDIM)
    plain, _ = render(FAMILY, pipe, short)
    plain_long, _ = render(FAMILY, pipe, long)
    apply_loras(pipe, [Lora("zoom-in", file, component="unet")])
    moved, _ = render(FAMILY, pipe, short)
    render(FAMILY, pipe, short, Inputs(references=(noise(1),)))
    moved_long, _ = render(FAMILY, pipe, long)
    again, _ = render(FAMILY, pipe, short)
    apply_loras(pipe, [])
    after, _ = render(FAMILY, pipe, short)
    assert np.abs(plain - moved).mean() > 0.005
    assert np.abs(plain_long - moved_long).mean() > 0.005
    assert np.array_equal(moved, again)
    assert np.array_equal(plain, after)


def test_the_step_cache_leaves_the_motion_modules_alone(pipe: Any, one_thread: None) -> None:
    card = Catalog.load().get("animatediff")
    assert card.acceleration.balanced is not None
    wanted = take_of(frames=4, scheduler=DDIM, steps=8)
    plain, _ = render(FAMILY, pipe, wanted)
    try:
        speed.apply_speed(pipe, Speed(cache=card.acceleration.balanced), wanted.steps)
        fast, _ = render(FAMILY, pipe, wanted)
        hooked = {
            name.split(".")[2] if name.split(".")[0] != "mid_block" else name.split(".")[1]
            for name, module in pipe.unet.named_modules()
            if "pyramid_attention_broadcast" in getattr(module, "_diffusers_hook", _NONE).hooks
        }
    finally:
        speed.remove_speed(pipe)
    assert hooked == {"attentions"}
    assert not np.array_equal(plain, fast)
    after, _ = render(FAMILY, pipe, wanted)
    assert np.array_equal(plain, after)


def test_the_checkpoint_is_an_ordinary_image_model(folder: Path) -> None:
    assert Base.from_pretrained(str(folder), safety_checker=None).unet.config.in_channels == 4


def _motion_lora(unet: Any) -> dict[str, torch.Tensor]:
    """A LoRA of rank 2 with the names that the published motion LoRAs have."""
    generator = torch.Generator().manual_seed(0)
    tensors: dict[str, torch.Tensor] = {}
    for name, module in unet.named_modules():
        if "motion_modules" in name and name.endswith(("to_q", "to_k", "to_v")):
            layer, projection = name.rsplit(".", 1)
            key = f"unet.{layer}.processor.{projection}_lora"
            down = torch.randn(2, module.in_features, generator=generator)
            up = torch.randn(module.out_features, 2, generator=generator)
            tensors |= {f"{key}.down.weight": down, f"{key}.up.weight": up}
    return tensors


def _kinds(pipe: Any) -> set[type]:
    return {
        type(block)
        for part in (*pipe.unet.down_blocks, *pipe.unet.up_blocks)
        for module in part.motion_modules
        for block in module.transformer_blocks
    }
