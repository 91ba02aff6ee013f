from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinoloom.backends.base import Inputs
from kinoloom.backends.local.families import images
from kinoloom.backends.local.families.hunyuan_video15 import FAMILY
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.reading import read_cards
from tiny_models.drive import differ, output_of, plain, take_of

pytestmark = pytest.mark.usefixtures("one_thread")
SMALL = {"frames": 5, "guidance": 6.0}


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    from tiny_models import hunyuan_video15

    folder = tmp_path_factory.mktemp("hunyuan")
    hunyuan_video15.cards(folder)
    return Catalog.load(folder)


def load(catalog: Catalog, task: str, **without: None) -> Any:
    import diffusers

    card = catalog.get(f"tiny-hunyuanvideo-1.5-{task}")
    kind = getattr(diffusers, card.pipelines[task].class_name)
    pipe = kind.from_pretrained(Path(str(card.source.path)), **without)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def pipe(catalog: Catalog) -> Any:
    return load(catalog, "t2v")


@pytest.fixture(scope="module")
def seeing(catalog: Catalog) -> Any:
    return load(catalog, "i2v")


def test_the_prompt_matters_and_embeddings_give_what_the_prompt_gives(pipe: Any) -> None:
    take = take_of(**SMALL)
    frames = FAMILY.frames(output_of(FAMILY, pipe, take))
    assert frames.shape == (5, 64, 64, 3)
    words = {"prompt": take.prompt, "negative_prompt": take.negative}
    assert np.array_equal(frames, FAMILY.frames(output_of(FAMILY, pipe, take, words=words)))
    other = output_of(FAMILY, pipe, take_of(**SMALL, prompt="blue water"))
    assert differ(frames, FAMILY.frames(other)) > 0.003


def test_the_guidance_is_that_of_the_take_and_does_not_stay(pipe: Any) -> None:
    for guidance, expected, passes in ((1.0, 1.0, 1), (6.0, 6.0, 2), (0.0, 1.0, 1)):
        FAMILY.prepare(pipe, take_of(guidance=guidance), Inputs())
        assert pipe.guider.guidance_scale == expected
        assert pipe.guider.num_conditions == passes
    assert set(FAMILY.encode(pipe, take_of(guidance=1.0), {})) == {
        "prompt_embeds",
        "prompt_embeds_mask",
        "prompt_embeds_2",
        "prompt_embeds_mask_2",
    }


def test_quoted_words_go_to_the_second_encoder(pipe: Any) -> None:
    take = take_of(guidance=1.0, prompt='a sign that says "go"')
    assert FAMILY.encode(pipe, take, {})["prompt_embeds_2"].abs().sum() > 0
    plain_words = FAMILY.encode(pipe, take_of(guidance=1.0), {})
    assert plain_words["prompt_embeds_2"].abs().sum() == 0


def test_words_are_encoded_without_what_renders(catalog: Catalog, pipe: Any) -> None:
    rest = {"transformer", "vae", "scheduler", "guider"} - set(FAMILY.encoding_needs)
    half = load(catalog, "t2v", **dict.fromkeys(rest))
    found, whole = (FAMILY.encode(p, take_of(), {}) for p in (half, pipe))
    assert all(torch.equal(found[name], whole[name]) for name in whole)


def test_the_schedulers_results_become_raw_latents(
    pipe: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    take, seen = take_of(**SMALL), []
    kind = type(pipe.scheduler)
    step = kind.step

    def watched(*args: Any, **kwargs: Any) -> Any:
        result = step(*args, **kwargs)
        seen.append(FAMILY.latents(pipe, take, result[0]))
        return result

    monkeypatch.setattr(kind, "step", watched)
    frames = FAMILY.frames(output_of(FAMILY, pipe, take))
    assert not FAMILY.has_callback
    assert [tuple(x.shape) for x in seen] == [(4, 2, 4, 4)] * FAMILY.steps(pipe, take)
    with torch.inference_mode():
        decoded = pipe.vae.decode(seen[-1][None], return_dict=False)[0][0]
    shown = (decoded.permute(1, 2, 3, 0).numpy() / 2 + 0.5).clip(0, 1)
    assert np.abs(shown - frames).max() < 1e-4


def test_a_picture_matters_and_is_encoded_once(seeing: Any) -> None:
    take, seen = take_of(**SMALL | {"guidance": 1.0}), []
    handle = seeing.image_encoder.register_forward_hook(lambda *_: seen.append(1))
    try:
        outputs = [output_of(FAMILY, seeing, take, Inputs(image=plain(c))) for c in (220, 20, 220)]
    finally:
        handle.remove()
    bright, dark, again = map(FAMILY.frames, outputs)
    assert len(seen) == 2
    assert np.array_equal(bright, again)
    assert differ(bright, dark) > 0.01


def test_only_so_many_pictures_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe:
        def __init__(self) -> None:
            self.seen: list[float] = []

        def encode_image(self, image: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
            self.seen.append(float(image.sum()))
            return image * scale

    monkeypatch.setattr(images, "CAPACITY", 2)
    pipe = Pipe()
    images.remember_images(pipe)
    images.remember_images(pipe)
    for value in (1.0, 2.0, 1.0, 3.0, 1.0, 2.0):
        assert pipe.encode_image(torch.tensor([value])).item() == value
    assert pipe.seen == [1.0, 2.0, 3.0, 2.0]
    # What else is asked for decides the result too, and a result given out is nobody else's.
    result = pipe.encode_image(torch.tensor([2.0]), scale=3.0)
    assert result.item() == 6.0
    result.zero_()
    assert pipe.encode_image(torch.tensor([2.0]), scale=3.0).item() == 6.0


def test_the_cards_sizes_are_those_that_the_pipeline_makes_of_a_picture() -> None:
    from diffusers.pipelines.hunyuan_video1_5.image_processor import HunyuanVideo15ImageProcessor

    place = resources.files("kinoloom.catalog") / "cards/hunyuanvideo-1.5.yaml"
    processor = HunyuanVideo15ImageProcessor()
    found = [card for card in read_cards(Path(str(place))) if "i2v" in card.pipelines]
    assert len(found) >= 4
    for card in found:
        assert card.sizes.only_native
        target = 640 if "480p" in card.id else 960
        for width, height in card.sizes.native:
            made = processor.calculate_default_height_width(height, width, target)
            assert made == (height, width), (card.id, width, height)


def test_the_clip_has_the_size_that_was_asked_for(catalog: Catalog, seeing: Any) -> None:
    sizes = catalog.get("tiny-hunyuanvideo-1.5-i2v").sizes.native
    for width, height in sizes[1:]:
        take = take_of(width=width, height=height, frames=5, guidance=1.0, steps=1)
        output = output_of(FAMILY, seeing, take, Inputs(image=plain(99, width, height)))
        assert FAMILY.frames(output).shape == (5, height, width, 3)
