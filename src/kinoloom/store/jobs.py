"""What was asked for, how far is it, and who may change that now?

The row of a job is the truth about it. Every change names the states that it may start from, and a
worker's also the job's `run`, a number that rises whenever the job is given to somebody else: who
was stopped and continues later changes nothing any more.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Unpack

from sqlalchemy import (
    ColumnElement,
    String,
    cast,
    delete,
    exc,
    exists,
    func,
    literal,
    select,
    update,
)
from sqlalchemy.orm import Session

from kinoloom.errors import NotFound
from kinoloom.store.budgets import Asked, Limits, check_limits, left_of
from kinoloom.store.clips import ClipRecord, insert_clip
from kinoloom.store.database import Database
from kinoloom.store.events import insert_event
from kinoloom.store.job_record import (
    ACTIVE,
    COLUMNS,
    FINISHED,
    Artefact,
    JobChanges,
    JobRecord,
    JobState,
    job_record,
)
from kinoloom.store.measurements import Measurement, insert_measurement
from kinoloom.store.remote_calls import release_unsent
from kinoloom.store.statistics import add_counters
from kinoloom.store.tables import FilmRow, JobArtefactRow, JobRow

MOST_WAITING = 500
"""Jobs that are looked at in one go; those after them come in the next."""
_ON_WORKER: tuple[JobState, ...] = ("running", "cancelling")
# Begins the names of what is no step's: the notes that the end of a run was announced.
_ANNOUNCED = "announced:"
_OF_STEPS = JobArtefactRow.name.not_like(f"{_ANNOUNCED}%")


class Jobs:
    """The jobs of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: JobRecord, *, inputs: Collection[str] = ()) -> tuple[JobRecord, bool]:
        """Keep a new job and write its first `state` event; the job, and whether it is new.

        It is not when its owner has used the `idempotency_key` before: then that job is returned.
        `inputs` are digests of assets that it needs, which stay as long as it does.
        """
        with self._database.writing() as session:
            self._database.take_turn(session)
            return insert_job(self._database, session, record, inputs)

    def get(self, job_id: str) -> JobRecord | None:
        """The job with that id."""
        with self._database.reading() as session:
            row = session.get(JobRow, job_id)
            return None if row is None else job_record(row)

    def list(
        self,
        *,
        limit: int = 50,
        before: str | None = None,
        after: str | None = None,
        oldest_first: bool = False,
        states: Collection[JobState] = (),
        queue: str | None = None,
        model: str | None = None,
        backend: str | None = None,
        task: str | None = None,
        owner: str | None = None,
        origin: str | None = None,
        request_key: str | None = None,
        search: str = "",
    ) -> list[JobRecord]:
        """The newest jobs that have all of what is given, at most `limit`, newest first.

        `before` is the id of the last job of the page before. With `oldest_first` they are the
        oldest ones, oldest first, and `after` is that id. `search` keeps those whose prompt has
        every one of its words (or parts of words), in any case and order.
        """
        equal = {
            JobRow.queue: queue,
            JobRow.model: model,
            JobRow.backend: backend,
            JobRow.task: task,
            JobRow.owner: owner,
            JobRow.origin: origin,
            JobRow.request_key: request_key,
        }
        order = JobRow.id if oldest_first else JobRow.id.desc()
        query = select(JobRow).order_by(order).limit(max(0, limit))
        query = query.where(
            *(column == value for column, value in equal.items() if value is not None)
        )
        if states:
            query = query.where(JobRow.state.in_(states))
        if before is not None:
            query = query.where(JobRow.id < before)
        if after is not None:
            query = query.where(JobRow.id > after)
        for word in search.casefold().split():
            query = query.where(JobRow.search.contains(word, autoescape=True))
        with self._database.reading() as session:
            return [job_record(row) for row in session.scalars(query)]

    def move(
        self,
        job_id: str,
        to: JobState,
        *,
        expect: Collection[JobState],
        run: int | None = None,
        worker: str | None = None,
        detail: Mapping[str, Any] | None = None,
        limits: Limits | None = None,
        **changes: Unpack[JobChanges],
    ) -> JobRecord | None:
        """Bring a job from one of the states `expect` to the state `to`; the job as it is then.

        With `run` and `worker` only a job that still has these. `finished_at` is set where `to` is
        the end. In the same transaction a `state` event {"state", "run"} with `detail` is written.
        None, and nothing changed, when the job is not as expected: somebody else was faster.

        `limits` are for a film's job that had ended: what is left of its reservation counts again
        then. Raises BudgetExceeded where they do not cover that, and nothing is changed.
        """
        with self._database.writing() as session:
            if limits is not None:
                self._database.take_turn_to_spend(session)
            self._database.take_turn(session)
            if limits is not None and (known := left_of(session, job_id)) is not None:
                set_aside, left = known
                asked = Asked(
                    amount=left,
                    currency=set_aside.currency,
                    at=self._database.now(session),
                    owner=set_aside.owner,
                    film=set_aside.film,
                )
                check_limits(session, limits, asked)
            row = move_job(session, job_id, to, expect, run, worker, changes, detail)
            return None if row is None else job_record(row)

    def update(self, job_id: str, *, run: int, **changes: Unpack[JobChanges]) -> bool:
        """Change columns of a job whose run it is, not its state; whether it still was."""
        query = update(JobRow).where(JobRow.id == job_id, JobRow.run == run)
        with self._database.writing() as session:
            changed = session.scalar(query.values(_values(changes)).returning(JobRow.id))
            return changed is not None

    def finish(
        self,
        job_id: str,
        *,
        run: int,
        worker: str,
        clip: ClipRecord,
        measurements: Sequence[Measurement] = (),
        counters: Mapping[str, int] | None = None,
        reused: bool = False,
        detail: Mapping[str, Any] | None = None,
    ) -> JobRecord | None:
        """Publish a running job's clip: the job succeeds and the clip is there, or neither.

        The clip of a `reused` one is there already. In the same transaction `measurements` and
        `counters` are kept, the clip is its film's newest if it has one, and the events `state` and
        `success` {"clip", "reused"} with `detail` are written. None, and nothing written, when the
        job is no longer this worker's run. Raises ValueError as `Clips.add` does.
        """
        changes: JobChanges = {"clip_id": clip.id, "reused": reused}
        with self._database.writing() as session:
            self._database.take_turn(session)
            row = move_job(session, job_id, "succeeded", ["running"], run, worker, changes)
            if row is None:
                return None
            if not reused:
                insert_clip(session, clip)
            if row.kind == "film":
                made = update(FilmRow).where(FilmRow.id == row.film).values(clip_id=clip.id)
                session.execute(made)
            for measurement in measurements:
                insert_measurement(session, measurement)
            add_counters(session, counters or {})
            success = {"clip": clip.id, "reused": reused, **(detail or {})}
            insert_event(session, job_id, "success", success)
            return job_record(row)

    def counts(self) -> dict[str, dict[str, int]]:
        """How many jobs there are by queue and state."""
        query = select(JobRow.queue, JobRow.state, func.count()).group_by(
            JobRow.queue, JobRow.state
        )
        found: dict[str, dict[str, int]] = {}
        with self._database.reading() as session:
            for queue, state, count in session.execute(query):
                found.setdefault(queue, {})[state] = count
        return found

    def running_on(self, worker: str) -> Sequence[JobRecord]:
        """The jobs that a worker has: running, or to be cancelled by it."""
        query = select(JobRow).where(JobRow.worker == worker, JobRow.state.in_(_ON_WORKER))
        with self._database.reading() as session:
            return [job_record(row) for row in session.scalars(query.order_by(JobRow.id))]

    def states(self, job_ids: Collection[str]) -> dict[str, tuple[JobState, int]]:
        """State and run of the jobs with these ids, as far as they are there."""
        query = select(JobRow.id, JobRow.state, JobRow.run).where(JobRow.id.in_(job_ids))
        with self._database.reading() as session:
            return {
                job_id: (state, run)  # type: ignore[misc]
                for job_id, state, run in session.execute(query)
            }

    def waiting(
        self, queues: Collection[str], *, handed: bool = False, after: str = ""
    ) -> Sequence[JobRecord]:
        """The jobs that wait in some queues and were not handed to the engine yet, oldest first.

        With `handed` those too that were. At most `MOST_WAITING` at a time, `after` a job's id.
        """
        query = select(JobRow).where(
            JobRow.queue.in_(queues), JobRow.state == "queued", JobRow.id > after
        )
        if not handed:
            query = query.where(JobRow.handed < JobRow.run)
        query = query.order_by(JobRow.id).limit(MOST_WAITING)
        with self._database.reading() as session:
            return [job_record(row) for row in session.scalars(query)]

    def handed(self, job_id: str, run: int) -> None:
        """Note that a run of a job was handed to the engine."""
        query = update(JobRow).where(JobRow.id == job_id, JobRow.handed < run)
        with self._database.writing() as session:
            session.execute(query.values(handed=run))

    def unannounced(self, after: datetime, before: datetime) -> Sequence[JobRecord]:
        """The jobs with a webhook whose end, between two times, was not announced: 500 at most."""
        name = literal(_ANNOUNCED) + cast(JobRow.run, String)
        told = exists().where(JobArtefactRow.job_id == JobRow.id, JobArtefactRow.name == name)
        query = select(JobRow).where(
            JobRow.finished_at.between(after, before), JobRow.webhook.is_not(None), ~told
        )
        with self._database.reading() as session:
            return [job_record(row) for row in session.scalars(query.limit(500))]

    def announced(self, job_id: str, run: int) -> None:
        """Note that the end of a run is being announced."""
        there = select(JobRow.id).where(JobRow.id == job_id)
        note = self._database.insert(JobArtefactRow).values(
            job_id=job_id, name=f"{_ANNOUNCED}{run}", digest=None, data={}
        )
        with self._database.writing() as session:
            if session.scalar(there.with_for_update()) is not None:
                session.execute(note.on_conflict_do_nothing())

    def prune(self, before: datetime) -> int:
        """Forget the jobs that finished before a time, with all that is theirs; how many.

        Their clips stay, and so does what they cost their owners.
        """
        with self._database.writing() as session:
            self._database.take_turn(session)  # two that forget at once would wait in a circle
            return _forget(session, JobRow.state.in_(FINISHED), JobRow.finished_at < before)

    def delete(self, job_id: str) -> bool:
        """Forget a finished job with all that is its own, as `prune` does; whether there was one.

        An unfinished one stays.
        """
        with self._database.writing() as session:
            self._database.take_turn(session)  # two that forget at once would wait in a circle
            return _forget(session, JobRow.id == job_id, JobRow.state.in_(FINISHED)) > 0

    def with_clip(self, clip_id: str, *, owner: str | None = None) -> int:
        """How many jobs, of that owner if one is named, have this clip as their result."""
        query = select(func.count()).select_from(JobRow).where(JobRow.clip_id == clip_id)
        if owner is not None:
            query = query.where(JobRow.owner == owner)
        with self._database.reading() as session:
            return session.scalar(query) or 0

    def keep_artefact(
        self, job_id: str, name: str, *, run: int, digest: str | None, data: Mapping[str, Any]
    ) -> bool:
        """Keep what a step left, in place of what it left before.

        Whether the job still was in this run and active; nothing is kept otherwise. Raises NotFound
        when the store does not have the asset `digest`, or not any more.
        """
        mine = select(JobRow.id).where(
            JobRow.id == job_id, JobRow.run == run, JobRow.state.in_(ACTIVE)
        )
        values = {"digest": digest, "data": dict(data)}
        kept = self._database.insert(JobArtefactRow).values(job_id=job_id, name=name, **values)
        kept = kept.on_conflict_do_update(
            index_elements=[JobArtefactRow.job_id, JobArtefactRow.name], set_=values
        )
        try:
            with self._database.writing() as session:
                if session.scalar(mine.with_for_update()) is None:
                    return False
                session.execute(kept)
                return True
        except exc.IntegrityError as error:
            raise NotFound(f"The store has no asset {digest!r}.") from error

    def artefact(self, job_id: str, name: str) -> Artefact | None:
        """What a step of a job left, if it is finished."""
        with self._database.reading() as session:
            row = session.get(JobArtefactRow, (job_id, name))
            return None if row is None else Artefact(row.digest, row.data)

    def drop_artefacts(self, job_id: str) -> Sequence[str]:
        """Forget what the steps of a job left; the digests of their assets."""
        query = delete(JobArtefactRow).where(JobArtefactRow.job_id == job_id, _OF_STEPS)
        with self._database.writing() as session:
            digests = session.scalars(query.returning(JobArtefactRow.digest)).all()
            return sorted({digest for digest in digests if digest is not None})

    def untidy(self) -> Sequence[str]:
        """The jobs that succeeded and still have what their steps left: their worker died then."""
        query = select(JobArtefactRow.job_id).distinct()
        query = query.join(JobRow, JobRow.id == JobArtefactRow.job_id)
        with self._database.reading() as session:
            return session.scalars(query.where(JobRow.state == "succeeded", _OF_STEPS)).all()


