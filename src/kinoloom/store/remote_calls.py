"""Which calls were made to services, what do they cost, and may one more be made?

The row of a call is written before the call is made, and changes only from the states that it may
change from: whatever dies in between, nobody makes the same call twice. The rows are the books too.
What is reserved counts against every budget until the charge is known, and spending happens one at
a time on both databases, so that two who look at the same moment cannot both take what is left.
What is set aside for a whole film (`store.films`) counts as well, less the calls paid out of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import case, null, or_, select, update
from sqlalchemy.orm import Session

from kinoloom.errors import Conflict, NotFound
from kinoloom.store.budgets import (
    OPEN,
    Asked,
    CallState,
    Left,
    Limits,
    Spending,
    check_limits,
    left_of_films,
    spending_in,
)
from kinoloom.store.cost_rows import CostRow, Group, cost_rows, within
from kinoloom.store.database import Database
from kinoloom.store.ids import new_id
from kinoloom.store.money import plain, rounded_up
from kinoloom.store.tables import FilmReservationRow, JobRow, RemoteCallRow

__all__ = [
    "OPEN",
    "CallState",
    "CostRow",
    "Group",
    "Limits",
    "RemoteCall",
    "RemoteCalls",
    "Spending",
    "release_unsent",
]


@dataclass(frozen=True, kw_only=True)
class RemoteCall:
    """One call that makes a service work, for one take of a job.

    `id` is the order's key, a UUID in lower case. `attempt` counts from 1 for each take of a job.
    States: `new` is reserved and not sent; `sent` is committed before the call is made; `accepted`
    has the service's `remote_id`, `endpoint` and `data`, which are the ticket; `uncertain` was sent
    and nobody knows whether it was accepted; `succeeded`, `failed` and `cancelled` are how it
    ended; `released` was never sent.

    `reserved` is what it is expected to cost, None for a price that nobody knows and the user
    agreed to; `charged` what it did cost, None until that is known. Both are in `currency`.
    `owner` is the id of the key that asked and `film` that of a film; `reservation` is the film's
    job out of whose reservation it is paid. `nudged_at` is when the service last said that there is
    something to see.
    """

    id: str
    job_id: str
    take: int
    attempt: int
    backend: str
    model: str
    state: CallState
    remote_id: str | None
    endpoint: str
    data: Mapping[str, Any]
    reserved: Decimal | None
    charged: Decimal | None
    currency: str
    owner: str | None
    film: str | None
    reservation: str | None
    error: Mapping[str, Any] | None
    created_at: datetime
    sent_at: datetime | None
    accepted_at: datetime | None
    finished_at: datetime | None
    nudged_at: datetime | None

    @property
    def open(self) -> bool:
        """Whether its reservation counts, since it may still cost something."""
        return self.state in OPEN

    def as_dict(self) -> dict[str, Any]:
        """The call as JSON-ready data."""
        data = {item.name: getattr(self, item.name) for item in fields(self)}
        for name, value in data.items():
            if isinstance(value, datetime):
                data[name] = value.isoformat()
            elif isinstance(value, Decimal):
                data[name] = plain(value)
            elif isinstance(value, Mapping):
                data[name] = dict(value)
        return data


class RemoteCalls:
    """The remote calls of a store."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def reserve(
        self,
        job_id: str,
        take: int,
        *,
        backend: str,
        model: str,
        amount: Decimal | None,
        limits: Limits,
        currency: str = "USD",
        owner: str | None = None,
        film: str | None = None,
        unknown_ok: bool = False,
    ) -> RemoteCall:
        """A `new` call of a job's take, with `amount` set aside for it in every budget.

        An `amount` of None is a price that nobody knows; where a budget applies it needs
        `unknown_ok`, the user's own yes, and sets nothing aside. Raises BudgetExceeded naming the
        budget that does not cover it, Conflict when the job has ended, when the take has an open
        call already, and when the job has paid in another currency, NotFound without that job.
        """
        amount = None if amount is None else rounded_up(amount)
        with self._database.writing() as session:
            self._database.take_turn_to_spend(session)
            if not _lives(session, job_id):
                raise Conflict(f"The job {job_id} has ended, so nothing is ordered for it.")
            parent = session.scalar(select(JobRow.parent).where(JobRow.id == job_id))
            set_aside = parent and session.get(FilmReservationRow, parent)
            attempts = _check_others(session, job_id, take, currency)
            now = self._database.now(session)
            row = RemoteCallRow(
                id=new_id(),
                job_id=job_id,
                take=take,
                attempt=attempts + 1,
                backend=backend,
                model=model,
                state="new",
                endpoint="",
                data={},
                reserved=amount,
                currency=currency,
                owner=owner or "",
                film=film or "",
                reservation=parent if set_aside else None,
                created_at=now,
            )
            asked = Asked(
                amount=amount,
                currency=currency,
                at=now,
                owner=row.owner,
                film=row.film,
                job_id=job_id,
                reservation=row.reservation,
            )
            check_limits(session, limits, asked, unknown_ok=unknown_ok)
            session.add(row)
        return _call(row)

    def current(self, job_id: str, take: int) -> RemoteCall | None:
        """The newest attempt of a job's take."""
        query = select(RemoteCallRow).where(
            RemoteCallRow.job_id == job_id, RemoteCallRow.take == take
        )
        with self._database.reading() as session:
            row = session.scalar(query.order_by(RemoteCallRow.attempt.desc()).limit(1))
            return None if row is None else _call(row)

    def get(self, call_id: str) -> RemoteCall | None:
        """The call with that id."""
        with self._database.reading() as session:
            row = session.get(RemoteCallRow, call_id)
            return None if row is None else _call(row)

    def of_job(self, job_id: str) -> Sequence[RemoteCall]:
        """Every call of a job, oldest first."""
        query = select(RemoteCallRow).where(RemoteCallRow.job_id == job_id)
        return self._found(query.order_by(RemoteCallRow.id))

    def send(self, call_id: str) -> bool:
        """Note that the call is made now; whether it may be, which one caller alone is told."""
        return self._change(call_id, ["new"], "sent", at="sent_at")

    def unsend(self, call_id: str) -> bool:
        """Note that the call certainly never arrived; whether that was open.

        It may be sent again then, unless its job has ended: then it is released.
        """
        with self._database.writing() as session:
            job_id = session.scalar(select(RemoteCallRow.job_id).where(RemoteCallRow.id == call_id))
            if job_id is None:
                return False
            try:
                lives = _lives(session, job_id)
            except NotFound:
                lives = False
            return _change(
                session,
                call_id,
                ["sent", "uncertain"],
                state="new" if lives else "released",
                sent_at=None,
                finished_at=None if lives else self._database.now(session),
                error=None,
            )

    def accept(
        self,
        call_id: str,
        *,
        remote_id: str,
        endpoint: str = "",
        data: Mapping[str, Any] | None = None,
        cost: Decimal | None = None,
    ) -> bool:
        """Keep the ticket of a call that the service accepted; whether that was open.

        `cost`, what the service says it will charge, takes the place of what was reserved, even if
        it is more: it is what will be owed.
        """
        values: dict[str, Any] = {"remote_id": remote_id, "endpoint": endpoint}
        values |= {"data": dict(data or {}), "error": None}
        if cost is not None:
            values["reserved"] = rounded_up(cost)
        return self._change(call_id, ["sent", "uncertain"], "accepted", at="accepted_at", **values)

    def doubt(self, call_id: str, error: Mapping[str, Any]) -> bool:
        """Note that nobody knows whether a sent call was accepted, and why; whether it was sent."""
        return self._change(call_id, ["sent"], "uncertain", error=dict(error))

    def settle(
        self,
        call_id: str,
        state: Literal["succeeded", "failed", "cancelled"],
        *,
        charged: Decimal | None,
        error: Mapping[str, Any] | None = None,
    ) -> bool:
        """Note how a call ended and what it cost, which frees the reservation; whether it was open.

        `charged` is booked as it is, also above what was reserved. Where it is None, a call that
        was never accepted has cost nothing, one that succeeded or was cancelled counts as what was
        reserved for it, and of one that failed the charge stays unknown.
        """
        booked: Any = charged if charged is None else rounded_up(charged)
        if booked is None:
            assumed = null() if state == "failed" else RemoteCallRow.reserved
            free = RemoteCallRow.accepted_at.is_(None)
            booked = assumed if state == "succeeded" else case((free, Decimal(0)), else_=assumed)
        return self._change(
            call_id,
            ["sent", "accepted", "uncertain"],
            state,
            at="finished_at",
            charged=booked,
            error=None if error is None else dict(error),
        )

    def release(self, job_id: str) -> int:
        """Free what is reserved for calls of a job that were not sent; how many there were."""
        with self._database.writing() as session:
            return release_unsent(session, job_id, self._database.now(session))

    def nudge(self, call_id: str) -> bool:
        """Note that the service says: look now. Whether there is something to look at."""
        return self._change(call_id, ["sent", "accepted"], None, at="nudged_at")

    def left(self) -> Sequence[RemoteCall]:
        """The calls that a service may be working on for a job that has ended, oldest first."""
        query = select(RemoteCallRow).outerjoin(JobRow, JobRow.id == RemoteCallRow.job_id)
        query = query.where(
            RemoteCallRow.state.in_(("sent", "accepted")),
            or_(JobRow.id.is_(None), JobRow.finished_at.is_not(None)),
        )
        return self._found(query.order_by(RemoteCallRow.id))

    def list(
        self,
        *,
        states: Collection[CallState] = (),
        backend: str | None = None,
        job_id: str | None = None,
        remote_id: str | None = None,
        limit: int = 50,
        before: str | None = None,
    ) -> Sequence[RemoteCall]:
        """The newest calls that have all of what is given, at most `limit`, newest first.

        `before` is the id of the last call of the page before.
        """
        query = select(RemoteCallRow).order_by(RemoteCallRow.id.desc()).limit(max(0, limit))
        if states:
            query = query.where(RemoteCallRow.state.in_(states))
        if backend is not None:
            query = query.where(RemoteCallRow.backend == backend)
        if job_id is not None:
            query = query.where(RemoteCallRow.job_id == job_id)
        if remote_id is not None:
            query = query.where(RemoteCallRow.remote_id == remote_id)
        if before is not None:
            query = query.where(RemoteCallRow.id < before)
        return self._found(query)

    def seconds(self, backend: str, model: str, limit: int = 20) -> Sequence[float]:
        """What the newest successes took from accepted to finished, in seconds, newest first."""
        query = select(RemoteCallRow.accepted_at, RemoteCallRow.finished_at).where(
            RemoteCallRow.backend == backend,
            RemoteCallRow.model == model,
            RemoteCallRow.state == "succeeded",
            RemoteCallRow.accepted_at.is_not(None),
        )
        query = query.order_by(RemoteCallRow.finished_at.desc()).limit(limit)
        with self._database.reading() as session:
            rows = session.execute(query)
            return [(end - start).total_seconds() for start, end in rows if start and end]

    def costs(
        self,
        by: Group,
        *,
        since: datetime | None = None,
        until: datetime | None = None,
        owner: str | None = None,
    ) -> Sequence[CostRow]:
        """What the calls made from `since` until before `until` cost, of one owner if named.

        In the order of the names, which are days, backends, models, films or ids of keys.
        """
        with self._database.reading() as session:
            return cost_rows(self._database, session, by, since, until, owner)

    def spending(
        self,
        *,
        since: datetime | None = None,
        owner: str | None = None,
        film: str | None = None,
        job_id: str | None = None,
        currency: str = "USD",
    ) -> Spending:
        """What was paid and what is reserved in one currency, for all of what is given.

        What is left for a film that is being made counts, whatever `since` is: it is spent from now
        on. Of one job (`job_id`) only its calls do.
        """
        which = [*within(since, None, owner), RemoteCallRow.currency == currency]
        if film is not None:
            which.append(RemoteCallRow.film == film)
        if job_id is not None:
            which.append(RemoteCallRow.job_id == job_id)

        def counts(left: Left) -> bool:
            mine = owner in (None, left.owner) and film in (None, left.film)
            return job_id is None and left.currency == currency and mine

        with self._database.reading() as session:
            return spending_in(session, *which, left=filter(counts, left_of_films(session)))

    def spent(
        self,
        *,
        since: datetime | None = None,
        owner: str | None = None,
        film: str | None = None,
        job_id: str | None = None,
        currency: str = "USD",
    ) -> Decimal:
        """What was paid and is reserved together, as `spending` counts it."""
        found = self.spending(since=since, owner=owner, film=film, job_id=job_id, currency=currency)
        return found.total

    def _found(self, query: Any) -> Sequence[RemoteCall]:
        with self._database.reading() as session:
            return [_call(row) for row in session.scalars(query)]

    def _change(
        self,
        call_id: str,
        expect: Collection[CallState],
        to: CallState | None,
        *,
        at: str | None = None,
        **values: Any,
    ) -> bool:
        """Change a call that is in one of the states `expect`; whether it was. `at` becomes now."""
        if to is not None:
            values["state"] = to
        with self._database.writing() as session:
            if at is not None:
                values[at] = self._database.now(session)
            return _change(session, call_id, expect, **values)


