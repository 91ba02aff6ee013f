from __future__ import annotations

import json

import numpy as np
import pytest

from kinoloom.backends.base import Progress
from kinoloom.jobs import progress as module
from kinoloom.jobs.progress import PHASES, Event, Reporter


class Clock:
    """Time that passes only when it is told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(module.time, "perf_counter", found)
    return found


def test_before_the_first_step_the_estimate_tells_the_time_left(clock: Clock) -> None:
    events: list[Event] = []
    report = Reporter(events.append, 10.0)
    report(Progress("load"))
    clock.now += 4
    report(Progress("encode"))
    clock.now += 90
    report(Progress("load"))
    assert [e.eta for e in events] == [10.0, 6.0, 0.0]
    assert [e.elapsed for e in events] == [0.0, 4.0, 94.0]


def test_from_the_first_step_on_the_pace_tells_it(clock: Clock) -> None:
    events: list[Event] = []
    report = Reporter(events.append, 1000.0)
    report(Progress("load"))
    clock.now += 50  # a slow load says nothing about the steps
    report(Progress("encode"))
    clock.now += 2
    report(Progress("denoise", 1, 4))
    clock.now += 4
    report(Progress("denoise", 2, 4))
    clock.now += 3
    report(Progress("denoise", 4, 4))
    assert [e.eta for e in events[2:]] == [6.0, 6.0, 0.0]


def test_nothing_is_claimed_without_an_estimate(clock: Clock) -> None:
    events: list[Event] = []
    report = Reporter(events.append, None)
    report(Progress("load"))
    report(Progress("encode"))
    report.tell("score")
    assert [e.eta for e in events] == [None, None, None]


def test_without_a_listener_nothing_happens() -> None:
    Reporter(None, None)(Progress("load"))


def test_what_the_listener_raises_passes() -> None:
    def stop(_: Event) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Reporter(stop, None)(Progress("load"))


def test_an_event_as_data() -> None:
    event = Event("denoise", 2, 4, 1.23456, 2.0, np.zeros((4, 4, 3), np.uint8))
    data = json.loads(json.dumps(event.as_dict()))
    assert data == {
        "type": "progress",
        "phase": "denoise",
        "step": 2,
        "steps": 4,
        "elapsed": 1.235,
        "eta": 2.0,
        "take": 1,
        "takes": 1,
    }
    assert Event("load").as_dict()["eta"] is None


def test_the_phases_are_in_their_order() -> None:
    here, elsewhere = ("load", "encode", "denoise", "decode"), ("queued", "render", "fetch")
    assert (*here, *elsewhere, "score", "write") == PHASES
