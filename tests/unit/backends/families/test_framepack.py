from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinoloom.backends.base import Inputs
from kinoloom.backends.local.families.framepack import FAMILY
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from tiny_models.drive import differ, output_of, plain, take_of

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"width": 32, "height": 32, "frames": 37, "guidance": 9.0}
BRIGHT, DARK = plain(220, 32, 32), plain(20, 32, 32)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    from tiny_models import framepack

    folder = tmp_path_factory.mktemp("framepack")
    framepack.cards(folder)
    return Catalog.load(folder)


@pytest.fixture(scope="module")
def card(catalog: Catalog) -> ModelCard:
    return catalog.get("tiny-framepack")


@pytest.fixture(scope="module")
def pipe(card: ModelCard) -> Any:
    """Put together from three places, as the card says."""
    from diffusers import HunyuanVideoFramepackPipeline, HunyuanVideoFramepackTransformer3DModel
    from transformers import SiglipImageProcessorPil, SiglipVisionModel

    parts = {
        name: Path(str(part.path)) / part.subfolder for name, part in card.source.parts.items()
    }
    pipe = HunyuanVideoFramepackPipeline.from_pretrained(
        card.source.path,
        transformer=HunyuanVideoFramepackTransformer3DModel.from_pretrained(parts["transformer"]),
        image_encoder=SiglipVisionModel.from_pretrained(parts["image_encoder"]),
        feature_extractor=SiglipImageProcessorPil.from_pretrained(parts["feature_extractor"]),
    )
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_prompt_and_picture_matter_and_embeddings_give_what_the_prompt_gives(pipe: Any) -> None:
    take, inputs = take_of(**SMALL), Inputs(image=BRIGHT)
    frames = FAMILY.frames(output_of(FAMILY, pipe, take, inputs))
    direct = output_of(FAMILY, pipe, take, inputs, words={"prompt": take.prompt})
    assert np.array_equal(frames, FAMILY.frames(direct))
    other = output_of(FAMILY, pipe, take_of(**SMALL, prompt="blue water"), inputs)
    assert differ(frames, FAMILY.frames(other)) > 0.005
    dark = output_of(FAMILY, pipe, take, Inputs(image=DARK))
    assert differ(frames, FAMILY.frames(dark)) > 0.01


@pytest.mark.parametrize(("model", "frames"), [("", 37), ("", 73), ("-f1", 73), ("", 109)])
def test_as_many_frames_come_out_as_the_card_counts(
    catalog: Catalog, pipe: Any, model: str, frames: int
) -> None:
    card = catalog.get(f"tiny-framepack{model}")
    assert card.frames.allows(frames)
    take = take_of(**SMALL | {"frames": frames})
    seen = []

    def watch(_: Any, index: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(tuple(FAMILY.latents(pipe, take, tensors["latents"]).shape))
        return tensors

    fixed = card.pipelines["i2v"].arguments
    inputs = Inputs(image=BRIGHT)
    output = output_of(FAMILY, pipe, take, inputs, fixed, callback_on_step_end=watch)
    assert FAMILY.frames(output).shape == (frames, 32, 32, 3)
    assert seen == [(4, 9, 4, 4)] * FAMILY.steps(pipe, take)


def test_the_last_picture_matters(card: ModelCard, pipe: Any) -> None:
    fixed = card.pipelines["flf2v"].arguments
    ends = [
        FAMILY.frames(
            output_of(FAMILY, pipe, take_of(**SMALL), Inputs(image=BRIGHT, last_image=last), fixed)
        )
        for last in (DARK, BRIGHT)
    ]
    assert differ(*ends) > 0.001


def test_a_picture_is_encoded_once(pipe: Any) -> None:
    seen = []
    handle = pipe.image_encoder.register_forward_hook(lambda *_: seen.append(1))
    picture = plain(77, 32, 32)
    try:
        first = output_of(FAMILY, pipe, take_of(**SMALL), Inputs(image=picture))
        again = output_of(FAMILY, pipe, take_of(**SMALL), Inputs(image=picture.copy()))
    finally:
        handle.remove()
    assert len(seen) == 1
    assert np.array_equal(FAMILY.frames(first), FAMILY.frames(again))
