"""How does a command render a film so that killing it loses nothing?

As with clips (`kinoloom.jobs.here`): a worker that is running on the same data gets the film's job
and the command follows it; else the command is a worker of its own. Run again after a kill, the
same command finds the film's job and goes on with it.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from queue import Empty
from typing import Any, Protocol

from kinoloom.config import Settings
from kinoloom.errors import Cancelled, Conflict
from kinoloom.jobs.clip import Made
from kinoloom.jobs.dead import hand_back, live_workers
from kinoloom.jobs.film_service import FilmService
from kinoloom.jobs.film_status import FilmStatus
from kinoloom.jobs.here import Here, Watcher
from kinoloom.jobs.messages import error_from
from kinoloom.jobs.progress import Event
from kinoloom.jobs.queues import OWN
from kinoloom.store.job_record import FINISHED, JobRecord

_WAIT_SECONDS = 0.1
_LOOK_SECONDS = 0.5
"""Between two looks at how far a film is, each of which reads all of its shots."""


class FilmWatcher(Protocol):
    """Whom it is told how a film goes."""

    def note(self, text: str) -> None:
        """Something to know."""
        ...

    def film(self, status: FilmStatus) -> None:
        """How far the film is."""
        ...


class FilmHere(Here):
    """Renders films, one after the other. Close it at the end."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings, renders=False)
        self.films = FilmService(settings, self._store, self._service)
        self._telling: _Telling

    def render(self, film_id: str, view: FilmWatcher, *, unknown_price: bool = False) -> FilmStatus:
        """Make what is missing of a film, and join it; what is finished stays as it is.

        Raises KinoloomError, Conflict when another command is at it, and passes KeyboardInterrupt
        and what `view` raises through once the job is cancelled.
        """
        here = self._child is not None or not self._others()
        left = self.interrupted(film_id)
        queue = self._own_worker().id if here else None
        job = self.films.render(film_id, origin="cli", queue=queue, unknown_price=unknown_price)
        if left is not None and job.id == left.id:
            why = "was interrupted" if left.error is None else "waited for you"
            view.note(f"going on with job {job.id}, which {why}")
        self._telling = _Telling(film_id, view, self.films)
        if here:
            job = self._taken(job)
            self._own_worker().run_now(job)
        else:
            if job.queue.startswith(OWN):  # no worker serves that queue
                job = self._released(job)
            view.note(f"job {job.id}: the worker that is running makes it")
        self._follow(job, self._telling, own=here)
        return self.films.status(film_id)

    def interrupted(self, film_id: str) -> JobRecord | None:
        """The film's unfinished job, taken from its process if that is gone; None without one.

        Raises NotFound, and Conflict when another command is rendering the film.
        """
        found = self.films.get(film_id).job_id
        job = self._store.jobs.get(found) if found is not None else None
        if job is None or job.state in FINISHED:
            return None
        there = {worker.id for worker in live_workers(self._store, self._settings)}
        if job.queue in there:
            raise Conflict(
                "The film is being rendered by another command.",
                cause=f"It is job {job.id}.",
                hints=[f"Wait for it, or stop it: kinoloom jobs cancel {job.id}"],
            )
        if job.state in ("running", "cancelling"):
            if job.worker in there:
                return None
            hand_back(self._store, job, died=True)
            job = self._service.get(job.id)
        return None if job.state in FINISHED else job

    def give_up(self, film_id: str, view: FilmWatcher) -> bool:
        """Cancel the film's job whose process is gone; whether there was one.

        What it had finished stays. Raises Conflict while a service still makes a clip of it, which
        is paid, and when another command is rendering the film.
        """
        job = self.interrupted(film_id)
        if job is None:
            return False
        for child in self._store.films.jobs_of(job.id):
            if any(call.open for call in self._service.calls(child.id)):
                raise Conflict(
                    "A service still makes a clip of the film as it was before.",
                    cause=f"The film's job {job.id} was interrupted; its order stands.",
                    hints=[
                        "Put the storyboard back and render it: what is ordered is fetched.",
                        f"Or give it up, though it may be charged: kinoloom jobs cancel {job.id}",
                    ],
                )
        self._service.cancel(job.id)
        view.note(f"job {job.id} was interrupted and is over: the storyboard has changed since")
        return True

    def _released(self, job: JobRecord) -> JobRecord:
        if job.state == "queued":  # for a process that is gone
            job = self._service.hold(job.id)
        return self._service.release(job.id)

    def _taken(self, job: JobRecord) -> JobRecord:
        """The job in this process's queue, whoever was to run it before."""
        queue = self._own_worker().id
        if job.queue == queue:
            return job
        moved = self._store.jobs.move(
            job.id,
            "queued",
            expect=("held", "queued"),
            run=job.run,
            run_to=job.run + 1,
            worker_to=None,
            queue=queue,
            error=None,
        )
        if moved is None:
            raise Conflict(
                f"The film's job {job.id} cannot be taken over.",
                cause=f"It is {self._service.get(job.id).state}.",
                hints=["Run the same command again in a moment."],
            )
        return moved

    def _tell_own(self, job: JobRecord, seen: int, view: Watcher) -> int:
        """Wait a moment for what this process's worker says of any job, then look at the film."""
        until = time.monotonic() + _WAIT_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                _pass_on(self._messages.get(timeout=left), view)
            except Empty:
                break
        self._telling.look(over=self._service.get(job.id).state in FINISHED)
        return seen

    def _tell_others(self, job: JobRecord, seen: int, view: Watcher) -> int:
        """Pass on the events after the one of a number, then look at the film."""
        time.sleep(_WAIT_SECONDS)
        for event in self._store.events.after(seen, job_id=job.id):
            seen = event.number
            _pass_on({"type": event.type, **event.data}, view)
        self._telling.look(over=self._service.get(job.id).state in FINISHED)
        return seen

    def _made(self, job: JobRecord) -> Made:
        if job.state == "cancelled":
            raise Cancelled(f"The job {job.id} was cancelled.")
        record = None if job.clip_id is None else self._store.clips.get(job.clip_id)
        if job.state != "succeeded" or record is None:
            raise error_from(job.error or {})
        return Made(record, reused=job.reused)


class _Telling:
    """Tells a film's watcher how far the film is, where the worker tells of steps and pictures."""

    def __init__(self, film_id: str, view: FilmWatcher, films: FilmService) -> None:
        self._film_id = film_id
        self._view = view
        self._films = films
        self._looked = float("-inf")

    def look(self, *, over: bool) -> None:
        """Read how far the film is, but for the end not too often."""
        if over or time.monotonic() - self._looked >= _LOOK_SECONDS:
            self._looked = time.monotonic()
            self._view.film(self._films.status(self._film_id))

    def note(self, text: str) -> None:
        """Something to know."""
        self._view.note(text)

    def progress(self, event: Event) -> None:
        """Nothing: those are the steps of one clip of the film."""

    def preview(self, jpeg: str) -> None:
        """Nothing: that is of one clip of the film."""


def _pass_on(message: Mapping[str, Any], view: Watcher) -> None:
    if message.get("type") == "log":
        view.note(str(message.get("message", "")))
