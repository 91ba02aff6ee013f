"""How does a command make a clip so that killing it loses nothing?

Where a worker is running on the same data, it gets the job and the command follows it. Otherwise
the command is a worker of its own for its own jobs alone. Run again after a kill, the same command
finds its job and goes on with it.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from queue import Empty, SimpleQueue
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from kinoloom.config import Settings
from kinoloom.errors import Cancelled, KinoloomError, WorkerUnavailable
from kinoloom.jobs.clip import Made
from kinoloom.jobs.dead import hand_back, live_workers
from kinoloom.jobs.leftovers import tidy
from kinoloom.jobs.messages import error_from
from kinoloom.jobs.planning import plan_request
from kinoloom.jobs.progress import Event
from kinoloom.jobs.queues import OWN
from kinoloom.jobs.render_process import RenderProcess
from kinoloom.jobs.reuse import find_again
from kinoloom.jobs.service import JobService, request_key
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest
from kinoloom.store.held import held_store
from kinoloom.store.job_record import ACTIVE, FINISHED, JobRecord
from kinoloom.store.statistics import REUSED

if TYPE_CHECKING:
    from kinoloom.jobs.worker import Worker

_POLL_SECONDS = 0.05
_CANCEL_SECONDS = 15.0
_GONE_SECONDS = 60.0
"""A server starts its worker again when that dies; after so long nobody will."""


class Watcher(Protocol):
    """Whom it is told how a job goes."""

    def note(self, text: str) -> None:
        """Something to know."""
        ...

    def progress(self, event: Event) -> None:
        """One report of the job."""
        ...

    def preview(self, jpeg: str) -> None:
        """A rough picture of the clip as it is by now, a JPEG in base64."""
        ...


class Here:
    """Makes clips one after the other; the model stays loaded between them. Close it at the end."""

    def __init__(self, settings: Settings, *, renders: bool = True) -> None:
        """With `renders` a process that renders is started at once, not when it is needed."""
        self._settings = settings
        self._store = held_store(settings)
        self._service = JobService(settings, self._store)
        self._child: RenderProcess | None = None
        self._worker: Worker | None = None
        self._messages: SimpleQueue[Mapping[str, Any]] = SimpleQueue()
        if not self._others():
            self._child = RenderProcess(settings)
            if renders:
                self._child.start()  # its libraries load while the plan is made

    def make(
        self,
        request: VideoRequest,
        *,
        on_plan: Callable[[Plan], None],
        view: Watcher,
        plan: Plan | None = None,
    ) -> Made:
        """The clip of a request: found again, gone on with, or made.

        `on_plan` sees the plan before anything is spent, `view` how the job goes; `plan` is the
        request's, where it is made already. Raises KinoloomError, that of a job which was held
        because an order of it is uncertain too; KeyboardInterrupt and what `on_plan` and `view`
        raise pass through once the job is cancelled.
        """
        if request.output is not None:  # a worker has another current folder
            request = request.model_copy(update={"output": request.output.absolute()})
        key = request_key(request, self._settings.outputs)
        job = self._interrupted(key)
        if job is not None:
            plan = Plan.model_validate(job.plan)
            on_plan(plan)
            view.note(f"going on with job {job.id}, which was interrupted")
        else:
            plan = plan or plan_request(request, self._settings, self._store)
            on_plan(plan)
            if (found := find_again(plan, self._store)) is not None:
                self._store.statistics.add(REUSED)
                return Made(found, reused=True)
        return self._run(request, plan, job, key, view)

    def close(self) -> None:
        """End what was started."""
        self._service.close()
        if self._worker is not None:
            self._worker.stop()
        elif self._child is not None:
            self._child.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _run(
        self,
        request: VideoRequest,
        plan: Plan,
        job: JobRecord | None,
        key: str,
        view: Watcher,
    ) -> Made:
        if self._child is None and self._others():
            if job is not None:
                if job.state == "queued":  # for a process that is gone
                    job = self._service.hold(job.id)
                job = self._service.release(job.id)
            else:
                job = self._submit(request, plan, key, None)
            view.note(f"job {job.id}: the worker that is running makes it")
            return self._follow(job, view, own=False)
        worker = self._own_worker()
        queue = worker.id
        if job is None:
            job = self._submit(request, plan, key, queue)
        else:
            job = self._store.jobs.move(
                job.id,
                "queued",
                expect=("held", "queued"),
                run=job.run,
                run_to=job.run + 1,
                worker_to=None,
                queue=queue,
                error=None,
            ) or self._submit(request, plan, key, queue)
        worker.run_now(job)
        return self._follow(job, view, own=True)

    def _submit(self, request: VideoRequest, plan: Plan, key: str, queue: str | None) -> JobRecord:
        return self._service.submit(
            request,
            origin="cli",
            plan=plan,
            queue=queue,
            request_key=key,
            outputs=self._settings.outputs.absolute(),
        )

    def _follow(self, job: JobRecord, view: Watcher, *, own: bool) -> Made:
        """Wait for the end of a job and pass on what is told of it.

        Whatever stops the waiting, a key or an error of `view`, cancels the job.
        """
        tell = self._tell_own if own else self._tell_others
        try:
            seen, there = 0, time.monotonic()
            while True:
                seen = tell(job, seen, view)
                now = self._service.get(job.id)
                if now.state == "held" and now.error is not None:
                    raise _Ended(error_from(now.error))
                if now.state in FINISHED:
                    tell(job, seen, view)
                    break
                if own or now.state == "held" or self._others():
                    there = time.monotonic()
                elif time.monotonic() - there > _GONE_SECONDS:
                    self._service.hold(job.id)
                    gone = WorkerUnavailable(
                        "The worker that had the job is gone.",
                        hints=["Run the same command again: it goes on where it stopped."],
                    )
                    raise _Ended(gone)
        except _Ended as ended:
            raise ended.error from None
        except BaseException:
            self._cancel(job)
            raise
        return self._made(now)

    def _tell_own(self, job: JobRecord, seen: int, view: Watcher) -> int:
        """Pass on what this process's worker says, waiting a moment for it."""
        try:
            while True:
                _tell(self._messages.get(timeout=_POLL_SECONDS), view)
        except Empty:
            return seen

    def _tell_others(self, job: JobRecord, seen: int, view: Watcher) -> int:
        """Pass on the events after the one of a number, waiting a moment; the newest number."""
        time.sleep(_POLL_SECONDS)
        for event in self._store.events.after(seen, job_id=job.id):
            seen = event.number
            _tell({"type": event.type, **event.data}, view)
        return seen

    def _cancel(self, job: JobRecord) -> None:
        """Stop the job, wait for its end and let go of what it had finished."""
        try:
            self._service.cancel(job.id)
        except KinoloomError:  # it has just ended
            return
        until = time.monotonic() + _CANCEL_SECONDS
        while self._service.get(job.id).state not in FINISHED and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
        if self._service.get(job.id).state == "cancelled":
            tidy(self._store, job.id)

    def _made(self, job: JobRecord) -> Made:
        if job.state == "cancelled":
            raise Cancelled(f"The job {job.id} was cancelled.")
        if job.state != "succeeded" or job.clip_id is None:
            raise error_from(job.error or {})
        record = self._store.clips.get(job.clip_id)
        assert record is not None  # written together with the job's end
        if job.reused:  # its file lies where that job wrote it, and maybe not where this one wants
            record = find_again(Plan.model_validate(job.plan), self._store) or record
        return Made(record, reused=job.reused)

    def _interrupted(self, key: str) -> JobRecord | None:
        """The job of the same command whose process is gone, if there is one."""
        candidates = self._store.jobs.list(origin="cli", states=ACTIVE, request_key=key, limit=10)
        if not candidates:
            return None
        known = {worker.id for worker in live_workers(self._store, self._settings)}
        for job in candidates:
            if not job.queue.startswith(OWN) or job.queue in known:
                continue
            if job.state in ("running", "cancelling"):
                hand_back(self._store, job, died=True)
            now = self._service.get(job.id)
            if now.state in ("held", "queued"):
                return now
        return None

    def _own_worker(self) -> Worker:
        from kinoloom.jobs.worker import Worker

        if self._worker is None:
            self._worker = Worker(
                self._settings,
                self._store,
                name=f"{OWN}{uuid.uuid4()}",
                own=True,
                child=self._child,
                on_event=lambda _job, message: self._messages.put(message),
            )
            self._worker.start()
        return self._worker

    def _others(self) -> bool:
        """Whether a worker is there that takes jobs of others."""
        return any(worker.queues for worker in live_workers(self._store, self._settings))


class _Ended(Exception):
    """Nobody waits for the job any more, and it is not cancelled."""

    def __init__(self, error: KinoloomError) -> None:
        super().__init__(error)
        self.error = error


def _tell(message: Mapping[str, Any], view: Watcher) -> None:
    """Show what is told of a job. Raises _Ended for one whose end could not be written."""
    if message.get("type") == "lost":
        raise _Ended(error_from(message["error"]))
    if message.get("type") == "progress":
        known = {n: message[n] for n in Event.__dataclass_fields__ if n in message}
        view.progress(Event(**known))
    elif message.get("type") == "preview" and "jpeg" in message:
        view.preview(str(message["jpeg"]))
    elif message.get("type") == "log":
        view.note(str(message.get("message", "")))
