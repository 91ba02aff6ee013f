"""A real worker with a real engine, and a stand-in for the child that renders."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pydantic import SecretStr

from factory import Factory, dead_worker, listening, running_on, working
from kinoloom.config import Settings
from kinoloom.errors import Conflict, OutputFailed, WorkerUnavailable
from kinoloom.jobs import engine, job_run
from kinoloom.jobs import worker as module
from kinoloom.jobs.locks import is_locked, lock_file
from kinoloom.jobs.worker import Worker
from kinoloom.store import jobs as job_store
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store
from kinoloom.store.workers import WorkerRecord
from stand_in import StandIn, until

GONE = "gone"


# --- beginning and end ----------------------------------------------------------------------------
# These have workers of their own, and come first: a process has one engine at a time.


@pytest.fixture
def settings(tmp_path: Path, tiny_cards: Path) -> Settings:
    return Settings(
        home=tmp_path / "home",
        models=tiny_cards,
        default_model="tiny",
        device="cpu",
        outputs=tmp_path / "out",
        worker_ttl=5,
    )


def test_what_a_worker_had_waits_for_the_next_one(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_store, "MOST_WAITING", 1)  # the second is not forgotten for the first
    with working(settings, store) as first:
        job, other = first.busy(), first.submit()
        until(lambda: not store.jobs.waiting(["cpu"]))
    handed_back = first.service.get(job.id)
    assert (handed_back.state, handed_back.run, handed_back.deaths) == ("queued", 2, 0)
    assert handed_back.worker is None
    last = first.service.events(job.id)[-1]
    assert last.data["reason"] == "its worker stopped"
    assert store.workers.get("here") is None
    assert not is_locked(lock_file(settings, "here"))
    assert first.service.queues()[0]["workers"] == 0
    with pytest.raises(WorkerUnavailable, match="No worker is running"):
        first.service.require_worker()
    # Not even the engine's own tables are needed.
    for file in settings.home.glob(f"{engine.FILE_NAME}*"):
        file.unlink()
    with working(settings, store) as second:
        assert second.ended(job).state == second.ended(other).state == "succeeded"
    assert len(store.clips.list()) == 2


def test_a_worker_that_comes_back_begins_with_what_it_had(
    settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_HOUSEKEEPING_SECONDS", 0.05)
    waiting = Factory(settings, store)
    had, wished = running_on(waiting, "here"), running_on(waiting, "here")
    store.jobs.move(wished.id, "cancelling", expect=["running"])
    old = waiting.submit(hold=True)
    long_ago = datetime.now(UTC) - timedelta(days=settings.history_days + 1)
    store.jobs.move(old.id, "failed", expect=["held"], finished_at=long_ago)
    waiting.service.close()
    with working(settings, store) as factory:
        done = factory.ended(had)
        assert (done.state, done.run, done.deaths) == ("succeeded", 2, 1)
        assert factory.state(wished) == "cancelled"
        until(lambda: store.jobs.get(old.id) is None)
        assert factory.clip(had) is not None


def test_the_name_of_a_worker_elsewhere_is_taken(settings: Settings, store: Store) -> None:
    now = datetime.now(UTC)
    elsewhere = WorkerRecord(
        id="here", host="far away", pid=1, queues=(), machine={}, version="0", started_at=now,
        beat_at=now,
    )  # fmt: skip
    store.workers.beat(elsewhere)
    worker = Worker(settings, store, name="here", child=StandIn())  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="A worker named here is running already"):
        worker.start()
    there = store.workers.get("here")
    assert there is not None
    assert there.host == "far away"
    assert not is_locked(lock_file(settings, "here"))


# --- one worker for all that leave it at rest -----------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_cards: Path) -> Iterator[Factory]:
    """One worker for all tests that leave it at rest: an engine takes a second to start."""
    folder = tmp_path_factory.mktemp("worker")
    settings = Settings(
        home=folder / "home",
        models=tiny_cards,
        default_model="tiny",
        device="cpu",
        outputs=folder / "out",
        worker_ttl=5,
        webhook_secret=SecretStr("whsec_c2VjcmV0"),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_run, "_PAUSE", 0.0)
        patch.setattr(module, "POLL_SECONDS", 0.02)
        for limits in ("_API_LIMITS", "_WEBHOOK_LIMITS"):
            patch.setattr(module, limits, replace(getattr(module, limits), poll=0.02))
        patch.setattr(module, "_ANNOUNCED_SECONDS", 0.0)
        patch.setattr(engine, "_WEBHOOK_SECONDS", 0.05)
        patch.setattr(engine, "_WEBHOOK_GROWTH", 1.0)
        with Store.of(settings) as store, working(settings, store) as factory:
            yield factory


@pytest.fixture
def factory(place: Factory) -> Iterator[Factory]:
    yield place
    place.child.open.set()
    place.child.before = lambda _command: None
    until(lambda: not place.store.jobs.running_on("here"))


def test_it_serves_what_this_machine_can_do(factory: Factory) -> None:
    assert factory.worker.queues == ("cpu", "api", "film")
    (there,) = factory.store.workers.live()
    assert (there.id, [queue.name for queue in there.queues]) == ("here", ["cpu", "api", "film"])
    found = {queue["name"]: queue for queue in factory.service.queues()}
    assert found["cpu"]["workers"] == found["api"]["workers"] == 1
    factory.service.require_worker()


def test_a_job_is_made_and_the_worker_is_named(factory: Factory) -> None:
    job = factory.ended(factory.submit())
    assert (job.state, job.worker, job.run, job.deaths) == ("succeeded", "here", 1, 0)
    assert job.started_at is not None
    running = [dict(e.data) for e in factory.service.events(job.id) if e.type == "state"][1]
    assert running == {"state": "running", "run": 1, "worker": "here"}


def test_one_job_at_a_time_and_the_lowest_priority_number_first(factory: Factory) -> None:
    first = factory.busy()
    factory.child.order.clear()
    waiting = [
        factory.submit(name, priority=priority)
        for name, priority in (("late", 900), ("usual", 100), ("soon", 0), ("usual too", 100))
    ]
    # All are with the engine before the place is free.
    until(lambda: not factory.store.jobs.waiting(["cpu"]))
    assert [factory.state(job) for job in waiting] == ["queued"] * 4
    factory.child.open.set()
    assert {factory.ended(job).state for job in (first, *waiting)} == {"succeeded"}
    assert factory.child.order == ["soon", "usual", "usual too", "late"]


def test_jobs_of_other_services_run_at_once(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = threading.Barrier(3)

    class Elsewhere:
        """A job that waits for another service, as long as the others."""

        def __init__(self, job: JobRecord, *_: object) -> None:
            self._job = job

        def carry_out(self) -> None:
            started.wait(60)
            factory.store.jobs.move(self._job.id, "failed", expect=["running"], error={})

    with monkeypatch.context() as patch:
        patch.setattr(module, "ClipJob", Elsewhere)
        jobs = [factory.submit(queue="api") for _ in range(3)]
        assert {factory.ended(job).error is not None for job in jobs} == {True}


def test_a_job_that_waits_is_cancelled_at_once(factory: Factory) -> None:
    first = factory.busy()
    waiting, held = factory.submit(), factory.submit(hold=True)
    for job in (waiting, held):
        cancelled = factory.service.cancel(job.id)
        assert (cancelled.state, cancelled.started_at) == ("cancelled", None)
        with pytest.raises(Conflict, match="it is cancelled"):
            factory.service.cancel(job.id)
    factory.child.open.set()
    assert factory.ended(first).state == "succeeded"
    # What follows is taken, and what was cancelled never.
    assert factory.ended(factory.submit()).state == "succeeded"
    assert factory.clip(waiting) is None


def test_a_job_that_runs_is_cancelled_at_its_next_step(factory: Factory) -> None:
    job = factory.busy()
    assert factory.service.cancel(job.id).state in ("cancelling", "cancelled")
    cancelled = factory.ended(job)
    assert (cancelled.state, cancelled.error, cancelled.clip_id) == ("cancelled", None, None)
    states = [e.data["state"] for e in factory.service.events(job.id) if e.type == "state"]
    assert states == ["queued", "running", "cancelling", "cancelled"]
    factory.child.open.set()
    assert factory.ended(factory.submit()).state == "succeeded"


def test_a_job_that_is_held_keeps_what_it_had_finished(factory: Factory) -> None:
    at_score = threading.Event()

    def before(command: str) -> None:
        if command == "score":
            factory.service.hold(job.id)
            at_score.set()

    factory.child.calls.clear()
    factory.child.open.clear()
    job = factory.submit()
    factory.child.before = before
    factory.child.open.set()
    assert at_score.wait(120)
    until(lambda: not factory.store.jobs.running_on("here"))
    factory.child.before = lambda _command: None
    held = factory.service.get(job.id)
    assert (held.state, held.worker, held.run) == ("held", None, 2)
    until(lambda: factory.child.calls[-1:] == ["score"])
    factory.service.release(job.id)
    done = factory.ended(job)
    assert (done.state, done.run) == ("succeeded", 3)
    assert factory.child.calls.count("render") == 1


def test_a_job_that_waits_is_held_and_released(factory: Factory) -> None:
    first = factory.busy()
    job = factory.submit()
    assert factory.service.hold(job.id).state == "held"
    with pytest.raises(Conflict, match="it is held"):
        factory.service.hold(job.id)
    factory.child.open.set()
    assert factory.ended(first).state == "succeeded"
    assert factory.ended(factory.submit()).state == "succeeded"
    assert factory.state(job) == "held"
    factory.service.release(job.id)
    assert factory.ended(job).state == "succeeded"


def test_a_job_that_failed_runs_again(factory: Factory) -> None:
    died = WorkerUnavailable("The process that renders died.")
    factory.child.dies("encode", died, died)
    factory.child.calls.clear()
    failed = factory.ended(factory.submit())
    assert (failed.state, (failed.error or {})["kind"]) == ("failed", "worker_unavailable")
    factory.service.retry(failed.id)
    done = factory.ended(failed)
    assert (done.state, done.error) == ("succeeded", None)
    assert factory.child.calls.count("render") == 1


def test_a_deadline_passes_while_a_job_waits(factory: Factory) -> None:
    first = factory.busy()
    late = factory.ended(factory.submit(timeout=-1))
    assert late.state == "failed"
    assert (late.error or {})["kind"] == "timeout"
    assert late.started_at is None
    factory.child.open.set()
    assert factory.ended(first).state == "succeeded"


def test_a_deadline_passes_while_a_job_runs(factory: Factory) -> None:
    factory.child.open.clear()
    late = factory.ended(factory.submit(timeout=1.5))
    assert late.state == "failed"
    assert (late.error or {})["kind"] == "timeout"
    factory.child.open.set()
    assert factory.ended(factory.submit()).state == "succeeded"


def test_a_mistake_of_ours_ends_the_job_and_not_the_worker(
    factory: Factory, caplog: pytest.LogCaptureFixture
) -> None:
    factory.child.dies("render", ZeroDivisionError("secret"))
    failed = factory.ended(factory.submit())
    assert failed.state == "failed"
    assert (failed.error or {})["kind"] == "unknown"
    assert (failed.error or {})["cause"] == "ZeroDivisionError"
    assert failed.id in caplog.text
    assert factory.ended(factory.submit()).state == "succeeded"


def test_a_job_whose_start_could_not_be_written_is_begun_again(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_BEGIN_SECONDS", 0.0)
    move, refused = factory.store.jobs.move, iter(["locked", "locked"])

    def busy(job_id: str, to: str, **more: object) -> object:
        if to == "running" and next(refused, None) is not None:
            raise OutputFailed("The database is locked.")
        return move(job_id, to, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(factory.store.jobs, "move", busy)
    job = factory.ended(factory.submit())
    assert (job.state, job.run) == ("succeeded", 1)
    assert next(refused, None) is None


def test_a_job_whose_end_could_not_be_written_runs_again(
    factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the database is away for a while."""
    away = threading.Event()

    def unreachable(*_: object, **__: object) -> None:
        raise OSError("the database is away")

    def before(command: str) -> None:
        if command == "score" and not away.is_set():
            for name in ("keep_artefact", "move"):
                patch.setattr(factory.store.jobs, name, unreachable)
            away.set()

    with monkeypatch.context() as patch:
        factory.child.before = before
        job = factory.submit()
        assert away.wait(120)
        until(lambda: not factory.worker._watched)
    done = factory.ended(job)
    assert (done.state, done.run, done.deaths) == ("succeeded", 2, 0)


