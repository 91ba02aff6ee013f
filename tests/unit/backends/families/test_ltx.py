from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from kinoloom.backends.base import Inputs, Keyframe, Take
from kinoloom.backends.local.families.ltx import FAMILY
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from tiny_models.drive import NOTHING, differ, output_of, plain, take_of

Render = Callable[..., Any]


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    from tiny_models import ltx

    folder = tmp_path_factory.mktemp("ltx")
    ltx.cards(folder)
    return Catalog.load(folder)


@pytest.fixture(scope="module")
def card(catalog: Catalog) -> ModelCard:
    return catalog.get("tiny-ltx")


@pytest.fixture(scope="module")
def pipe(card: ModelCard) -> Any:
    from diffusers import LTXConditionPipeline

    pipe = LTXConditionPipeline.from_pretrained(card.source.path)
    pipe.set_progress_bar_config(disable=True)
    pipe.parts = {}
    return pipe


@pytest.fixture
def render(one_thread: None, card: ModelCard, pipe: Any) -> Render:
    fixed = card.pipelines["t2v"].arguments

    def run(take: Take, inputs: Inputs = NOTHING, **more: Any) -> np.ndarray:
        used = more.pop("pipe", pipe)
        return FAMILY.frames(output_of(FAMILY, used, take, inputs, fixed, **more))

    return run


def test_the_prompt_matters_and_embeddings_give_what_the_prompt_gives(render: Render) -> None:
    take = take_of()
    frames = render(take)
    assert frames.shape == (9, 64, 64, 3)
    assert differ(frames, render(take_of(prompt="blue water"))) > 0.01
    assert differ(frames, render(take_of(negative="nothing"))) > 0.001
    words = {"prompt": take.prompt, "negative_prompt": take.negative}
    assert np.array_equal(frames, render(take, words=words))


def test_without_guidance_the_negative_prompt_is_not_encoded(pipe: Any, one_thread: None) -> None:
    assert set(FAMILY.encode(pipe, take_of(guidance=1.0), {})) == {
        "prompt_embeds",
        "prompt_attention_mask",
    }


def test_the_cards_token_limit_holds_for_the_encoding(pipe: Any, one_thread: None) -> None:
    fixed = {"max_sequence_length": 8, "decode_timestep": 0.05}
    found = FAMILY.encode(pipe, take_of(), fixed)
    assert {v.shape[1] for v in found.values()} == {8}
    assert FAMILY.encode_key(pipe, take_of(), fixed) == {"max_sequence_length": 8}
    assert FAMILY.encode_key(pipe, take_of(), {}) == {}


def test_pictures_and_clips_matter_where_they_are_put(render: Render) -> None:
    take = take_of(frames=17)
    first = Inputs(image=plain(200))
    frames = render(take, first)
    assert differ(frames, render(take)) > 0.01
    assert differ(frames, render(take, Inputs(image=plain(20)))) > 0.01
    middle = render(take, Inputs(image=plain(200), keyframes=(Keyframe(8, plain(20)),)))
    last = render(take, Inputs(image=plain(200), last_image=plain(20)))
    assert differ(middle, frames) > 0.001
    assert differ(last, frames) > 0.001
    assert differ(middle, last) > 0.0001
    clip = np.stack([plain(10 * i) for i in range(9)])
    assert differ(render(take, Inputs(video=clip)), frames) > 0.01


def test_a_keyframe_at_the_first_frame_is_the_picture(render: Render) -> None:
    given = render(take_of(), Inputs(image=plain(20)))
    assert np.array_equal(given, render(take_of(), Inputs(keyframes=(Keyframe(0, plain(20)),))))


@pytest.mark.parametrize("inputs", [Inputs(), Inputs(image=plain(9), last_image=plain(90))])
def test_the_callbacks_tokens_become_the_raw_latents_of_the_clip(
    render: Render, pipe: Any, inputs: Inputs
) -> None:
    take = take_of(width=96, frames=17)
    seen = []

    def watch(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(FAMILY.latents(pipe, take, tensors["latents"]))
        return tensors

    latents = render(take, inputs, callback_on_step_end=watch)
    assert [tuple(x.shape) for x in seen] == [(8, 3, 2, 3)] * 2
    with torch.inference_mode():
        decoded = pipe.vae.decode(seen[-1][None], torch.tensor([0.05]), return_dict=False)[0]
    shown = (decoded[0].permute(1, 2, 3, 0).numpy() / 2 + 0.5).clip(0, 1)
    # The pipeline adds a little noise before it decodes.
    assert np.corrcoef(shown.ravel(), latents.ravel())[0, 1] > 0.9


def test_two_stages_make_the_clip_at_half_the_size_first(
    render: Render, catalog: Catalog, pipe: Any
) -> None:
    part = catalog.get("tiny-ltx-two-stage").source.parts["latent_upsampler"]
    two = type(pipe)(**pipe.components)
    two.set_progress_bar_config(disable=True)
    two.parts = {"latent_upsampler": part.path}
    take = take_of(width=128, guidance=3.0, steps=3)
    sizes = []

    def watch(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        sizes.append(tuple(FAMILY.latents(two, take, tensors["latents"]).shape[2:]))
        return tensors

    frames = render(take, pipe=two, callback_on_step_end=watch)
    assert frames.shape == (9, 64, 128, 3)
    assert sizes == [(1, 2)] * 3 + [(2, 4)] * 4
    assert FAMILY.steps(two, take) == len(sizes)
    assert np.array_equal(frames, render(take, pipe=two))
    assert differ(frames, render(take)) > 0.01
    unguided = take_of(width=128, guidance=1.0, steps=3)
    sizes.clear()
    assert render(unguided, pipe=two, callback_on_step_end=watch).shape == (9, 64, 128, 3)
    assert FAMILY.steps(two, unguided) == len(sizes)
