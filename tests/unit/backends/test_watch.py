from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from kinoloom.backends.base import Inputs, Progress, Take
from kinoloom.backends.local import watch as module
from kinoloom.backends.local.backend import LocalBackend
from kinoloom.backends.local.families import ltx
from kinoloom.backends.local.families.base import Family
from kinoloom.backends.local.watch import Watch, watched
from kinoloom.catalog.card import ModelCard

MakeTake = Callable[..., Take]


class Windowed(Family):
    """A family that makes a clip in windows: twice the take's steps, and no callback."""

    has_callback = False

    def steps(self, pipe: Any, take: Take) -> int:
        return 2 * take.steps


class Scheduler:
    """Adds one to the latents at each step."""

    def step(self, _velocity: Any, _t: int, latents: torch.Tensor, return_dict: bool = True) -> Any:
        result = latents + 1
        return SimpleNamespace(prev_sample=result) if return_dict else (result,)


@pytest.fixture
def pipe() -> Any:
    return SimpleNamespace(scheduler=Scheduler())


@pytest.mark.parametrize("return_dict", [True, False])
def test_a_pipeline_without_a_callback_is_watched_at_its_scheduler(
    pipe: Any, make_take: MakeTake, return_dict: bool
) -> None:
    events: list[Progress] = []
    family = Windowed()
    watch = Watch(pipe, make_take(steps=2), family, None, events.append)
    with watched(pipe, watch, family) as arguments:
        assert arguments == {}
        latents = torch.zeros(1)
        for _window in range(2):
            for t in range(2):
                result = pipe.scheduler.step(None, t, latents, return_dict=return_dict)
                latents = result.prev_sample if return_dict else result[0]
        assert latents.item() == 4
    told = [(e.phase, e.step, e.steps) for e in events]
    assert told == [*(("denoise", i, 4) for i in (1, 2, 3, 4)), ("decode", 4, 4)]
    pipe.scheduler.step(None, 0, latents)
    assert len(events) == 5, "the scheduler is its own again"


def test_an_exception_gives_the_scheduler_back_too(pipe: Any, make_take: MakeTake) -> None:
    def stop(_: Progress) -> None:
        raise ZeroDivisionError

    family = Windowed()
    watch = Watch(pipe, make_take(), family, None, stop)
    with pytest.raises(ZeroDivisionError), watched(pipe, watch, family):
        pipe.scheduler.step(None, 0, torch.zeros(1))
    assert "step" not in vars(pipe.scheduler)


def test_a_family_with_a_callback_is_given_one(pipe: Any, make_take: MakeTake) -> None:
    events: list[Progress] = []
    watch = Watch(pipe, make_take(steps=1), Family(), None, events.append)
    with watched(pipe, watch, Family()) as arguments:
        assert arguments == {"callback_on_step_end": watch}
        assert "step" not in vars(pipe.scheduler)
    tensors = {"latents": torch.zeros(1)}
    assert watch(pipe, 0, 1000, tensors) is tensors
    assert [e.phase for e in events] == ["denoise", "decode"]


def test_a_scheduler_that_steps_more_often_than_said_never_goes_beyond(
    pipe: Any, make_take: MakeTake
) -> None:
    """A second-order scheduler takes more steps than it was asked for."""
    events: list[Progress] = []
    watch = Watch(pipe, make_take(steps=2), Family(), None, events.append)
    for i in range(3):
        watch.step(i, torch.zeros(1))
    steps = [(e.step, e.steps) for e in events if e.phase == "denoise"]
    assert steps == [(1, 2), (2, 2), (2, 2)]


def test_the_seconds_of_each_phase(
    pipe: Any, make_take: MakeTake, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(module.time, "perf_counter", lambda: now)
    watch = Watch(pipe, make_take(steps=4), Family(), None, lambda _: None)
    for i, moment in enumerate((5.0, 7.0, 9.0, 11.0)):
        now = moment
        watch.step(i, torch.zeros(1))
    found = watch.seconds(1.0, 12.0)
    # The first step is taken to be as long as the others: it began at 3.
    assert found == {"encode": 2.0, "denoise": 8.0, "step": 2.0, "decode": 1.0}


def test_of_one_step_all_that_precedes_it_is_the_step(
    pipe: Any, make_take: MakeTake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.time, "perf_counter", lambda: 5.0)
    watch = Watch(pipe, make_take(steps=1), Family(), None, lambda _: None)
    watch.step(0, torch.zeros(1))
    assert watch.seconds(1.0, 6.0)["step"] == 4.0
    silent = Watch(pipe, make_take(), Family(), None, lambda _: None)
    assert set(silent.seconds(1.0, 6.0)) == {"encode", "denoise", "step", "decode"}


@pytest.mark.usefixtures("one_thread")
def test_a_real_pipeline_is_seen_the_same_either_way(
    warm: LocalBackend,
    tiny_card: ModelCard,
    make_take: MakeTake,
    nothing: Inputs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[Progress] = []
    stepped: list[Progress] = []
    frames = warm.render(make_take(), tiny_card, nothing, called.append).frames
    with monkeypatch.context() as patched:
        patched.setattr(type(ltx.FAMILY), "has_callback", False)
        again = warm.render(make_take(), tiny_card, nothing, stepped.append).frames
    assert np.array_equal(frames, again)
    assert [(e.phase, e.step, e.steps) for e in called] == [
        (e.phase, e.step, e.steps) for e in stepped
    ]
    for one, other in zip(called, stepped, strict=True):
        assert (one.preview is None) == (other.preview is None)
        if one.preview is not None and other.preview is not None:
            assert np.array_equal(one.preview, other.preview)
    # Afterwards the model is its own again.
    assert np.array_equal(warm.render(make_take(), tiny_card, nothing, _ignore).frames, frames)


def _ignore(_: Progress) -> None:
    pass
