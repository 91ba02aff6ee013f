"""A command and its engine in one process, with a stand-in for the child that renders."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from kinoloom.config import Settings
from kinoloom.errors import Cancelled, InsufficientMemory, WorkerUnavailable
from kinoloom.jobs import here as module
from kinoloom.jobs import job_run
from kinoloom.jobs.here import Here
from kinoloom.jobs.locks import is_locked, lock_file
from kinoloom.jobs.progress import Event
from kinoloom.jobs.service import JobService, request_key
from kinoloom.jobs.worker import Worker
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest
from kinoloom.store.held import held_store
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store
from kinoloom.store.workers import WorkerQueue, WorkerRecord
from stand_in import StandIn, facts, until

NOW = datetime.now(UTC)


class View:
    """Remembers what it is told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.pictures: list[str] = []
        self.on_progress: Callable[[], None] = lambda: None

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, event: Event) -> None:
        self.steps.append(event.step)
        self.on_progress()

    def preview(self, jpeg: str) -> None:
        self.pictures.append(jpeg)


@pytest.fixture
def settings(tmp_path: Path, tiny_cards: Path) -> Settings:
    return Settings(
        home=tmp_path / "home",
        models=tiny_cards,
        default_model="tiny",
        device="cpu",
        outputs=tmp_path / "out",
    )


@pytest.fixture
def store(settings: Settings) -> Store:
    return held_store(settings)


@pytest.fixture
def service(settings: Settings, store: Store) -> Iterator[JobService]:
    opened = JobService(settings, store)
    yield opened
    opened.close()


@pytest.fixture
def child(monkeypatch: pytest.MonkeyPatch) -> StandIn:
    made = StandIn()
    monkeypatch.setattr(module, "RenderProcess", lambda _settings: made)
    monkeypatch.setattr(job_run, "_PAUSE", 0.0)
    return made


@pytest.fixture
def view() -> View:
    return View()


REQUEST = VideoRequest.checked(prompt="a red ball", seed=7)


def make(settings: Settings, view: View, request: VideoRequest = REQUEST) -> Any:
    plans: list[Plan] = []
    with Here(settings) as here:
        made = here.make(request, on_plan=plans.append, view=view)
    assert [plan.prompt for plan in plans] == ["a red ball"]
    return made


def test_a_clip_is_made_and_found_again(
    settings: Settings, store: Store, child: StandIn, view: View, tmp_path: Path
) -> None:
    made = make(settings, view)
    assert not made.reused
    assert made.record.path == tmp_path / "out" / "a-red-ball-7.mp4"
    assert view.steps[:3] == [1, 2, 3]
    assert len(view.pictures) == 3
    (job,) = store.jobs.list()
    assert (job.state, job.origin, job.clip_id) == ("succeeded", "cli", made.record.id)
    # Nothing of the command's own worker is left.
    assert store.workers.live() == []
    assert not is_locked(lock_file(settings, job.queue))
    assert make(settings, View()).reused
    assert len(store.jobs.list()) == 1
    assert child.calls.count("render") == 1


def test_an_error_is_told_as_it_was(settings: Settings, child: StandIn, view: View) -> None:
    child.dies("render", InsufficientMemory("Too large.", cause="80 GB", hints=["Smaller."]))
    with pytest.raises(InsufficientMemory, match="Too large") as caught:
        make(settings, view)
    assert (caught.value.cause, list(caught.value.hints)) == ("80 GB", ["Smaller."])


