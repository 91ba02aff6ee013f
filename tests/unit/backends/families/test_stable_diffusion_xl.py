from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinoloom.backends.base import Inputs
from kinoloom.backends.local.families.stable_diffusion_xl import FAMILY
from kinoloom.errors import ModelBroken
from tiny_models.drive import decoded, load, noise, render, take_of
from tiny_models.stable_diffusion_xl import (
    ADAPTER,
    references_folder,
    write_stable_diffusion_xl,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "sdxl"
    write_stable_diffusion_xl(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    place = references_folder(folder)
    parts = {"ip_adapter": place / ADAPTER, "ip_encoder": place / "image_encoder"}
    return load(folder, parts)


def test_words_change_the_picture_and_the_negative_ones_too(pipe: Any, one_thread: None) -> None:
    red, latents = render(FAMILY, pipe, take_of())
    assert red.shape == (1, 64, 64, 3)
    assert [tuple(x.shape) for x in latents] == [(4, 1, 8, 8)] * 2
    for changes in ({"prompt": "a blue square"}, {"negative": "a blue square"}):
        other, _ = render(FAMILY, pipe, take_of(**changes))
        assert np.abs(red - other).mean() > 0.005


@pytest.mark.parametrize("negative", ["", "a blue square"])
def test_embeddings_give_what_the_prompt_gives(
    folder: Path, pipe: Any, one_thread: None, negative: str
) -> None:
    wanted = take_of(negative=negative)
    given, latents = render(FAMILY, pipe, wanted)
    words = {"prompt": wanted.prompt, "negative_prompt": negative or None}
    own, _ = render(FAMILY, pipe, wanted, words=words)
    assert np.array_equal(given, own)
    reader = load(folder, unet=None, vae=None)
    writer = load(folder, **dict.fromkeys(FAMILY.text_components))
    read = FAMILY.encode(reader, wanted, {})
    apart, _ = render(FAMILY, writer, wanted, words=read)
    np.testing.assert_allclose(given, apart, atol=1e-6)  # other addresses, other rounding
    np.testing.assert_allclose(given, decoded(pipe, latents[-1]), atol=1e-5)


def test_without_guidance_there_is_no_negative_prompt(pipe: Any, one_thread: None) -> None:
    found = FAMILY.encode(pipe, take_of(guidance=0.0), {})
    assert set(found) == {"prompt_embeds", "pooled_prompt_embeds"}
    picture, _ = render(FAMILY, pipe, take_of(guidance=0.0))
    assert np.isfinite(picture).all()


def test_layers_left_out_are_part_of_the_embeddings_key(pipe: Any) -> None:
    whole, fewer = (
        FAMILY.encode(pipe, take_of(), {}),
        FAMILY.encode(pipe, take_of(), {"clip_skip": 1}),
    )
    assert not torch.equal(whole["prompt_embeds"], fewer["prompt_embeds"])
    assert FAMILY.encode_key(pipe, take_of(), {}) != FAMILY.encode_key(
        pipe, take_of(), {"clip_skip": 1}
    )


def test_a_reference_changes_the_picture_and_leaves_nothing_behind(
    pipe: Any, one_thread: None
) -> None:
    plain, _ = render(FAMILY, pipe, take_of())
    one, _ = render(FAMILY, pipe, take_of(), Inputs(references=(noise(1),)))
    other, _ = render(FAMILY, pipe, take_of(), Inputs(references=(noise(2, 96, 80),)))
    assert np.abs(plain - one).mean() > 0.001
    assert np.abs(one - other).mean() > 0.001
    after, _ = render(FAMILY, pipe, take_of())
    assert np.array_equal(plain, after)


def test_an_incomplete_image_encoder_is_refused(pipe: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    file = pipe.parts["ip_encoder"] / "model.safetensors"
    broken = tmp_path / "image_encoder"
    broken.mkdir()
    broken.joinpath("config.json").write_bytes(file.with_name("config.json").read_bytes())
    weights = load_file(file)
    del weights["visual_projection.weight"]
    save_file(weights, broken / file.name, metadata={"format": "pt"})
    inputs = Inputs(references=(noise(3),))
    parts, pipe.parts = pipe.parts, pipe.parts | {"ip_encoder": broken}
    try:
        FAMILY.prepare(pipe, take_of(), inputs)
        with pytest.raises(ModelBroken, match="incomplete") as caught:
            FAMILY.arguments(pipe, take_of(), inputs)
    finally:
        pipe.parts = parts
    assert "visual_projection.weight" in (caught.value.cause or "")
