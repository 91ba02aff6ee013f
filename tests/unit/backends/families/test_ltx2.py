from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinoloom.backends.base import Inputs, Keyframe
from kinoloom.backends.local.families.ltx2 import FAMILY
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from tiny_models.drive import differ, output_of, plain, take_of

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> ModelCard:
    from tiny_models import ltx2

    folder = tmp_path_factory.mktemp("ltx2")
    ltx2.cards(folder)
    return Catalog.load(folder).get("tiny-ltx-2")


def load(card: ModelCard, task: str) -> Any:
    import diffusers

    kind = getattr(diffusers, card.pipelines[task].class_name)
    pipe = kind.from_pretrained(Path(str(card.source.path)))
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe(card: ModelCard) -> Any:
    return load(card, "t2v")


def test_words_make_pictures_and_sound(card: ModelCard, pipe: Any) -> None:
    fixed, take = card.pipelines["t2v"].arguments, take_of()
    seen = []

    def watch(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(tuple(FAMILY.latents(pipe, take, tensors["latents"]).shape))
        return tensors

    output = output_of(FAMILY, pipe, take, fixed=fixed, callback_on_step_end=watch)
    frames, audio = FAMILY.frames(output), FAMILY.audio(pipe, output)
    assert frames.shape == (9, 64, 64, 3)
    assert seen == [(4, 2, 2, 2)] * FAMILY.steps(pipe, take)
    assert audio is not None
    assert (audio.samples.dtype, audio.samples.shape[0], audio.rate) == (np.float32, 2, 16000)
    assert audio.samples.std() > 0.01
    # The embeddings are kept without their padding; the pipeline's own are padded.
    words = {"prompt": take.prompt, "negative_prompt": take.negative}
    direct = output_of(FAMILY, pipe, take, fixed=fixed, words=words)
    assert np.array_equal(frames, FAMILY.frames(direct))
    heard = FAMILY.audio(pipe, direct)
    assert heard is not None
    assert np.array_equal(audio.samples, heard.samples)
    other = output_of(FAMILY, pipe, take_of(prompt="blue water"), fixed=fixed)
    assert differ(frames, FAMILY.frames(other)) > 0.01
    sounds = FAMILY.audio(pipe, other)
    assert sounds is not None
    assert differ(audio.samples, sounds.samples) > 0.0005


def test_embeddings_hold_no_more_than_the_longer_prompt(pipe: Any) -> None:
    found = FAMILY.encode(pipe, take_of(prompt="abc", negative="abcdefgh"), {})
    lengths = {name: value.shape[1] for name, value in found.items()}
    assert set(lengths.values()) == {int(found["negative_prompt_attention_mask"].sum())}
    assert int(found["prompt_attention_mask"].sum()) < lengths["prompt_embeds"]
    assert found["prompt_embeds"].untyped_storage().nbytes() == found["prompt_embeds"].nbytes


def test_without_guidance_there_is_one_pass_a_step(card: ModelCard, pipe: Any) -> None:
    fixed = card.pipelines["t2v"].arguments
    passes = []
    handle = pipe.transformer.register_forward_pre_hook(lambda *_: passes.append(1))
    try:
        output_of(FAMILY, pipe, take_of(guidance=1.0), fixed=fixed)
        unguided = len(passes)
        output_of(FAMILY, pipe, take_of(), fixed=fixed)
    finally:
        handle.remove()
    assert unguided == 2
    assert len(passes) - unguided > 2


def test_pinned_noise_levels_are_taken_as_they_are(card: ModelCard) -> None:
    pipe, fixed = load(card, "t2v"), card.pipelines["t2v"].arguments
    take = take_of(guidance=1.0, timesteps=(1000, 725))
    levels = []

    def watch(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        levels.append(pipe.scheduler.sigmas.tolist())
        return tensors

    output_of(FAMILY, pipe, take, fixed=fixed, timesteps=[1000, 725], callback_on_step_end=watch)
    assert levels == [pytest.approx([1.0, 0.725, 0.0])] * 2


def test_a_picture_is_the_first_frame(card: ModelCard) -> None:
    pipe, fixed = load(card, "i2v"), card.pipelines["i2v"].arguments
    bright, dark = (
        FAMILY.frames(output_of(FAMILY, pipe, take_of(), Inputs(image=plain(c)), fixed))
        for c in (220, 20)
    )
    assert differ(bright, dark) > 0.01


def test_pictures_matter_at_later_frames(card: ModelCard) -> None:
    pipe, fixed = load(card, "flf2v"), card.pipelines["flf2v"].arguments
    take = take_of(task="flf2v", frames=17)
    seen = []

    def watch(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(FAMILY.latents(pipe, take, tensors["latents"]))
        return tensors

    def frames(inputs: Inputs, **more: Any) -> np.ndarray[Any, Any]:
        return FAMILY.frames(output_of(FAMILY, pipe, take, inputs, fixed, **more))

    ends = {"image": plain(220), "last_image": plain(20)}
    first = frames(Inputs(**ends), callback_on_step_end=watch)
    assert [tuple(x.shape) for x in seen] == [(4, 3, 2, 2)] * FAMILY.steps(pipe, take)
    # The clip's own cells are shown, not those of the conditions behind them.
    with torch.inference_mode():
        decoded = pipe.vae.decode(seen[-1][None], None, return_dict=False)[0]
    own = pipe.video_processor.postprocess_video(decoded, output_type="np")[0]
    assert np.allclose(first, own, atol=1e-4)
    assert differ(first, frames(Inputs(**(ends | {"last_image": plain(220)})))) > 0.001
    key = Inputs(**ends, keyframes=(Keyframe(8, plain(120)),))
    assert differ(first, frames(key)) > 0.001


@pytest.mark.parametrize(("frame", "latent"), [(0, 0), (1, 1), (8, 1), (9, 2), (16, 2)])
def test_a_picture_goes_to_the_latent_frame_that_its_own_is_in(
    card: ModelCard, pipe: Any, frame: int, latent: int
) -> None:
    key = Inputs(image=plain(1), keyframes=(Keyframe(frame, plain(2)),))
    conditions = FAMILY.media(pipe, take_of(frames=17), key)["conditions"]
    assert conditions[-1].index == latent
    assert len(conditions) == (1 if frame == 0 else 2)
