"""Which films are there, what do their storyboards say, and which takes were made of each shot?

A film is its storyboard as JSON, with the newest film file that was joined of it. A take is one
attempt at a shot: its seed and words, and the clips of its segments. Takes are only ever added; one
of each shot is chosen.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from kinoloom.errors import NotFound
from kinoloom.store.budgets import Asked, Limits, check_limits, spending_in
from kinoloom.store.database import Database
from kinoloom.store.ids import new_id
from kinoloom.store.job_record import JobChanges, JobRecord, JobState, job_record
from kinoloom.store.jobs import insert_job, move_job
from kinoloom.store.money import plain_or_none, rounded_up
from kinoloom.store.tables import (
    FilmAssetRow,
    FilmReservationRow,
    FilmRow,
    FilmTakeRow,
    JobRow,
    RemoteCallRow,
)

Reason = Literal["storyboard", "retake", "seam"]
"""Why a take was made: the storyboard says so, the user asked, or its seam was seen too well."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class FilmRecord:
    """Everything about one film but its takes.

    `storyboard` is the JSON of a `film.board.Storyboard`. `budget` is the most that the film may
    cost, in the currency of the budgets. `keyframes` are the pictures made for the film: by the
    shot that begins with it, the clip it is of. `clip_id` is the newest film file and `job_id` the
    newest job that renders it; either may be forgotten by now.
    """

    title: str
    mode: str
    storyboard: Mapping[str, Any]
    owner: str | None = None
    budget: Decimal | None = None
    keyframes: Mapping[str, str] = field(default_factory=dict)
    clip_id: str | None = None
    job_id: str | None = None
    id: str = field(default_factory=new_id)
    created_at: datetime = field(default_factory=_now)
    updated_at: datetime = field(default_factory=_now)

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON-ready data."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        return data | {
            "storyboard": dict(self.storyboard),
            "keyframes": dict(self.keyframes),
            "budget": plain_or_none(self.budget),
            "created_at": self.created_at.astimezone(UTC).isoformat(),
            "updated_at": self.updated_at.astimezone(UTC).isoformat(),
        }


