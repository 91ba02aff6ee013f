"""What does a process do that runs jobs, and what happens to the jobs of one that dies?

A worker says every few seconds that it is there. It hands the jobs of its queues to the engine,
watches the ones that it runs for a wish to stop, and takes over the jobs of workers that are gone.
Its id is locked: of two processes with one id the second does not start.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Any

from filelock import FileLock, Timeout

from kinoloom.config import Settings
from kinoloom.errors import Conflict, KinoloomError, TimedOut
from kinoloom.jobs.clip_job import ClipJob
from kinoloom.jobs.dead import dead_workers, hand_back
from kinoloom.jobs.engine import WEBHOOKS, Engine, QueueLimits
from kinoloom.jobs.film_run import FilmRun
from kinoloom.jobs.job_run import Bench
from kinoloom.jobs.leftovers import sweep_work, tidy
from kinoloom.jobs.locks import device_lock, lock_file
from kinoloom.jobs.planning import machine_of
from kinoloom.jobs.queues import API, FILM, queue_of_device
from kinoloom.jobs.remote_end import end_left_orders
from kinoloom.jobs.render_process import RenderProcess
from kinoloom.jobs.webhooks import deliver
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store
from kinoloom.store.workers import WorkerQueue, WorkerRecord

BEATS = 6
"""A worker says so many times within its time to live that it is there."""
POLL_SECONDS = 0.3
"""Between two looks into the queues and at the wishes for running jobs."""
_BEGIN_SECONDS = 1.0
"""Between two tries to begin a job while the database is away."""
_HOUSEKEEPING_SECONDS = 600.0
_ANNOUNCED_SECONDS = 5.0
"""After so long a job's own worker has announced its end, if there is such a worker."""
_REAP_SECONDS = 2.0
_ORDERS_SECONDS = 30.0
"""Between two looks at orders that nobody waits for any more: each second of theirs may cost."""
# What others do takes its time; nobody notices a second or two. They say themselves when it is too
# much.
_API_LIMITS = QueueLimits(at_once=16, poll=2.0)
_WEBHOOK_LIMITS = QueueLimits(at_once=16, poll=2.0)
_WAITING = {API: _API_LIMITS, FILM: QueueLimits(at_once=8, poll=2.0)}
"""The queues of jobs that render nothing on this machine."""
_FILM_LIMIT = timedelta(days=365)

_log = logging.getLogger(__name__)