def test_whatever_stops_the_command_cancels_its_job(
    settings: Settings, store: Store, child: StandIn, view: View
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    view.on_progress = interrupt
    child.open.clear()
    with pytest.raises(KeyboardInterrupt):
        make(settings, view)
    (job,) = store.jobs.list()
    assert (job.state, job.clip_id) == ("cancelled", None)
    assert not settings.outputs.exists() or list(settings.outputs.iterdir()) == []


def test_a_job_that_somebody_else_cancels_ends_the_command(
    settings: Settings, store: Store, service: JobService, child: StandIn, view: View
) -> None:
    def cancel() -> None:
        view.on_progress = lambda: None
        service.cancel(store.jobs.list()[0].id)

    view.on_progress = cancel
    child.open.clear()
    with pytest.raises(Cancelled):
        make(settings, view)


# --- after a kill -------------------------------------------------------------------------------


def left_behind(
    settings: Settings, store: Store, service: JobService, state: Any = "running"
) -> JobRecord:
    """The job of a command that was killed."""
    job = service.submit(
        REQUEST,
        origin="cli",
        queue="cli-killed",
        request_key=request_key(REQUEST, settings.outputs),
        outputs=settings.outputs,
    )
    if state == "queued":
        return job
    frames = settings.home / "frames"
    frames.write_text("frames of the killed one")
    moved = store.jobs.move(job.id, "running", expect=["queued"], worker_to="cli-killed")
    assert moved is not None
    digest = store.assets.put_file(frames, "frames").digest
    store.jobs.keep_artefact(
        job.id, "render:0", run=1, digest=digest, data={"rendered": facts(), "audio": None}
    )
    if state != "running":
        moved = store.jobs.move(job.id, state, expect=["running"])
    assert moved is not None
    return moved


@pytest.mark.parametrize("state", ["running", "held"])
def test_the_same_command_goes_on_where_it_was_killed(
    settings: Settings, store: Store, service: JobService, child: StandIn, view: View, state: str
) -> None:
    job = left_behind(settings, store, service, state)
    made = make(settings, view)
    assert made.record.id == job.id
    assert "frames of the killed one" in made.record.path.read_text()
    assert view.notes == [f"going on with job {job.id}, which was interrupted"]
    assert child.calls == ["score", "poster", "encode"]
    assert len(store.jobs.list()) == 1


def test_another_command_does_not(
    settings: Settings, store: Store, service: JobService, child: StandIn, view: View
) -> None:
    job = left_behind(settings, store, service)
    other = REQUEST.model_copy(update={"seed": 8})
    assert make(settings, view, other).record.id != job.id
    assert view.notes == []


def test_what_was_being_cancelled_is_not_gone_on_with(
    settings: Settings, store: Store, service: JobService, child: StandIn, view: View
) -> None:
    job = left_behind(settings, store, service, "cancelling")
    assert make(settings, view).record.id != job.id
    assert service.get(job.id).state == "cancelled"


def test_the_job_of_a_command_that_still_runs_is_left_to_it(
    settings: Settings, store: Store, service: JobService, child: StandIn, view: View
) -> None:
    import socket

    job = left_behind(settings, store, service)
    host = socket.gethostname()
    store.workers.beat(
        WorkerRecord(
            id="cli-killed", host=host, pid=1, queues=(), machine={}, version="1", started_at=NOW
        )
    )
    with FileLock(lock_file(settings, "cli-killed")):
        assert make(settings, view).record.id != job.id
    assert service.get(job.id) == job


# --- beside a worker ----------------------------------------------------------------------------


@pytest.fixture
def worker(settings: Settings, store: Store, monkeypatch: pytest.MonkeyPatch) -> Iterator[StandIn]:
    """The child of a worker that is running on the same data."""

    def refused(_settings: Settings) -> None:
        raise AssertionError("the command renders itself")

    monkeypatch.setattr(module, "RenderProcess", refused)
    child = StandIn()
    there = Worker(settings, store, name="there", child=child)  # type: ignore[arg-type]
    there.start()
    yield child
    there.stop()


def test_a_worker_that_runs_gets_the_job(
    settings: Settings, store: Store, worker: StandIn, view: View
) -> None:
    made = make(settings, view)
    (job,) = store.jobs.list()
    assert (job.worker, job.queue, job.origin) == ("there", "cpu", "cli")
    assert made.record.path == settings.outputs / "a-red-ball-7.mp4"
    assert made.record.path.read_text().startswith("mp4 ")
    assert view.notes == [f"job {job.id}: the worker that is running makes it"]
    assert view.steps


@pytest.mark.parametrize("state", ["queued", "running", "held"])
def test_it_also_gets_what_was_interrupted(
    settings: Settings, store: Store, service: JobService, worker: StandIn, view: View, state: str
) -> None:
    job = left_behind(settings, store, service, state)
    made = make(settings, view)
    assert made.record.id == job.id
    assert service.get(job.id).worker == "there"
    assert worker.calls.count("render") == (1 if state == "queued" else 0)


def test_an_interrupted_command_cancels_the_job_it_gave_away(
    settings: Settings, store: Store, worker: StandIn, view: View
) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    view.on_progress = interrupt
    worker.open.clear()
    with pytest.raises(KeyboardInterrupt):
        make(settings, view)
    (job,) = store.jobs.list()
    assert job.state == "cancelled"
    until(lambda: not store.jobs.running_on("there"))
    worker.open.set()
    assert make(settings, View()).record.id != job.id


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_command_whose_worker_is_gone_does_not_wait_forever(
    settings: Settings,
    store: Store,
    service: JobService,
    view: View,
    monkeypatch: pytest.MonkeyPatch,
    state: Any,
) -> None:
    monkeypatch.setattr(module, "_GONE_SECONDS", 0.2)
    now = datetime.now(UTC)
    queues = (WorkerQueue("cpu", "cpu", None),)
    machine = {"device": "cpu", "free": None, "ram": None, "dtype_bytes": 4}
    there = WorkerRecord(
        id="far", host="far", pid=1, queues=queues, machine=machine, version="1", started_at=now
    )
    store.workers.beat(there)

    class Dying(View):
        def note(self, text: str) -> None:
            super().note(text)
            (job,) = store.jobs.list()
            if state == "running":
                store.jobs.move(job.id, "running", expect=["queued"], worker_to="far")
            store.workers.remove("far")

    with pytest.raises(WorkerUnavailable, match="is gone"):
        make(settings, Dying())
    (job,) = store.jobs.list()
    assert job.state == "held"
