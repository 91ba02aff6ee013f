"""Where do the tests run jobs by hand, one run after the other, with a stand-in for the child?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from kinoloom.config import Settings
from kinoloom.jobs.clip_job import ClipJob
from kinoloom.jobs.job_run import Bench
from kinoloom.jobs.locks import device_lock
from kinoloom.jobs.service import JobService
from kinoloom.request import VideoRequest
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store
from stand_in import StandIn, Waiting


class Workshop:
    """A worker's place without a worker: jobs are begun here by hand."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.service = JobService(settings, store)
        self.child = StandIn()
        self.told: list[dict[str, Any]] = []
        self.watch = Waiting()
        self.lock: Callable[..., Any] = device_lock

    def submit(self, *, origin: str = "api", **values: Any) -> JobRecord:
        """A job that waits."""
        request = VideoRequest.checked(**({"prompt": "a red ball", "seed": 7} | values))
        return self.service.submit(request, origin=origin)

    def carry_out(self, waiting: JobRecord, worker: str = "here") -> JobRecord:
        """Run a waiting job as a worker would; how it is then."""
        now = datetime.now(UTC)
        changes = {"expect": ["queued"], "run": waiting.run, "worker_to": worker}
        job = self.store.jobs.move(waiting.id, "running", started_at=now, **changes)  # type: ignore[arg-type]
        assert job is not None
        bench = Bench(
            self.settings,
            self.store,
            worker,
            self.child,  # type: ignore[arg-type]
            self.child,  # type: ignore[arg-type]
            self.lock,
            lambda _job, message: self.told.append(dict(message)),
        )
        ClipJob(job, bench, self.watch).carry_out()
        return self.service.get(job.id)

    def make(self, **values: Any) -> JobRecord:
        return self.carry_out(self.submit(**values))

    def events(self, job: JobRecord) -> list[tuple[str, dict[str, Any]]]:
        return [(event.type, dict(event.data)) for event in self.service.events(job.id)]

    def assets(self) -> list[str]:
        """The kinds of all that the store keeps."""
        from sqlalchemy import text

        with self.store.assets._database.reading() as session:
            return sorted(session.scalars(text("SELECT kind FROM assets")))