def release_unsent(session: Session, job_id: str, now: datetime) -> int:
    """As `RemoteCalls.release`, in a transaction of the caller's."""
    query = update(RemoteCallRow).where(
        RemoteCallRow.job_id == job_id, RemoteCallRow.state == "new"
    )
    query = query.values(state="released", finished_at=now)
    return len(session.scalars(query.returning(RemoteCallRow.id)).all())


def _change(session: Session, call_id: str, expect: Collection[CallState], **values: Any) -> bool:
    query = update(RemoteCallRow).where(
        RemoteCallRow.id == call_id, RemoteCallRow.state.in_(expect)
    )
    return session.scalar(query.values(values).returning(RemoteCallRow.id)) is not None


def _lives(session: Session, job_id: str) -> bool:
    """Whether a job has not ended, and cannot until the transaction is over. Raises NotFound."""
    query = select(JobRow.finished_at).where(JobRow.id == job_id).with_for_update(read=True)
    found = session.execute(query).one_or_none()
    if found is None:
        raise NotFound(f"There is no job {job_id!r}.")
    return found[0] is None


def _check_others(session: Session, job_id: str, take: int, currency: str) -> int:
    """How many attempts a take had. Raises Conflict when its job may have no further one now."""
    query = select(RemoteCallRow).where(RemoteCallRow.job_id == job_id)
    attempts = 0
    for row in session.scalars(query):
        if row.take == take:
            attempts = max(attempts, row.attempt)
            if row.state in OPEN:
                raise Conflict(
                    f"Take {take} of the job {job_id} is ordered already.",
                    cause=f"The call {row.id} to {row.backend} is {row.state}.",
                )
        if row.currency != currency and (row.charged or (row.state in OPEN and row.reserved != 0)):
            raise Conflict(
                f"The job {job_id} is paid in {row.currency}, so not in {currency} too.",
                hints=["Ask for the clip anew, from the other service."],
            )
    return attempts


_SAME = tuple(item.name for item in fields(RemoteCall) if item.name not in ("owner", "film"))


def _call(row: RemoteCallRow) -> RemoteCall:
    same = {name: getattr(row, name) for name in _SAME}
    return RemoteCall(**same, owner=row.owner or None, film=row.film or None)
