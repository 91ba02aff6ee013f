"""Does what is asked for fit into every budget that it counts against?

What counts is what was paid, what open calls have reserved, and what is left of the reservations of
films whose jobs have not ended. A call of such a film is paid out of its reservation, so that it
asks the budgets only for what that does not hold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Literal

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from kinoloom.errors import BudgetExceeded
from kinoloom.store.money import plain, plain_or_none
from kinoloom.store.tables import FilmReservationRow, JobRow, RemoteCallRow

CallState = Literal[
    "new", "sent", "accepted", "uncertain", "succeeded", "failed", "cancelled", "released"
]
OPEN: tuple[CallState, ...] = ("new", "sent", "accepted", "uncertain")
"""The states in which a call's reservation counts."""


@dataclass(frozen=True)
class Limits:
    """What may be spent at most, in one currency; None is no limit.

    For all calls of one job (`clip`), those of a film, those made on a day and in a month (UTC),
    and those of one API key ever. The ones of a film and of a key hold where there is one.
    """

    clip: Decimal | None = None
    film: Decimal | None = None
    day: Decimal | None = None
    month: Decimal | None = None
    key: Decimal | None = None
    currency: str = "USD"


@dataclass(frozen=True)
class Spending:
    """What was paid, and what open calls and films that are being made have reserved."""

    charged: Decimal
    reserved: Decimal

    @property
    def total(self) -> Decimal:
        """What counts against a budget."""
        return self.charged + self.reserved


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be spent: by a call of the job `job_id`, or by a whole film without one.

    An `amount` of None is a price that nobody knows. `reservation` is the job of the film out of
    whose reservation it is paid, where there is one.
    """

    amount: Decimal | None
    currency: str
    at: datetime
    owner: str = ""
    film: str = ""
    job_id: str | None = None
    reservation: str | None = None


@dataclass(frozen=True)
class Left:
    """What is left of the reservation of a film whose job `job_id` has not ended."""

    job_id: str
    film: str
    owner: str
    amount: Decimal
    currency: str


@dataclass(frozen=True)
class _Budget:
    """A limit, the calls that count against it and which films' reservations do, what it is called,
    and how to get more of it."""

    name: str
    limit: Decimal
    calls: ColumnElement[bool]
    films: Callable[[Left], bool]
    called: str
    hint: str


def spending_in(
    session: Session, *which: ColumnElement[bool], left: Iterable[Left] = ()
) -> Spending:
    """What the calls cost for which all of that is so, and what is `left` of reservations."""
    reserved = case((RemoteCallRow.state.in_(OPEN), RemoteCallRow.reserved))
    query = select(
        func.coalesce(func.sum(RemoteCallRow.charged), Decimal(0)),
        func.coalesce(func.sum(reserved), Decimal(0)),
    )
    charged, held = session.execute(query.where(*which)).one()
    return Spending(charged, sum((of_film.amount for of_film in left), held))


def left_of_films(session: Session) -> Sequence[Left]:
    """What is left of the reservations of all films whose jobs have not ended."""
    query = select(FilmReservationRow).join(JobRow, JobRow.id == FilmReservationRow.job_id)
    rows = session.scalars(query.where(JobRow.finished_at.is_(None))).all()
    return [
        Left(row.job_id, row.film, row.owner, _left(session, row), row.currency) for row in rows
    ]


def left_of(session: Session, job_id: str) -> tuple[FilmReservationRow, Decimal] | None:
    """The reservation of a film's job, and what is left of it; whether the job has ended or not."""
    row = session.get(FilmReservationRow, job_id)
    return None if row is None else (row, _left(session, row))


def _left(session: Session, row: FilmReservationRow) -> Decimal:
    used = spending_in(session, RemoteCallRow.reservation == row.job_id)
    return max(row.amount - used.total, Decimal(0))


