"""What happened to the jobs, in an order that a client can resume from?

Events have numbers of one row over all jobs. They become visible in the order of their numbers:
whoever has read up to a number has missed nothing before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from sqlalchemy import delete, exc, func, select
from sqlalchemy.orm import Session

from kinoloom.errors import NotFound
from kinoloom.store.database import Database
from kinoloom.store.tables import JobEventRow, JobPreviewRow, JobRow

EventType = Literal["state", "progress", "log", "preview", "error", "success"]
# Of these only the newest of a job is of interest, and none once it is finished.
_PASSING: tuple[EventType, ...] = ("progress", "preview")


@dataclass(frozen=True)
class JobEvent:
    """Something that happened to a job; `data` is a JSON object of the type's own form."""

    number: int
    job_id: str
    type: EventType
    data: Mapping[str, Any]
    created_at: datetime

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON-ready data."""
        return {
            "number": self.number,
            "job": self.job_id,
            "type": self.type,
            "at": self.created_at.astimezone(UTC).isoformat(),
            "data": dict(self.data),
        }


class Events:
    """The events of a store's jobs."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, job_id: str, type: EventType, data: Mapping[str, Any]) -> int:  # noqa: A002
        """Keep an event of a job; its number. Raises NotFound when the job was forgotten."""
        with self._writing(job_id) as session:
            return insert_event(session, job_id, type, data)

    def after(
        self,
        number: int,
        *,
        limit: int = 500,
        job_id: str | None = None,
        owner: str | None = None,
    ) -> list[JobEvent]:
        """The events after a number, at most `limit`, oldest first; of one job or owner only."""
        query = select(JobEventRow).where(JobEventRow.number > number)
        if job_id is not None:
            query = query.where(JobEventRow.job_id == job_id)
        if owner is not None:
            query = query.join(JobRow, JobRow.id == JobEventRow.job_id).where(JobRow.owner == owner)
        query = query.order_by(JobEventRow.number).limit(max(0, limit))
        with self._database.reading() as session:
            return [_event(row) for row in session.scalars(query)]

    def last_number(self) -> int:
        """The number of the newest event; 0 without any."""
        with self._database.reading() as session:
            return session.scalar(select(func.max(JobEventRow.number))) or 0

    def set_preview(self, job_id: str, jpeg: bytes) -> int:
        """Replace the job's preview and write its event {"number": n}; n, which counts from 1.

        Raises NotFound when the job was forgotten.
        """
        added = self._database.insert(JobPreviewRow).values(job_id=job_id, number=1, jpeg=jpeg)
        added = added.on_conflict_do_update(
            index_elements=[JobPreviewRow.job_id],
            set_={"number": JobPreviewRow.number + 1, "jpeg": added.excluded.jpeg},
        )
        with self._writing(job_id) as session:
            number = session.scalars(added.returning(JobPreviewRow.number)).one()
            insert_event(session, job_id, "preview", {"number": number})
            return number

    def preview(self, job_id: str) -> bytes | None:
        """The newest preview of a job, a JPEG."""
        with self._database.reading() as session:
            return session.scalar(select(JobPreviewRow.jpeg).where(JobPreviewRow.job_id == job_id))

    def thin(self, job_id: str) -> None:
        """Drop of a finished job what only mattered while it ran: progress and previews."""
        passing = delete(JobEventRow).where(
            JobEventRow.job_id == job_id, JobEventRow.type.in_(_PASSING)
        )
        with self._database.writing() as session:
            session.execute(passing)
            session.execute(delete(JobPreviewRow).where(JobPreviewRow.job_id == job_id))

    @contextmanager
    def _writing(self, job_id: str) -> Iterator[Session]:
        """A transaction in which events of a job can be written."""
        try:
            with self._database.writing() as session:
                self._database.take_turn(session)
                yield session
        except exc.IntegrityError as error:
            raise NotFound(f"There is no job {job_id!r}.") from error


def insert_event(
    session: Session,
    job_id: str,
    type: EventType,  # noqa: A002
    data: Mapping[str, Any],
) -> int:
    """Write an event in a transaction that called `Database.take_turn` first; its number."""
    row = JobEventRow(job_id=job_id, type=type, data=dict(data), created_at=datetime.now(UTC))
    session.add(row)
    session.flush()
    return row.number


def _event(row: JobEventRow) -> JobEvent:
    return JobEvent(row.number, row.job_id, row.type, row.data, row.created_at)  # type: ignore[arg-type]