def _forget(session: Session, *which: ColumnElement[bool]) -> int:
    """Delete jobs; how many there were. What they cost stays in the books."""
    return len(session.scalars(delete(JobRow).where(*which).returning(JobRow.id)).all())


def insert_job(
    database: Database, session: Session, record: JobRecord, inputs: Collection[str] = ()
) -> tuple[JobRecord, bool]:
    """As `Jobs.add`, in a transaction of the caller's, who has taken the turn."""
    owner = record.owner or ""
    values = {name: getattr(record, name) for name in COLUMNS}
    values |= {"owner": owner, "search": record.prompt.casefold(), "handed": 0}
    added = database.insert(JobRow)
    added = added.on_conflict_do_nothing(index_elements=[JobRow.owner, JobRow.idempotency_key])
    # The values apart from the statement, which is compiled only once so.
    if session.scalar(added.returning(JobRow.id), values) is None:
        same = (JobRow.owner == owner, JobRow.idempotency_key == record.idempotency_key)
        return job_record(session.scalars(select(JobRow).where(*same)).one()), False
    session.add_all(
        JobArtefactRow(job_id=record.id, name=f"input:{number}", digest=digest, data={})
        for number, digest in enumerate(inputs)
    )
    insert_event(session, record.id, "state", {"state": record.state, "run": record.run})
    return record, True


def move_job(
    session: Session,
    job_id: str,
    to: JobState,
    expect: Collection[JobState],
    run: int | None,
    worker: str | None,
    changes: JobChanges,
    detail: Mapping[str, Any] | None = None,
) -> JobRow | None:
    """As `Jobs.move`, in a transaction of the caller's, who has taken the turn: the row."""
    values = {"state": to} | _values(changes)
    if to in FINISHED:
        values.setdefault("finished_at", values["updated_at"])
    query = update(JobRow).where(JobRow.id == job_id, JobRow.state.in_(expect))
    if run is not None:
        query = query.where(JobRow.run == run)
    if worker is not None:
        query = query.where(JobRow.worker == worker)
    row: JobRow | None = session.scalar(query.values(values).returning(JobRow))
    if row is None:
        return None
    if to in FINISHED:
        release_unsent(session, job_id, values["updated_at"])
    insert_event(session, job_id, "state", {"state": to, "run": row.run, **(detail or {})})
    return row


def _values(changes: JobChanges) -> dict[str, Any]:
    values: dict[str, Any] = {"updated_at": datetime.now(UTC), **changes}
    for name in ("run", "worker"):
        if f"{name}_to" in values:
            values[name] = values.pop(f"{name}_to")
    return values
