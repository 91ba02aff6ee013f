"""How do queued jobs reach a free place on this worker, and what is remembered of their steps?

The one module that knows DBOS, the durable engine. It keeps its tables beside Kinoloom's own (in
another file on SQLite, in the schema `dbos` on PostgreSQL) and dispatches: queues with their limits
and priorities, and webhooks that are tried again for hours. What a job's state is, which of its
steps are finished and who may write that is decided by `kinoloom.store.jobs`, whose `run` number
every workflow carries. So an engine row that is left over from a dead process does no harm: its run
is over, and whoever replays it finds that out at once.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from dbos import DBOS, DBOSConfig, DBOSPortableJSONSerializer, SetEnqueueOptions
from dbos import SetWorkflowID as WithId

from kinoloom.config import Settings
from kinoloom.errors import NetworkFailed

# Raised when the order or the meaning of a workflow's steps changes: then jobs that wait go on with
# the new steps, and none that is in the middle is replayed with them.
STEPS_VERSION = "clip-1"
FILE_NAME = "engine.sqlite3"

RunJob = Callable[[str, int], None]
Deliver = Callable[[str], None]
_run_job: RunJob | None = None
_deliver: Deliver | None = None

# How often a webhook is tried, and the seconds before the second time; each wait is three times as
# long as the one before: 10 s, 30 s, ... 6 h in all.
WEBHOOK_TRIES = 8
_WEBHOOK_SECONDS = 10.0
_WEBHOOK_GROWTH = 3.0
WEBHOOKS = "webhooks"
_NOWHERE = logging.NullHandler()


@dataclass(frozen=True)
class QueueLimits:
    """How many jobs of a queue this worker runs at once.

    `poll` is the seconds between two looks into it, where the engine's own are too many: each look
    costs milliseconds, also when nothing waits.
    """

    at_once: int = 1
    poll: float | None = None


@DBOS.workflow(name="job", max_recovery_attempts=10)
def _job(job_id: str, run: int) -> None:
    assert _run_job is not None  # set before the engine starts
    _run_job(job_id, run)


@DBOS.workflow(name="webhook", max_recovery_attempts=50)
def _webhook(job_id: str) -> None:
    assert _deliver is not None  # set before the engine starts
    DBOS.run_step(
        {
            "name": "deliver",
            "retries_allowed": True,
            "max_attempts": WEBHOOK_TRIES,
            "interval_seconds": _WEBHOOK_SECONDS,
            "backoff_rate": _WEBHOOK_GROWTH,
            "should_retry": lambda error: isinstance(error, NetworkFailed),
        },
        _deliver,
        job_id,
    )


class Engine:
    """The durable engine of this process; one at a time.

    `poll` is the seconds between two looks into a queue.
    """

    def __init__(
        self,
        settings: Settings,
        worker: str,
        queues: Mapping[str, QueueLimits],
        run_job: RunJob,
        deliver: Deliver,
        poll: float,
    ) -> None:
        self._settings = settings
        self._worker = worker
        self._queues = dict(queues)
        self._run_job = run_job
        self._deliver = deliver
        self._poll = poll

    def start(self) -> None:
        """Begin to take jobs from the queues."""
        global _run_job, _deliver
        _run_job, _deliver = self._run_job, self._deliver
        config: DBOSConfig = {
            "name": "kinoloom",
            "system_database_url": _url(self._settings),
            "application_version": STEPS_VERSION,
            # The same after a restart: the webhooks that an earlier process left are its own.
            "executor_id": self._worker,
            "serializer": DBOSPortableJSONSerializer(),
            "log_level": "WARNING",
            # Nothing here waits for notifications, events or schedules of the engine.
            "use_listen_notify": False,
            "notification_listener_polling_interval_sec": 1.0,
            "scheduler_polling_interval_sec": 3600.0,
        }
        # With none it would keep the standard error of this moment, which may be closed later.
        logging.getLogger("dbos").addHandler(_NOWHERE)
        DBOS(config=config)
        # Each cancelled workflow is an ERROR with a traceback there; jobs tell their own errors.
        logging.getLogger("dbos").setLevel(logging.CRITICAL)
        DBOS.listen_queues(list(self._queues))
        DBOS.launch()
        for name, limits in self._queues.items():
            DBOS.register_queue(
                name,
                worker_concurrency=limits.at_once,
                polling_interval_sec=limits.poll or self._poll,
                on_conflict="always_update",
            )

    def stop(self) -> None:
        """Take no more jobs; those that run go on, and what becomes of them is not noted."""
        DBOS.destroy()

    def enqueue(self, job_id: str, run: int, queue: str, priority: int) -> None:
        """Hand a run of a job over; again and again does no harm. Lower priorities go first."""
        with WithId(workflow_id(job_id, run)), SetEnqueueOptions(priority=priority + 1):
            DBOS.enqueue_workflow(queue, _job, job_id, run)

    def run_now(self, job_id: str, run: int) -> None:
        """Begin a run of a job in a thread of this process, past all queues."""
        with WithId(workflow_id(job_id, run)):
            DBOS.start_workflow(_job, job_id, run)

    def announce(self, job_id: str, run: int) -> None:
        """Call the webhook of a finished job, again and again until it answers."""
        with WithId(f"{workflow_id(job_id, run)}:webhook:{self._worker}"):
            DBOS.enqueue_workflow(WEBHOOKS, _webhook, job_id)

    def abandon(self, job_id: str, run: int) -> None:
        """Take a run that is over out of its queue, so that it holds no place there."""
        DBOS.cancel_workflow(workflow_id(job_id, run))

    def taken_by(self, worker: str) -> list[tuple[str, int]]:
        """The runs of jobs that a worker took from a queue and has not ended, as far as is known.

        Of one that is gone, nobody else takes them.
        """
        named = (found.rpartition(":") for found in _pending("job", worker))
        return [(job_id, int(run)) for job_id, _, run in named]

    def resume_webhooks(self, worker: str) -> None:
        """Have somebody else call the webhooks that a worker, which is gone, was calling."""
        for found in _pending("webhook", worker):
            DBOS.resume_workflow(found, queue_name=WEBHOOKS)

    def forget(self, older: timedelta) -> int:
        """Delete what is remembered of runs that ended so long ago; how many there were."""
        until = (datetime.now(UTC) - older).isoformat()
        ended = ["SUCCESS", "ERROR", "CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"]
        found = DBOS.list_workflows(status=ended, end_time=until, limit=1000, load_input=False)
        if found:
            DBOS.delete_workflows([workflow.workflow_id for workflow in found])
        return len(found)


def _pending(name: str, worker: str) -> list[str]:
    found = DBOS.list_workflows(
        name=name, status="PENDING", executor_id=worker, load_input=False, load_output=False
    )
    return [workflow.workflow_id for workflow in found]


def workflow_id(job_id: str, run: int) -> str:
    """The engine's name of one run of a job."""
    return f"{job_id}:{run}"


def _url(settings: Settings) -> str:
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    file: Path = settings.home / FILE_NAME
    settings.home.mkdir(parents=True, exist_ok=True)
    # The engine leaves SQLite's journal as it is; with WAL readers never wait for writers.
    with closing(sqlite3.connect(file, timeout=20)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return f"sqlite:///{file}"