def start_of_day(moment: datetime) -> datetime:
    """The midnight of UTC before a moment."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def start_of_month(moment: datetime) -> datetime:
    """The midnight of UTC at which the month of a moment began."""
    return start_of_day(moment).replace(day=1)


def check_limits(
    session: Session, limits: Limits, asked: Asked, *, unknown_ok: bool = False
) -> None:
    """Raises BudgetExceeded unless every limit covers what is not in the books yet.

    What is free is always covered. The transaction must be the only one that spends.
    """
    if asked.amount == 0:
        return
    films = left_of_films(session)
    for budget in _budgets(limits, asked):
        if asked.currency != limits.currency:
            raise BudgetExceeded(
                f"The price is in {asked.currency}, and {budget.called} is in {limits.currency}.",
                cause="Amounts of two currencies cannot be compared.",
                hints=["Choose a model with prices in the currency of your budgets."],
                details={"budget": budget.name, "currency": asked.currency},
            )
        counted = [f for f in films if f.currency == limits.currency and budget.films(f)]
        # What is paid out of a reservation takes the place of that much of it.
        mine = [f for f in counted if f.job_id == asked.reservation]
        others = [f for f in counted if f.job_id != asked.reservation]
        same = RemoteCallRow.currency == limits.currency
        found = spending_in(session, budget.calls, same, left=others)
        held = sum((f.amount for f in mine), Decimal(0))
        if asked.amount is None:
            fits = unknown_ok and found.total < budget.limit
        else:
            fits = found.total + max(asked.amount, held) <= budget.limit
        if not fits:
            raise _exceeded(budget, found, asked, unknown_ok)


def _exceeded(budget: _Budget, found: Spending, call: Asked, unknown_ok: bool) -> BudgetExceeded:
    amounts = {"limit": budget.limit, "spent": found.charged, "reserved": found.reserved}
    told = {name: plain(amount) for name, amount in amounts.items()}
    asked = "an unknown amount" if call.amount is None else plain(call.amount)
    if call.amount is None and not unknown_ok:
        message = f"What this costs is not known, and {budget.called} may not be exceeded."
        hints = ["Say yes to the unknown price (unknown_price), or choose another model."]
    else:
        message = f"This would exceed {budget.called}."
        hints = [budget.hint, "See what was spent: kinoloom costs"]
    return BudgetExceeded(
        message,
        cause=f"Spent: {told['spent']}, reserved: {told['reserved']}, asked: {asked},"
        f" limit: {told['limit']} {call.currency}.",
        hints=hints,
        details={
            "budget": budget.name,
            **told,
            "asked": plain_or_none(call.amount),
            "currency": call.currency,
        },
    )


def _budgets(limits: Limits, asked: Asked) -> Iterator[_Budget]:
    """The budgets that something counts against, the narrowest first.

    What is left for a film is spent from now on, so it counts in the day and month that now is.
    """
    row, at = RemoteCallRow, asked.at
    every: list[tuple[Any, ...]] = [
        (
            *("clip", limits.clip, asked.job_id is not None, row.job_id == asked.job_id),
            lambda _left: False,
            "the most that this clip may cost",
            "Allow this clip more (max_cost), or all of them (budgets.clip).",
        ),
        (
            *("film", limits.film, bool(asked.film), row.film == asked.film),
            lambda left: left.film == asked.film,
            "the budget of this film (budgets.film)",
            "Raise the film's budget: in its storyboard, or budgets.film.",
        ),
        (
            *("key", limits.key, bool(asked.owner), row.owner == asked.owner),
            lambda left: left.owner == asked.owner,
            "the budget of this API key",
            "Use a key with a larger budget: kinoloom keys create NAME --budget ...",
        ),
        (
            *("day", limits.day, True, row.created_at >= start_of_day(at)),
            lambda _left: True,
            "the budget of today (budgets.day)",
            "Raise budgets.day, or wait until midnight (UTC).",
        ),
        (
            *("month", limits.month, True, row.created_at >= start_of_month(at)),
            lambda _left: True,
            "the budget of this month (budgets.month)",
            "Raise budgets.month, or wait for the next one (UTC).",
        ),
    ]
    for name, limit, holds, calls, films, called, hint in every:
        if limit is not None and holds:
            yield _Budget(name, limit, calls, films, called, hint)
