from __future__ import annotations

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinoloom.backends.base import Inputs, Progress, Take
from kinoloom.backends.local.backend import LocalBackend
from kinoloom.catalog.card import ModelCard

pytestmark = pytest.mark.usefixtures("one_thread")

MakeTake = Callable[..., Take]
Silent = Callable[[Progress], None]
New = Callable[..., LocalBackend]
Loaded = Callable[[LocalBackend], Any]


def test_the_same_model_is_loaded_once_and_given_back_on_demand(
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    new_backend: New,
    loaded: Loaded,
) -> None:
    backend = new_backend()
    backend.render(make_take(), tiny_card, nothing, silent)
    held = loaded(backend).pipe
    inputs = Inputs(image=np.zeros((64, 64, 3), np.uint8))
    backend.render(make_take(task="i2v"), tiny_card, inputs, silent)
    assert loaded(backend).pipe is held
    half = new_backend(dtype="bfloat16")
    assert half.render(make_take(), tiny_card, nothing, silent).dtype == "bfloat16"
    assert backend.held > 0
    backend.unload()
    assert backend.held == 0


def encoders(backend: LocalBackend) -> int:
    """How many text encoders are loaded, in a pipeline or anywhere else."""
    assert backend._state is not None
    gc.collect()
    found = [m for m in backend._state._shared._modules.values() if "Encoder" in type(m).__name__]
    words = [key for key in backend._state._resident.held if key.startswith("words ")]
    assert len(found) == len(words)
    return len(found)


def test_for_a_prompt_that_was_encoded_before_no_text_encoder_is_loaded(
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    tmp_path: Path,
    new_backend: New,
    loaded: Loaded,
) -> None:
    first, second = new_backend(home=tmp_path), new_backend(home=tmp_path)
    take = make_take(negative="blue")
    encoded = first.render(take, tiny_card, nothing, silent)
    assert encoded.embeddings == "miss"
    assert encoders(first) == 1
    cached = second.render(take, tiny_card, nothing, silent)
    assert cached.embeddings == "hit"
    assert encoders(second) == 0
    assert np.array_equal(encoded.frames, cached.frames)
    other = second.render(make_take(prompt="a blue square"), tiny_card, nothing, silent)
    assert other.embeddings == "miss"
    assert encoders(second) == 1
    again = second.render(make_take(prompt="a blue square", seed=8), tiny_card, nothing, silent)
    assert again.embeddings == "hit"


def test_within_a_small_budget_one_thing_is_held_at_a_time(
    tiny_card: ModelCard,
    own_copy: Callable[[], ModelCard],
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    warm: LocalBackend,
    new_backend: New,
) -> None:
    expected = warm.render(make_take(), tiny_card, nothing, silent).frames
    backend = new_backend(memory_budget=1)
    for card in (tiny_card, own_copy(), tiny_card):
        made = backend.render(make_take(), card, nothing, silent)
        assert np.array_equal(made.frames, expected)
        assert backend._state is not None
        assert len(backend._state._resident.held) == 1


def test_two_models_stay_loaded_where_there_is_room(
    tiny_card: ModelCard,
    own_copy: Callable[[], ModelCard],
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    new_backend: New,
    loaded: Loaded,
) -> None:
    backend = new_backend()
    backend.render(make_take(), tiny_card, nothing, silent)
    first = loaded(backend).pipe
    backend.render(make_take(), own_copy(), nothing, silent)
    assert loaded(backend).pipe is not first
    backend.render(make_take(), tiny_card, nothing, silent)
    assert loaded(backend).pipe is first
