"""Which processes run jobs, what can they do, and are they still there?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, delete, select

from kinoloom.store.database import Database
from kinoloom.store.tables import WorkerRow


@dataclass(frozen=True)
class WorkerQueue:
    """A queue that a worker serves, with the device it does that on and its memory in bytes."""

    name: str
    device: str | None = None
    memory_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class WorkerRecord:
    """A process that runs jobs; `machine` is a JSON object, `version` that of Kinoloom.

    `beat_at` is when it was last seen. The store sets it, by the clock of the database: those of
    two machines may differ by more than a worker may be silent.
    """

    id: str
    host: str
    pid: int
    queues: tuple[WorkerQueue, ...] = ()
    machine: Mapping[str, Any] = field(default_factory=dict)
    version: str
    started_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    beat_at: datetime = field(default_factory=lambda: datetime.now(UTC))

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON-ready data."""
        return asdict(self) | {
            "queues": [asdict(queue) for queue in self.queues],
            "machine": dict(self.machine),
            "started_at": self.started_at.astimezone(UTC).isoformat(),
            "beat_at": self.beat_at.astimezone(UTC).isoformat(),
        }


class Workers:
    """The workers of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def beat(self, record: WorkerRecord) -> None:
        """Say that a worker is there now, with what it can do."""
        values = {
            "host": record.host,
            "pid": record.pid,
            "queues": [asdict(queue) for queue in record.queues],
            "machine": dict(record.machine),
            "version": record.version,
            "started_at": record.started_at,
        }
        with self._database.writing() as session:
            values["beat_at"] = self._database.now(session)
            session.execute(
                self._database.insert(WorkerRow)
                .values(id=record.id, **values)
                .on_conflict_do_update(index_elements=[WorkerRow.id], set_=values)
            )

    def get(self, worker_id: str) -> WorkerRecord | None:
        """The worker with that id, whether it still is there or not."""
        with self._database.reading() as session:
            row = session.get(WorkerRow, worker_id)
            return None if row is None else _record(row)

    def live(self, ttl_seconds: float = 60) -> list[WorkerRecord]:
        """The workers that were seen within so many seconds, by their ids."""
        return self._seen(ttl_seconds, live=True)

    def stale(self, ttl_seconds: float = 60) -> list[WorkerRecord]:
        """The workers that were not seen for so many seconds, by their ids."""
        return self._seen(ttl_seconds, live=False)

    def remove(self, worker_id: str) -> None:
        """Forget a worker."""
        with self._database.writing() as session:
            session.execute(delete(WorkerRow).where(WorkerRow.id == worker_id))

    def _seen(self, ttl_seconds: float, *, live: bool) -> list[WorkerRecord]:
        with self._database.reading() as session:
            limit = self._database.now(session) - timedelta(seconds=ttl_seconds)
            seen: ColumnElement[bool] = (
                WorkerRow.beat_at > limit if live else WorkerRow.beat_at <= limit
            )
            query = select(WorkerRow).where(seen).order_by(WorkerRow.id)
            return [_record(row) for row in session.scalars(query)]


def _record(row: WorkerRow) -> WorkerRecord:
    return WorkerRecord(
        id=row.id,
        host=row.host,
        pid=row.pid,
        queues=tuple(WorkerQueue(**queue) for queue in row.queues),
        machine=row.machine,
        version=row.version,
        started_at=row.started_at,
        beat_at=row.beat_at,
    )