def test_a_row_without_the_engine_is_taken_too(factory: Factory) -> None:
    """As after a crash between the row and whatever would have followed it."""
    record = replace(factory.submit(hold=True), id="0" * 8, state="queued")
    factory.store.jobs.add(record)
    assert factory.ended(record).state == "succeeded"


def test_the_jobs_of_a_worker_that_died_are_taken_over(factory: Factory) -> None:
    job = running_on(factory, GONE)
    wished = running_on(factory, GONE)
    last = running_on(factory, GONE, deaths=2)
    factory.store.jobs.move(wished.id, "cancelling", expect=["running"])
    dead_worker(factory, GONE)
    done = factory.ended(job)
    assert (done.state, done.run, done.deaths, done.worker) == ("succeeded", 2, 1, "here")
    assert factory.ended(wished).state == "cancelled"
    given_up = factory.ended(last)
    assert (given_up.state, given_up.deaths) == ("dead", 3)
    assert (given_up.error or {})["kind"] == "worker_unavailable"
    until(lambda: factory.store.workers.get(GONE) is None)
    # Whoever looks into it may try once more, from the beginning of the count.
    factory.service.retry(last.id)
    assert factory.ended(last).deaths == 0


def test_a_second_worker_of_the_same_name_does_not_start(factory: Factory) -> None:
    twin = Worker(factory.settings, factory.store, name="here", child=StandIn())  # type: ignore[arg-type]
    with pytest.raises(Conflict, match="A worker named here is running already"):
        twin.start()
    assert factory.store.workers.get("here") is not None
    assert factory.ended(factory.submit()).state == "succeeded"


# --- webhooks -----------------------------------------------------------------------------------


def test_whoever_asked_is_told_of_the_end_until_they_answer(factory: Factory) -> None:
    with listening(503, 500, 200) as (url, heard):
        job = factory.ended(factory.submit(webhook=url))
        until(lambda: len(heard) == 3)
        assert {message for message, _ in heard} == {f"msg_{job.id}_1"}
        assert b'"type":"job.succeeded"' in heard[-1][1]
        until(lambda: factory.store.jobs.artefact(job.id, "announced:1"))


@pytest.mark.parametrize("hold", [False, True])
def test_the_end_of_a_job_that_only_waited_is_told_too(factory: Factory, hold: bool) -> None:
    with listening(200) as (url, heard):
        first = factory.busy()
        job = factory.submit(webhook=url, hold=hold)
        factory.service.cancel(job.id)
        until(lambda: heard)
        assert b'"type":"job.cancelled"' in heard[0][1]
        factory.child.open.set()
        factory.ended(first)
        factory.service.retry(job.id)
        factory.ended(job)
        until(lambda: len(heard) == 2)
        assert [message for message, _ in heard] == [f"msg_{job.id}_1", f"msg_{job.id}_2"]
