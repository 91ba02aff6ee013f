from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel

from kinoloom.backends.base import Inputs, Progress, Take
from kinoloom.backends.local import hardware
from kinoloom.backends.local.backend import LocalBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.speed import Memory
from kinoloom.errors import ErrorKind, InsufficientMemory
from kinoloom.planner.memory import what_fits

pytestmark = pytest.mark.usefixtures("one_thread")

MakeTake = Callable[..., Take]
Silent = Callable[[Progress], None]
New = Callable[..., LocalBackend]
Loaded = Callable[[LocalBackend], Any]


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB"),
        MemoryError(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: 12 bytes"),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 12 bytes"),
    ],
    ids=lambda e: type(e).__name__,
)
def test_memory_that_runs_out(
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    new_backend: New,
    loaded: Loaded,
) -> None:
    backend = new_backend()
    before = backend.render(make_take(), tiny_card, nothing, silent).frames

    def full(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(loaded(backend).pipe.transformer, "forward", full)
        with pytest.raises(InsufficientMemory) as caught:
            backend.render(make_take(), tiny_card, nothing, silent)
    assert "9 frames of 64x64" in caught.value.message
    assert caught.value.hints
    assert np.array_equal(backend.render(make_take(), tiny_card, nothing, silent).frames, before)


def test_other_errors_of_the_pipeline_are_not_called_memory(
    warm: LocalBackend,
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    loaded: Loaded,
) -> None:
    warm.render(make_take(), tiny_card, nothing, silent)

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with monkeypatch.context() as patched:
        patched.setattr(loaded(warm).pipe.transformer, "forward", fail)
        with pytest.raises(RuntimeError, match="mat1"):
            warm.render(make_take(), tiny_card, nothing, silent)


def full(*_: object, **__: object) -> None:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9.00 GiB")


def test_when_memory_runs_out_everything_is_freed_and_the_next_job_runs(
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    new_backend: New,
    loaded: Loaded,
) -> None:
    backend = new_backend()
    before = backend.render(make_take(), tiny_card, nothing, silent).frames
    pipe = loaded(backend).pipe
    gone = [weakref.ref(module) for module in (pipe.transformer, pipe.vae)]
    del pipe
    with monkeypatch.context() as patched:
        patched.setattr(LTXVideoTransformer3DModel, "forward", full)
        with pytest.raises(InsufficientMemory) as caught:
            backend.render(make_take(), tiny_card, nothing, silent)
        assert caught.value.kind is ErrorKind.INSUFFICIENT_VRAM
        assert backend.held == 0
        gc.collect()
        assert [reference() for reference in gone] == [None, None]
    after = backend.render(make_take(), tiny_card, nothing, silent)
    assert np.array_equal(after.frames, before)
    assert after.notes == ()


def test_a_decoder_that_runs_out_of_memory_works_in_tiles(
    tiny_card: ModelCard,
    make_take: MakeTake,
    nothing: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    new_backend: New,
    loaded: Loaded,
) -> None:
    backend = new_backend()
    events: list[Progress] = []
    expected = backend.render(make_take(), tiny_card, nothing, events.append).frames
    decode = AutoencoderKLLTXVideo.decode

    def limited(self: Any, *args: Any, **options: Any) -> Any:
        if not self.use_tiling and events[-1].phase == "decode":
            full()
        return decode(self, *args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(AutoencoderKLLTXVideo, "decode", limited)
        made = backend.render(make_take(), tiny_card, nothing, events.append)
    # The clip is smaller than a tile, so that it is the very same one.
    assert np.array_equal(made.frames, expected)
    (note,) = made.notes
    assert "Memory ran out" in note
    assert "in tiles" in note
    plain = backend.render(make_take(), tiny_card, nothing, events.append)
    assert plain.notes == ()
    assert np.array_equal(plain.frames, expected)
    assert not loaded(backend).pipe.vae.use_tiling


def test_when_memory_runs_out_it_says_what_would_fit(
    tiny_card: ModelCard,
    make_take: MakeTake,
    silent: Silent,
    nothing: Inputs,
    monkeypatch: pytest.MonkeyPatch,
    new_backend: New,
) -> None:
    """By the card's numbers and the memory that was free once everything had been let go of."""
    memory = Memory(components={"transformer": 1000, "vae": 1000}, working=10, decoding=10)
    card = tiny_card.model_copy(update={"memory": memory})
    backend = new_backend(what_fits=what_fits)
    monkeypatch.setattr(LTXVideoTransformer3DModel, "forward", full)
    take = make_take(width=96, frames=25)
    with pytest.raises(InsufficientMemory) as caught:
        backend.render(take, card, nothing, silent)
    assert caught.value.hints == (
        "ask for 17 frames or fewer instead of 25",
        "ask for the size 64x64",
        "close other programs that use it",
    )
    monkeypatch.setattr(hardware, "memory", lambda *_, **__: (300_000_000, 10**9))
    with pytest.raises(InsufficientMemory) as caught:
        backend.render(take, card, nothing, silent)
    # The process alone takes more than that.
    assert caught.value.hints[0] == "ask for fewer frames or a smaller size"