@dataclass(frozen=True, kw_only=True)
class FilmTake:
    """One attempt at a shot.

    `spec` is the hash of what the storyboard said of the shot when the take was made; `seed` and
    `prompt` are what it is made with. `upstream` is the digest of the picture that it went on from,
    empty without one. `segments` are JSON objects: the plan's `key`, the `clip`, the `asked`
    frames and the hash of `how` it was asked for, of each as far as they are made; and of the first
    what it goes on from (`after`), in a chain. `scores` are those of the worst segment, `seam` how
    well it goes on from the shot before (0 to 1). `cost` is what its clips cost when they were
    made, in `currency`. `pinned` is whether the user chose it, whatever its seam is.
    """

    film_id: str
    shot: str
    number: int
    spec: str
    seed: int
    prompt: str
    reason: Reason = "storyboard"
    upstream: str = ""
    segments: Sequence[Mapping[str, Any]] = ()
    scores: Mapping[str, Any] = field(default_factory=dict)
    seam: float | None = None
    cost: Decimal | None = None
    currency: str | None = None
    chosen: bool = False
    pinned: bool = False
    created_at: datetime = field(default_factory=_now)

    def as_dict(self) -> dict[str, Any]:
        """The take as JSON-ready data."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        del data["film_id"]
        return data | {
            "segments": [dict(segment) for segment in self.segments],
            "scores": dict(self.scores),
            "cost": plain_or_none(self.cost),
            "created_at": self.created_at.astimezone(UTC).isoformat(),
        }


_SAME = (
    *("id", "title", "mode", "storyboard", "budget", "keyframes"),
    *("clip_id", "job_id", "created_at", "updated_at"),
)
_OF_TAKE = tuple(i.name for i in fields(FilmTake) if i.name != "reason")


class Films:
    """The films of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, record: FilmRecord) -> FilmRecord:
        """Keep a new film."""
        values = {name: getattr(record, name) for name in _SAME}
        values |= {"storyboard": dict(record.storyboard), "keyframes": dict(record.keyframes)}
        with self._database.writing() as session:
            session.add(FilmRow(**values, owner=record.owner or ""))
        return record

    def get(self, film_id: str, *, owner: str | None = None) -> FilmRecord | None:
        """The film with that id, of that owner if one is named."""
        with self._database.reading() as session:
            row = session.get(FilmRow, film_id)
            if row is None or (owner is not None and row.owner != owner):
                return None
            return _film(row)

    def list(
        self, *, limit: int = 50, before: str | None = None, owner: str | None = None
    ) -> Sequence[FilmRecord]:
        """The newest films, newest first; `before` is the id of the last one of the page before."""
        query = select(FilmRow).order_by(FilmRow.id.desc()).limit(max(0, limit))
        if before is not None:
            query = query.where(FilmRow.id < before)
        if owner is not None:
            query = query.where(FilmRow.owner == owner)
        with self._database.reading() as session:
            return [_film(row) for row in session.scalars(query)]

    def update(self, film_id: str, **changes: Any) -> FilmRecord:
        """Change columns of a film by their names. Raises NotFound."""
        query = update(FilmRow).where(FilmRow.id == film_id)
        query = query.values(updated_at=_now(), **changes)
        with self._database.writing() as session:
            row = session.scalar(query.returning(FilmRow))
            if row is None:
                raise _unknown(film_id)
            return _film(row)

    def begin(self, job: JobRecord, *, cost: Decimal, currency: str, limits: Limits) -> JobRecord:
        """Begin to render a film: its job, kept with what it will cost set aside in every budget.

        `cost` is what is known of what is not made yet. Orders of the film that a service has
        already are in the books, so that much is not set aside again. The calls of the film's clips
        are paid out of it, and what is left when the job ends is free again. A job of the film that
        waits for its user goes on, with the request and the queue of `job`; one that is at work is
        the answer as it is. All of that is one transaction. Raises NotFound, and BudgetExceeded,
        which leaves everything as it was.
        """
        with self._database.writing() as session:
            self._database.take_turn_to_spend(session)
            self._database.take_turn(session)
            film = session.get(FilmRow, job.film, with_for_update=True)
            if film is None:
                raise _unknown(str(job.film))
            there = session.get(JobRow, film.job_id) if film.job_id is not None else None
            if there is not None and there.finished_at is None:
                if not waits(job_record(there)):
                    return job_record(there)
                kept = _going_on(session, there, job)
            else:
                kept, _ = insert_job(self._database, session, job)
                film.job_id = kept.id
            ordered = spending_in(
                session, RemoteCallRow.film == film.id, RemoteCallRow.currency == currency
            ).reserved
            amount = max(rounded_up(cost) - ordered, Decimal(0))
            place = {"film": film.id, "owner": kept.owner or "", "currency": currency}
            used = spending_in(session, RemoteCallRow.reservation == kept.id).total
            reservation = session.merge(FilmReservationRow(job_id=kept.id, amount=used, **place))
            session.flush()
            asked = Asked(amount=amount, at=self._database.now(session), **place)
            check_limits(session, limits, asked)
            reservation.amount = used + amount
            return kept

    def hold(self, film_id: str, digests: Collection[str]) -> None:
        """Let the film refer to these assets and to no others. Raises NotFound."""
        with self._database.writing() as session:
            if session.get(FilmRow, film_id, with_for_update=True) is None:
                raise _unknown(film_id)
            session.execute(delete(FilmAssetRow).where(FilmAssetRow.film_id == film_id))
            session.add_all(
                FilmAssetRow(film_id=film_id, digest=digest) for digest in sorted(set(digests))
            )

    def keep_keyframe(self, film_id: str, shot: str, clip_id: str) -> None:
        """Keep the clip of the picture that a shot begins with. Raises NotFound."""
        with self._database.writing() as session:
            row = session.get(FilmRow, film_id, with_for_update=True)
            if row is None:
                raise _unknown(film_id)
            row.keyframes = {**row.keyframes, shot: clip_id}

    def delete(self, film_id: str) -> bool:
        """Forget a film and its takes, not their clips; whether there was one."""
        query = delete(FilmRow).where(FilmRow.id == film_id)
        with self._database.writing() as session:
            return session.scalar(query.returning(FilmRow.id)) is not None

    def jobs_of(self, parent: str, *, states: Collection[JobState] = ()) -> Sequence[JobRecord]:
        """The jobs that are parts of a job, in some states if any are named, oldest first."""
        query = select(JobRow).where(JobRow.parent == parent).order_by(JobRow.id)
        if states:
            query = query.where(JobRow.state.in_(states))
        with self._database.reading() as session:
            return [job_record(row) for row in session.scalars(query)]

    # --- takes ------------------------------------------------------------------------------

    def takes(self, film_id: str, shot: str | None = None) -> Sequence[FilmTake]:
        """The takes of a film, or of one of its shots, in the order they were added."""
        query = select(FilmTakeRow).where(FilmTakeRow.film_id == film_id)
        if shot is not None:
            query = query.where(FilmTakeRow.shot == shot)
        query = query.order_by(FilmTakeRow.shot, FilmTakeRow.number)
        with self._database.reading() as session:
            return [_take(row) for row in session.scalars(query)]

    def add_take(
        self,
        film_id: str,
        shot: str,
        *,
        spec: str,
        seed: int,
        prompt: str,
        reason: Reason = "storyboard",
        chosen: bool = False,
    ) -> FilmTake:
        """A new take with the shot's next number; when it is `chosen`, no other one is any more.

        Raises NotFound without the film.
        """
        with self._database.writing() as session:
            _lock(session, film_id)
            highest = select(func.max(FilmTakeRow.number)).where(
                FilmTakeRow.film_id == film_id, FilmTakeRow.shot == shot
            )
            take = FilmTake(
                film_id=film_id,
                shot=shot,
                number=(session.scalar(highest) or 0) + 1,
                spec=spec,
                seed=seed,
                prompt=prompt,
                reason=reason,
                chosen=chosen,
            )
            if chosen:
                _choose(session, film_id, shot, None)
            values = {name: getattr(take, name) for name in _OF_TAKE}
            values |= {"segments": [], "scores": {}, "reason": take.reason}
            session.add(FilmTakeRow(**values))
        return take

    def update_take(self, film_id: str, shot: str, number: int, **changes: Any) -> FilmTake:
        """Change columns of a take by their names. Raises NotFound."""
        query = update(FilmTakeRow).where(
            FilmTakeRow.film_id == film_id, FilmTakeRow.shot == shot, FilmTakeRow.number == number
        )
        with self._database.writing() as session:
            row = session.scalar(query.values(**changes).returning(FilmTakeRow))
            if row is None:
                raise _no_take(shot, number)
            return _take(row)

    def choose(self, film_id: str, shot: str, number: int, *, pinned: bool = False) -> FilmTake:
        """Let a take be the one of its shot that is shown. Raises NotFound."""
        with self._database.writing() as session:
            _lock(session, film_id)
            row = session.get(FilmTakeRow, (film_id, shot, number))
            if row is None:
                raise _no_take(shot, number)
            _choose(session, film_id, shot, number)
            session.refresh(row)
            row.pinned = pinned or row.pinned
            return _take(row)