class Worker:
    """One worker of this process; `start`, then `stop`.

    With `queues` None it serves what this machine can do. `own` is a worker of a command that only
    runs what it is given by `run_now`. `on_event` sees what its jobs tell.
    """

    def __init__(
        self,
        settings: Settings,
        store: Store,
        *,
        name: str | None = None,
        queues: Sequence[str] | None = None,
        own: bool = False,
        child: RenderProcess | None = None,
        media: RenderProcess | None = None,
        on_event: Callable[[str, Mapping[str, Any]], None] = lambda _job, _event: None,
    ) -> None:
        self.id = name or socket.gethostname()
        self._settings = settings
        self._store = store
        self._machine = machine_of(settings)
        self._names = () if own else tuple(dict.fromkeys((*(queues or self._usual()), FILM)))
        self._child = child or RenderProcess(settings)
        self._media = media or RenderProcess(settings, light=True)
        if any(name not in _WAITING for name in self._names):
            self._child.start()  # its libraries load while the rest starts
        self._watched: dict[str, _Watch] = {}
        self._lost: set[tuple[str, int]] = set()
        # At first all that waits is handed over, since the engine may have lost its tables: so far
        # up to the job of this id, and None when that is done.
        self._anew: str | None = ""
        self._dispatched: tuple[int, int] | None = None
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._threads: list[threading.Thread] = []
        self._id_lock = FileLock(lock_file(settings, self.id))
        self._engine = Engine(
            settings,
            self.id,
            self._limits(),
            self._run,
            self._deliver,
            POLL_SECONDS,
        )
        self._bench = Bench(
            settings, store, self.id, self._child, self._media, device_lock, on_event, self.run_now
        )
        self._record = WorkerRecord(
            id=self.id,
            host=socket.gethostname(),
            pid=os.getpid(),
            queues=tuple(self._place(name) for name in self._names),
            machine=asdict(self._machine),
            version=metadata.version("kinoloom"),
            started_at=datetime.now(UTC),
            beat_at=datetime.now(UTC),
        )

    @property
    def queues(self) -> tuple[str, ...]:
        """The queues that it serves."""
        return self._names

    def start(self) -> None:
        """Begin to run jobs. Raises Conflict when a worker of that id is there already."""
        try:
            self._id_lock.acquire(timeout=1)  # who looks whether it is held holds it that long
        except Timeout:
            raise self._taken() from None
        for there in self._store.workers.live(self._settings.worker_ttl):
            if there.id == self.id and there.host != self._record.host:
                self._id_lock.release()
                raise self._taken()
        self._store.workers.beat(self._record)
        left = self._store.jobs.running_on(self.id)  # by an earlier process of this id
        self._engine.start()
        for job in left:
            self._hand_back(job, died=True)
        self._reap()
        self._clear_up()
        beat = self._settings.worker_ttl / BEATS
        loops = [(self._beat, beat), (self._look, POLL_SECONDS)]
        if self._names:
            loops += [
                (self._dispatch, POLL_SECONDS),
                (self._reap, min(beat, _REAP_SECONDS)),
                (self._keep_house, _HOUSEKEEPING_SECONDS),
                (self._end_orders, _ORDERS_SECONDS),
            ]
        for work, seconds in loops:
            thread = threading.Thread(
                target=self._repeat, args=(work, seconds), name=f"kinoloom{work.__name__}"
            )
            thread.daemon = True
            thread.start()
            self._threads.append(thread)

    def run_now(self, job: JobRecord) -> None:
        """Run a job here, past all queues; it must wait in a queue that nobody serves."""
        self._engine.run_now(job.id, job.run)

    def stop(self) -> None:
        """Take no more jobs and go; what still runs waits again, for whoever comes next."""
        self._ending.set()
        # What cannot be written now is done by whoever comes next: the lock of the id is free.
        with suppress(KinoloomError):
            for job in self._store.jobs.running_on(self.id):
                self._hand_back(job, died=False)
        with self._lock:
            for watch in self._watched.values():
                watch.give_up()
        self._child.close()
        self._media.close()
        with suppress(Exception):  # the engine has its own errors
            self._let_go(self.id)
        self._engine.stop()
        for thread in self._threads:
            thread.join(timeout=5)
        with suppress(KinoloomError):
            self._store.workers.remove(self.id)
        self._id_lock.release()

    # --- jobs -------------------------------------------------------------------------------

    def _run(self, job_id: str, run: int) -> None:
        """One run of a job, called by the engine in a thread."""
        job = self._begun(job_id, run)
        if job is None:
            return
        watch = _Watch(job.run, self._limit(job, datetime.now(UTC)))
        with self._lock:
            self._watched[job_id] = watch
        try:
            self._carry_out(job, watch)
            self._end_wish(job)
            self._announce(job_id)
        except KinoloomError as error:
            # How the job ended could not be written: the database is away, or its disk is full.
            _log.error("The end of job %s could not be written: %s", job_id, error.message)
            self._bench.on_event(job_id, {"type": "lost", "error": error.as_dict()})
        finally:
            with self._lock:
                if self._watched.get(job_id) is watch:  # not of a run that has begun meanwhile
                    del self._watched[job_id]

    def _begun(self, job_id: str, run: int) -> JobRecord | None:
        """The job that this worker has now, however long the database is away.

        None where that run of it is nobody's any more.
        """
        while True:
            try:
                return self._begin(job_id, run)
            except KinoloomError as error:  # the engine asks only once
                _log.warning("The start of job %s is tried again: %s", job_id, error.message)
                if self._ending.wait(_BEGIN_SECONDS):
                    raise

    def _begin(self, job_id: str, run: int) -> JobRecord | None:
        known = self._store.jobs.get(job_id)
        if known is None or known.run != run:
            return None
        if self._ending.is_set():  # the engine took it just now
            self._store.jobs.move(job_id, "queued", expect=["queued"], run=run, run_to=run + 1)
            return None
        job = self._store.jobs.move(
            job_id,
            "running",
            expect=["queued"],
            run=run,
            worker_to=self.id,
            started_at=known.started_at or datetime.now(UTC),
            detail={"worker": self.id},
        )
        if job is None:  # cancelled, held or begun anew meanwhile, or a worker died at its end
            self._announce(job_id)
        return job

    def _carry_out(self, job: JobRecord, watch: _Watch) -> None:
        try:
            (FilmRun if job.kind == FILM else ClipJob)(job, self._bench, watch).carry_out()
        except KinoloomError:
            raise
        except Exception as error:
            # A mistake of ours: the job must not hang, and the log holds what is needed.
            _log.exception("The job %s failed for an unknown reason.", job.id)
            failed = KinoloomError(
                "The job failed for an unknown reason.",
                cause=f"{type(error).__name__}",
                hints=["Please report it with what the log of the worker says."],
            )
            self._fail(job, failed)

    def _limit(self, job: JobRecord, now: datetime) -> datetime:
        # A film waits for its clips, each of which has that time.
        longest = now + (
            _FILM_LIMIT if job.kind == FILM else timedelta(seconds=self._settings.job_timeout)
        )
        return longest if job.deadline_at is None else min(longest, job.deadline_at)

    def _end_wish(self, job: JobRecord) -> None:
        """A job that was to be cancelled is so when its run has ended."""
        self._store.jobs.move(
            job.id, "cancelled", expect=["cancelling"], run=job.run, worker=self.id
        )

    def _fail(self, job: JobRecord, error: KinoloomError) -> None:
        told = error.as_dict()
        self._store.jobs.move(
            job.id,
            "failed",
            expect=("queued", "running"),
            run=job.run,
            error=told,
            detail={"error": told},
        )

    def _announce(self, job_id: str) -> None:
        job = self._store.jobs.get(job_id)
        if job is not None and job.webhook is not None and job.finished_at is not None:
            self._engine.announce(job.id, job.run)
            self._store.jobs.announced(job.id, job.run)

    def _deliver(self, job_id: str) -> None:
        """Call a finished job's webhook; called by the engine, which tries again."""
        job = self._store.jobs.get(job_id)
        if job is not None and job.webhook is not None:
            deliver(job.webhook, job, self._settings)

    # --- loops ------------------------------------------------------------------------------

    def _repeat(self, work: Callable[[], None], seconds: float) -> None:
        while not self._ending.wait(seconds):
            try:
                work()
            except KinoloomError as error:
                # The database may be away for a while; the worker goes on when it is back.
                _log.warning("A worker's %s is tried again: %s", work.__name__, error.message)
            except Exception:
                _log.exception("A worker's %s failed; it is tried again.", work.__name__)

    def _beat(self) -> None:
        self._store.workers.beat(self._record)
        if self._names:
            self._find_lost()
            self._announce_others()

    def _find_lost(self) -> None:
        """Let jobs wait again whose end could not be written, for the database was away."""
        with self._lock:
            watched = set(self._watched)
        mine = [job for job in self._store.jobs.running_on(self.id) if job.id not in watched]
        for job in mine:
            if (job.id, job.run) in self._lost:  # since the last beat: it neither begins nor ends
                self._hand_back(job, died=False)
        self._lost = {(job.id, job.run) for job in mine}

    def _announce_others(self) -> None:
        """Announce what ended without a worker: cancelled while it waited, or by one that died."""
        until = datetime.now(UTC) - timedelta(seconds=_ANNOUNCED_SECONDS)
        for job in self._store.jobs.unannounced(until - timedelta(days=1), until):
            self._announce(job.id)

    def _look(self) -> None:
        """Tell the running jobs what is wished for them."""
        with self._lock:
            watched = dict(self._watched)
        if not watched:
            return
        states = self._store.jobs.states(list(watched))
        for job_id, watch in watched.items():
            watch.seen(*states.get(job_id, ("cancelled", 0)))

    def _dispatch(self) -> None:
        """Hand what waits in this worker's queues to the engine."""
        changed = self._store.changed()
        if changed is not None and changed == self._dispatched:
            return
        now = datetime.now(UTC)
        anew = self._anew is not None
        waiting = self._store.jobs.waiting(self._names, handed=anew, after=self._anew or "")
        for job in waiting:
            if job.deadline_at is not None and job.deadline_at < now:
                late = TimedOut("The job's deadline passed while it waited.")
                self._fail(job, late)
                self._announce(job.id)
                continue
            self._engine.enqueue(job.id, job.run, job.queue, job.priority)
            self._store.jobs.handed(job.id, job.run)
        if anew:
            self._anew = waiting[-1].id if waiting else None
        else:
            self._dispatched = changed  # what came meanwhile has changed it again

    def _keep_house(self) -> None:
        """Forget what is old."""
        before = datetime.now(UTC) - timedelta(days=self._settings.history_days)
        self._store.jobs.prune(before)
        self._engine.forget(timedelta(days=1))
        self._store.assets.collect()

    def _end_orders(self) -> None:
        """End what services still make for jobs that are over."""
        end_left_orders(self._store, self._settings)

    # --- the dead ---------------------------------------------------------------------------

    def _reap(self) -> None:
        for worker in dead_workers(self._store, self._settings):
            if worker.id != self.id:
                self._take_over(worker.id)
                self._store.workers.remove(worker.id)

    def _take_over(self, worker_id: str) -> None:
        for job in self._store.jobs.running_on(worker_id):
            self._hand_back(job, died=True)
        self._let_go(worker_id)
        self._engine.resume_webhooks(worker_id)
        self._clear_up()

    def _let_go(self, worker_id: str) -> None:
        """Give away what a worker took from a queue and had not begun, or had just ended."""
        for job_id, run in self._engine.taken_by(worker_id):
            self._store.jobs.move(job_id, "queued", expect=["queued"], run=run, run_to=run + 1)
            self._engine.abandon(job_id, run)

    def _clear_up(self) -> None:
        """Remove what workers left that were killed."""
        for job_id in self._store.jobs.untidy():
            tidy(self._store, job_id)
        sweep_work(self._store)

    def _hand_back(self, job: JobRecord, *, died: bool) -> None:
        if hand_back(self._store, job, died=died):
            self._engine.abandon(job.id, job.run)
        self._announce(job.id)

    def _limits(self) -> dict[str, QueueLimits]:
        if not self._names:
            return {}
        limits = {name: _WAITING.get(name, QueueLimits()) for name in self._names}
        return limits | {WEBHOOKS: _WEBHOOK_LIMITS}

    # --- this machine -----------------------------------------------------------------------

    def _usual(self) -> tuple[str, ...]:
        return queue_of_device(self._machine.device), API

    def _place(self, queue: str) -> WorkerQueue:
        if queue in _WAITING:
            return WorkerQueue(queue)
        return WorkerQueue(queue, self._machine.device, self._machine.free)

    def _taken(self) -> Conflict:
        return Conflict(
            f"A worker named {self.id} is running already.",
            hints=["Give this one another name: kinoloom worker --name NAME"],
        )


class _Watch:
    """Whether one running job must stop; see `job_run.Watch`."""

    def __init__(self, run: int, limit: datetime) -> None:
        self._run = run
        self._limit = limit
        self._over = False

    def seen(self, state: str, run: int) -> None:
        """What the job's row says now."""
        if state != "running" or run != self._run:
            self._over = True

    def give_up(self) -> None:
        """The worker goes, and the job is somebody else's."""
        self._over = True

    def over(self) -> bool:
        """Whether to stop."""
        return self._over or self.timed_out()

    def timed_out(self) -> bool:
        """Whether to stop for the time alone."""
        return not self._over and self.seconds_left() <= 0

    def seconds_left(self) -> float:
        """Until the deadline."""
        return (self._limit - datetime.now(UTC)).total_seconds()
