from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from kinoloom.config import Settings
from kinoloom.jobs.dead import MAX_DEATHS, dead_workers, hand_back, live_workers
from kinoloom.jobs.locks import lock_file
from kinoloom.store import workers as store_workers
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store
from kinoloom.store.workers import WorkerRecord

NOW = datetime.now(UTC)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", worker_ttl=60)


def worker(name: str, host: str) -> WorkerRecord:
    return WorkerRecord(
        id=name, host=host, pid=1, queues=(), machine={}, version="1", started_at=NOW
    )


def names(found: list[WorkerRecord]) -> list[str]:
    return sorted(one.id for one in found)


def test_those_of_this_machine_are_known_by_their_locks_and_others_by_their_beats(
    store: Store, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = socket.gethostname()
    with monkeypatch.context() as patch:
        late = datetime.now(UTC) - timedelta(seconds=90)
        patch.setattr(store_workers, "_now", lambda: late, raising=False)
        for name in ("silent", "killed long ago"):
            store.workers.beat(worker(name, "far" if name == "silent" else here))
            _beat_at(store, name, late)
    store.workers.beat(worker("far", "far"))
    store.workers.beat(worker("there", here))
    store.workers.beat(worker("killed", here))
    with FileLock(lock_file(settings, "there")):
        assert names(live_workers(store, settings)) == ["far", "there"]
        assert names(dead_workers(store, settings)) == ["killed", "killed long ago", "silent"]
    assert names(live_workers(store, settings)) == ["far"]


def _beat_at(store: Store, name: str, moment: datetime) -> None:
    from sqlalchemy import update

    from kinoloom.store.tables import WorkerRow

    with store.workers._database.writing() as session:
        session.execute(update(WorkerRow).where(WorkerRow.id == name).values(beat_at=moment))


@pytest.fixture
def running(store: Store) -> Callable[..., JobRecord]:
    def make(**values: Any) -> JobRecord:
        given = {"queue": "cpu", "origin": "api", "task": "t2v", "model": "m", "backend": "local"}
        record = JobRecord(**(given | {"request": {}, "state": "running", "worker": "w"} | values))
        store.jobs.add(record)
        return record

    return make


@pytest.mark.parametrize("died", [False, True])
@pytest.mark.parametrize(("queue", "state"), [("cpu", "queued"), ("cli-1", "held")])
def test_a_job_waits_again(
    store: Store, running: Callable[..., JobRecord], died: bool, queue: str, state: str
) -> None:
    job = running(queue=queue, run=4, deaths=1)
    assert hand_back(store, job, died=died)
    after = store.jobs.get(job.id)
    assert after is not None
    assert (after.state, after.run, after.worker) == (state, 5, None)
    assert after.deaths == 1 + died
    reason = "its worker died" if died else "its worker stopped"
    assert store.events.after(0)[-1].data["reason"] == reason
    assert not hand_back(store, job, died=died)


def test_a_job_that_workers_die_of_is_given_up(
    store: Store, running: Callable[..., JobRecord]
) -> None:
    job = running(deaths=MAX_DEATHS - 1)
    assert hand_back(store, replace(job), died=True)
    after = store.jobs.get(job.id)
    assert after is not None
    assert (after.state, after.deaths, after.run) == ("dead", MAX_DEATHS, 1)
    assert after.error is not None
    assert after.error["kind"] == "worker_unavailable"
    assert f"kinoloom jobs retry {job.id}" in after.error["hints"][0]


def test_stopping_a_worker_is_no_death(store: Store, running: Callable[..., JobRecord]) -> None:
    job = running(deaths=MAX_DEATHS - 1)
    assert hand_back(store, job, died=False)
    after = store.jobs.get(job.id)
    assert after is not None
    assert after.state == "queued"


def test_what_was_to_be_cancelled_is_cancelled(
    store: Store, running: Callable[..., JobRecord]
) -> None:
    job = running(state="cancelling", deaths=MAX_DEATHS)
    assert hand_back(store, job, died=True)
    after = store.jobs.get(job.id)
    assert after is not None
    assert after.state == "cancelled"
