from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import pytest

from kinoloom.jobs import telling as module
from kinoloom.jobs.telling import Telling
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(module, "time", made)
    return made


@pytest.fixture
def job(store: Store) -> JobRecord:
    record = JobRecord(
        queue="cpu", origin="api", request={}, task="t2v", model="m", backend="b", state="running"
    )
    store.jobs.add(record)
    return record


@pytest.fixture
def passed() -> list[Mapping[str, Any]]:
    return []


@pytest.fixture
def telling(job: JobRecord, store: Store, passed: list[Mapping[str, Any]], clock: Clock) -> Telling:
    return Telling(job, store, lambda _job, message: passed.append(message))


def step(number: int, phase: str = "denoise", take: int = 1) -> dict[str, Any]:
    return {
        "type": "progress",
        "phase": phase,
        "step": number,
        "steps": 10,
        "take": take,
        "elapsed": 0.0,
    }


def kept(store: Store, job: JobRecord, kind: str) -> list[Mapping[str, Any]]:
    return [event.data for event in store.events.after(0, job_id=job.id) if event.type == kind]


def test_of_many_steps_a_few_are_kept_and_all_are_passed_on(
    telling: Telling, store: Store, job: JobRecord, passed: list[Mapping[str, Any]], clock: Clock
) -> None:
    for number in range(1, 11):
        telling.message(step(number))
        clock.now += 0.1
    telling.message(step(1, "decode"))
    telling.message(step(1, "decode", take=2))
    assert len(passed) == 12
    told = [(data["phase"], data["step"], data["take"]) for data in kept(store, job, "progress")]
    denoise = [("denoise", n, 1) for n in (1, 4, 7, 10)]
    assert told == [*denoise, ("decode", 1, 1), ("decode", 1, 2)]
    now = store.jobs.get(job.id)
    assert now is not None
    # The child began to count anew with each of its commands.
    assert now.progress == {"phase": "decode", "step": 1, "steps": 10, "take": 2, "elapsed": 1.0}
    seconds = [message["elapsed"] for message in passed]
    assert seconds == [pytest.approx(0.1 * n, abs=1e-3) for n in (*range(11), 10)]


def test_previews_and_lines(
    telling: Telling, store: Store, job: JobRecord, passed: list[Mapping[str, Any]]
) -> None:
    for picture in (b"one", b"two"):
        telling.message({"type": "preview", "jpeg": base64.b64encode(picture).decode()})
    telling.message({"type": "preview", "jpeg": "no base64!"})
    telling.message({"type": "log", "message": "something"})
    telling.message({"type": "alive"})
    assert store.events.preview(job.id) == b"two"
    assert kept(store, job, "preview") == [{"number": 1}, {"number": 2}]
    assert kept(store, job, "log") == [{"message": "something"}]
    assert [m["type"] for m in passed].count("log") == 1


def test_nothing_is_told_of_a_run_that_is_over(
    telling: Telling, store: Store, job: JobRecord
) -> None:
    store.jobs.move(job.id, "queued", expect=["running"], run_to=2)
    before = store.events.last_number()
    telling.message(step(1))
    telling.message({"type": "preview", "jpeg": base64.b64encode(b"x").decode()})
    telling.message({"type": "log", "message": "late"})
    assert store.events.last_number() == before
    assert store.events.preview(job.id) is None
    now = store.jobs.get(job.id)
    assert now is not None
    assert now.progress is None
