from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import CLIPImageProcessorPil

from kinoloom.backends.base import Inputs, Speed
from kinoloom.backends.local import speed
from kinoloom.backends.local.families.svd import FAMILY
from kinoloom.catalog.loader import Catalog
from tiny_models.drive import decoded, load, noise, render, take_of
from tiny_models.svd import write_svd

FIXED = {"fps": 7, "motion_bucket_id": 127, "noise_aug_strength": 0.02, "decode_chunk_size": 2}


@pytest.fixture(scope="module")
def pipe(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder: Path = tmp_path_factory.mktemp("models") / "svd"
    write_svd(folder)
    processor = CLIPImageProcessorPil.from_pretrained(str(folder / "feature_extractor"))
    return load(folder, feature_extractor=processor)


def test_the_picture_decides_the_clip(pipe: Any, one_thread: None) -> None:
    wanted = take_of(task="i2v", frames=4, guidance=3.0)
    one, latents = render(FAMILY, pipe, wanted, Inputs(image=noise(1)), FIXED)
    assert one.shape == (4, 64, 64, 3)
    assert [tuple(x.shape) for x in latents] == [(4, 4, 8, 8)] * 2
    assert np.abs(one[0] - one[3]).mean() > 0.001
    again, _ = render(FAMILY, pipe, wanted, Inputs(image=noise(1)), FIXED)
    assert np.array_equal(one, again)
    other, _ = render(FAMILY, pipe, wanted, Inputs(image=noise(2)), FIXED)
    assert np.abs(one - other).mean() > 0.005


def test_the_latents_are_those_that_are_decoded(pipe: Any, one_thread: None) -> None:
    wanted = take_of(task="i2v", frames=4, guidance=3.0)
    clip, latents = render(FAMILY, pipe, wanted, Inputs(image=noise(1)), FIXED)
    expected = decoded(pipe, latents[-1][:, 2:], num_frames=2)  # two are decoded at a time
    np.testing.assert_allclose(clip[2:], expected, atol=1e-5)


def test_conditions_of_the_card_matter(pipe: Any, one_thread: None) -> None:
    wanted, inputs = take_of(task="i2v", frames=4, guidance=3.0), Inputs(image=noise(1))
    calm, _ = render(FAMILY, pipe, wanted, inputs, FIXED)
    lively, _ = render(FAMILY, pipe, wanted, inputs, FIXED | {"motion_bucket_id": 255})
    assert np.abs(calm - lively).max() > 1e-4


def test_guidance_rises_from_the_first_frame_to_the_last(pipe: Any) -> None:
    inputs = Inputs(image=noise(1))
    arguments = FAMILY.arguments(pipe, take_of(frames=4, guidance=3.0), inputs)
    assert "guidance_scale" not in arguments
    assert (arguments["min_guidance_scale"], arguments["max_guidance_scale"]) == (1.0, 3.0)
    single = FAMILY.arguments(pipe, take_of(frames=4, guidance=0.5), inputs)
    assert (single["min_guidance_scale"], single["max_guidance_scale"]) == (0.5, 0.5)


def test_the_cards_step_cache_reaches_its_timesteps(pipe: Any, one_thread: None) -> None:
    card = Catalog.load().get("svd")
    assert card.acceleration.balanced is not None
    wanted = take_of(task="i2v", frames=4, guidance=3.0, steps=8)
    inputs = Inputs(image=noise(1))
    plain, _ = render(FAMILY, pipe, wanted, inputs, FIXED)
    try:
        speed.apply_speed(pipe, Speed(cache=card.acceleration.balanced), wanted.steps)
        fast, _ = render(FAMILY, pipe, wanted, inputs, FIXED)
    finally:
        speed.remove_speed(pipe)
    assert not np.array_equal(plain, fast)


def test_it_takes_no_words(pipe: Any) -> None:
    assert FAMILY.text_components == ()
    assert FAMILY.encode(pipe, take_of(), FIXED) == {}
    assert FAMILY.encode_key(pipe, take_of(), FIXED) is None
