from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinoloom.backends.local.families.flux import FAMILY
from tiny_models.drive import decoded, load, render, take_of
from tiny_models.flux import write_flux_dev, write_flux_schnell

FIXED = {"max_sequence_length": 16}


@pytest.fixture(scope="module", params=["schnell", "dev"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "flux"
    (write_flux_schnell if request.param == "schnell" else write_flux_dev)(folder)
    return folder


@pytest.fixture(scope="module")
def pipe(folder: Path) -> Any:
    return load(folder)


def test_words_change_the_picture(pipe: Any, one_thread: None) -> None:
    wanted = take_of(width=96, guidance=3.5)
    red, latents = render(FAMILY, pipe, wanted, fixed=FIXED)
    assert red.shape == (1, 64, 96, 3)
    assert [tuple(x.shape) for x in latents] == [(4, 1, 8, 12)] * 2
    blue, _ = render(
        FAMILY, pipe, take_of(width=96, guidance=3.5, prompt="a blue square"), fixed=FIXED
    )
    assert np.abs(red - blue).mean() > 0.005


def test_embeddings_give_what_the_prompt_gives(folder: Path, pipe: Any, one_thread: None) -> None:
    wanted = take_of(guidance=3.5)
    given, latents = render(FAMILY, pipe, wanted, fixed=FIXED)
    own, _ = render(FAMILY, pipe, wanted, fixed=FIXED, words={"prompt": wanted.prompt})
    assert np.array_equal(given, own)
    reader = load(folder, transformer=None, vae=None)
    writer = load(folder, **dict.fromkeys(FAMILY.text_components))
    read = FAMILY.encode(reader, wanted, FIXED)
    apart, _ = render(FAMILY, writer, wanted, fixed=FIXED, words=read)
    np.testing.assert_allclose(given, apart, atol=5e-6)  # other addresses, other rounding
    np.testing.assert_allclose(given, decoded(pipe, latents[-1]), atol=1e-5)


def test_only_the_taught_variant_takes_guidance(pipe: Any, one_thread: None) -> None:
    low, _ = render(FAMILY, pipe, take_of(guidance=1.0), fixed=FIXED)
    high, _ = render(FAMILY, pipe, take_of(guidance=7.0), fixed=FIXED)
    assert np.array_equal(low, high) is not pipe.transformer.config.guidance_embeds


def test_the_token_limit_is_part_of_the_embeddings_and_their_key(pipe: Any) -> None:
    wanted = take_of()
    short = FAMILY.encode(pipe, wanted, FIXED)["prompt_embeds"]
    assert short.shape[1] == 16
    assert FAMILY.encode_key(pipe, wanted, FIXED) == FIXED
    assert set(FAMILY.encode(pipe, wanted, FIXED)) == {"prompt_embeds", "pooled_prompt_embeds"}
