from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from kinoloom.config import Settings
from kinoloom.errors import Conflict, NetworkFailed
from kinoloom.jobs import engine as module
from kinoloom.jobs.engine import WEBHOOKS, Engine, QueueLimits
from stand_in import until


class Place:
    """An engine, and what it was asked to do."""

    def __init__(self, home: Path) -> None:
        self.runs: list[tuple[str, int]] = []
        self.tries: Counter[str] = Counter()
        self.refusals: dict[str, list[Exception]] = {}
        self.open = threading.Event()
        self.open.set()
        self.at_once = self.most = 0
        self.lock = threading.Lock()
        limits = {"one": QueueLimits(), "two": QueueLimits(at_once=2), WEBHOOKS: QueueLimits(4)}
        self.engine = Engine(Settings(home=home), "here", limits, self.run, self.deliver, 0.02)

    def run(self, job_id: str, run: int) -> None:
        with self.lock:
            self.runs.append((job_id, run))
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.open.wait(60)
        with self.lock:
            self.at_once -= 1

    def deliver(self, job_id: str) -> None:
        self.tries[job_id] += 1
        if self.refusals.get(job_id):
            raise self.refusals[job_id].pop()

    def names(self) -> list[str]:
        return [job_id for job_id, _ in self.runs]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_WEBHOOK_SECONDS", 0.02)
        patch.setattr(module, "_WEBHOOK_GROWTH", 1.0)
        place = Place(tmp_path_factory.mktemp("engine") / "home")
        place.engine.start()
        yield place
        place.engine.stop()


@pytest.fixture
def place(shared: Place) -> Iterator[Place]:
    shared.runs.clear()
    shared.most = 0
    yield shared
    shared.open.set()
    until(lambda: shared.at_once == 0)


def test_a_run_is_begun_once_however_often_it_is_handed_over(place: Place) -> None:
    for _ in range(3):
        place.engine.enqueue("a", 1, "one", 0)
    place.engine.enqueue("a", 2, "one", 0)
    until(lambda: len(place.runs) == 2)
    place.engine.enqueue("a", 2, "one", 0)
    place.engine.enqueue("b", 1, "one", 0)
    until(lambda: "b" in place.names())
    assert place.runs == [("a", 1), ("a", 2), ("b", 1)]


def test_a_queue_has_so_many_places(place: Place) -> None:
    place.open.clear()
    for name in "cde":
        place.engine.enqueue(name, 1, "two", 0)
    until(lambda: place.at_once == 2)
    place.open.set()
    until(lambda: len(place.runs) == 3)
    assert place.most == 2


def test_a_run_that_is_over_holds_no_place(place: Place) -> None:
    place.open.clear()
    place.engine.enqueue("first", 1, "one", 0)
    until(lambda: place.at_once == 1)
    place.engine.enqueue("given up", 1, "one", 0)
    place.engine.abandon("given up", 1)
    place.engine.enqueue("next", 1, "one", 0)
    assert place.engine.taken_by("here") == [("first", 1)]
    assert place.engine.taken_by("elsewhere") == []
    place.open.set()
    until(lambda: "next" in place.names())
    assert place.names() == ["first", "next"]


def test_a_run_may_pass_all_queues(place: Place) -> None:
    place.open.clear()
    place.engine.enqueue("waits", 1, "one", 0)
    until(lambda: place.at_once == 1)
    place.engine.run_now("now", 1)
    until(lambda: "now" in place.names())
    assert place.at_once == 2


def test_a_webhook_is_tried_until_it_answers(place: Place) -> None:
    place.refusals = {
        "late": [NetworkFailed("away") for _ in range(3)],
        "refused": [Conflict("no") for _ in range(3)],
        "never": [NetworkFailed("away") for _ in range(50)],
    }
    for name in place.refusals:
        place.engine.announce(name, 1)
        place.engine.announce(name, 1)
    until(lambda: place.tries["never"] == module.WEBHOOK_TRIES)
    until(lambda: place.tries["late"] == 4)
    assert place.tries["refused"] == 1


def test_what_ended_long_ago_is_forgotten(place: Place) -> None:
    place.engine.enqueue("old", 1, "one", 0)
    until(lambda: place.names() == ["old"] and place.at_once == 0)
    assert place.engine.forget(timedelta(days=1)) == 0

    def begun_again() -> bool:
        # Its end is written a moment after it ended, so that a first look may come too early.
        place.engine.forget(timedelta(0))
        place.engine.enqueue("old", 1, "one", 0)
        return len(place.names()) > 1

    # What is forgotten could be begun again; that its run is over is then told by the job.
    until(begun_again)


def test_it_keeps_no_stream_of_whoever_started_it(place: Place) -> None:
    streams = [
        handler
        for handler in logging.getLogger("dbos").handlers
        if isinstance(handler, logging.StreamHandler)
    ]
    assert streams == []