def waits(job: JobRecord) -> bool:
    """Whether a film's job waits for its user, since some of its shots could not be made."""
    return job.state == "held" and job.error is not None


def _going_on(session: Session, there: JobRow, job: JobRecord) -> JobRecord:
    """A job that waited, in the queue with another one's request."""
    changes: JobChanges = {
        "request": job.request,
        "queue": job.queue,
        "model": job.model,
        "backend": job.backend,
        "run_to": there.run + 1,
        "worker_to": None,
        "error": None,
        "deaths": 0,
    }
    row = move_job(session, there.id, "queued", ["held"], there.run, None, changes)
    assert row is not None  # nobody else has the turn
    return job_record(row)


def _lock(session: Session, film_id: str) -> None:
    """Let nobody else add or choose takes of the film until the transaction ends."""
    if session.get(FilmRow, film_id, with_for_update=True) is None:
        raise _unknown(film_id)


def _choose(session: Session, film_id: str, shot: str, number: int | None) -> None:
    mine = (FilmTakeRow.film_id == film_id, FilmTakeRow.shot == shot)
    session.execute(
        update(FilmTakeRow).where(*mine).values(chosen=FilmTakeRow.number == (number or 0))
    )


def _film(row: FilmRow) -> FilmRecord:
    return FilmRecord(**{name: getattr(row, name) for name in _SAME}, owner=row.owner or None)


def _take(row: FilmTakeRow) -> FilmTake:
    reason: Any = row.reason
    return FilmTake(**{name: getattr(row, name) for name in _OF_TAKE}, reason=reason)


def _unknown(film_id: str) -> NotFound:
    return NotFound(
        f"There is no film {film_id[:100]!r}.",
        hints=["`kinoloom film list`, or GET /api/films, shows the films there are."],
    )


def _no_take(shot: str, number: int) -> NotFound:
    return NotFound(
        f"The shot {shot[:100]!r} has no take {number}.",
        hints=["`kinoloom film status FILM` shows the shots and their takes."],
    )
