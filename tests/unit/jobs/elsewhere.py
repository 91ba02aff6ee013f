"""What the tests of jobs share whose clips a service makes."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

from fakes.plain import PlainService
from kinoloom.backends.base import RemoteStatus
from kinoloom.config import Settings
from kinoloom.errors import Uncertain
from kinoloom.store.job_record import JobRecord
from kinoloom.store.remote_calls import RemoteCall
from kinoloom.store.store import Store
from workshop import Workshop

LOST = Uncertain("The service did not answer, and may have taken the order.")
MONEY = Decimal("0.5")  # for the usual clip of `plain`
RUNNING = RemoteStatus("running")


class Agency(Workshop):
    """A worker's place with services: `plain` is one."""

    def __init__(self, settings: Settings, store: Store, services: dict[str, PlainService]) -> None:
        super().__init__(settings, store)
        self.services = services

    @property
    def plain(self) -> PlainService:
        return self.services["plain"]

    def submit(self, *, origin: str = "api", **values: Any) -> JobRecord:
        return super().submit(origin=origin, **{"model": "plain-1", **values})

    def calls(self, job: JobRecord) -> list[RemoteCall]:
        return list(self.store.remote_calls.of_job(job.id))

    def states(self, job: JobRecord) -> list[str]:
        return [call.state for call in self.calls(job)]

    def revived(self, job: JobRecord) -> JobRecord:
        """A job whose worker was killed, as it waits again."""
        now = self.service.get(job.id)
        moved = self.store.jobs.move(
            now.id,
            "queued",
            expect=["running"],
            run=now.run,
            run_to=now.run + 1,
            worker_to=None,
        )
        assert moved is not None
        return moved

    def logs(self, job: JobRecord) -> list[str]:
        return [str(data["message"]) for kind, data in self.events(job) if kind == "log"]

    def video(self, job: JobRecord) -> str:
        """What is in the finished file of a job."""
        clip = self.store.clips.get(str(self.service.get(job.id).clip_id))
        assert clip is not None
        where: Path = clip.path if clip.asset is None else self.store.assets.path(clip.asset)
        return where.read_text()
