"""Which workers are gone, and what becomes of the jobs that they had?"""

from __future__ import annotations

import socket

from kinoloom.config import Settings
from kinoloom.errors import WorkerUnavailable
from kinoloom.jobs.locks import is_locked, lock_file
from kinoloom.jobs.queues import FILM, OWN
from kinoloom.store.job_record import JobChanges, JobRecord, JobState
from kinoloom.store.store import Store
from kinoloom.store.workers import WorkerRecord

MAX_DEATHS = 3
"""A job that this many workers died with is not given to another one."""


def live_workers(store: Store, settings: Settings) -> list[WorkerRecord]:
    """The workers that are there: of this machine by their locks, of others by their last sign."""
    return [w for w in store.workers.live(settings.worker_ttl) if not _lock_is_free(w, settings)]


def dead_workers(store: Store, settings: Settings) -> list[WorkerRecord]:
    """The workers that are gone: those of this machine at once, others after their time to live."""
    ttl = settings.worker_ttl
    gone = [worker for worker in store.workers.live(ttl) if _lock_is_free(worker, settings)]
    return gone + store.workers.stale(ttl)


def hand_back(store: Store, job: JobRecord, *, died: bool) -> bool:
    """Let a job that a worker had wait again, or give it up; whether its run was ended so.

    A command's own job waits for the command to be run again, or to be released. One of which a
    service has an order is not given up: the user may release it, and pays nothing twice.
    """
    if job.state == "cancelling":
        return bool(store.jobs.move(job.id, "cancelled", expect=["cancelling"], run=job.run))
    # A film computes nothing that a worker could die of.
    deaths = job.deaths + (died and job.kind != FILM)
    if deaths >= MAX_DEATHS:
        error = WorkerUnavailable(
            f"The job was given up: {deaths} workers died while they ran it.",
            cause="It may need more memory than there is, or make a driver crash.",
            hints=[f"Make it smaller, then run it again: kinoloom jobs retry {job.id}"],
        ).as_dict()
        calls = store.remote_calls.of_job(job.id)
        ordered = any(call.state in ("sent", "accepted", "uncertain") for call in calls)
        changes: JobChanges = {"error": error, "deaths": deaths}
        if ordered:
            changes |= {"run_to": job.run + 1, "worker_to": None}
        given_up = store.jobs.move(
            job.id,
            "held" if ordered else "dead",
            expect=["running"],
            run=job.run,
            detail={"error": error},
            **changes,
        )
        return given_up is not None
    to: JobState = "held" if job.queue.startswith(OWN) else "queued"
    moved = store.jobs.move(
        job.id,
        to,
        expect=["running"],
        run=job.run,
        run_to=job.run + 1,
        worker_to=None,
        deaths=deaths,
        detail={"reason": "its worker died" if died else "its worker stopped"},
    )
    return moved is not None


def _lock_is_free(worker: WorkerRecord, settings: Settings) -> bool:
    here = worker.host == socket.gethostname()
    return here and not is_locked(lock_file(settings, worker.id))
