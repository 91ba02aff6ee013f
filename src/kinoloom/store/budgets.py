"""Does what is asked for fit into every budget that it counts against?"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from kinoloom.errors import BudgetExceeded
from kinoloom.store.money import plain, plain_or_none
from kinoloom.store.tables import RemoteCallRow

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
    """What was paid, and what open calls have reserved."""

    charged: Decimal
    reserved: Decimal

    @property
    def total(self) -> Decimal:
        """What counts against a budget."""
        return self.charged + self.reserved


@dataclass(frozen=True)
class _Budget:
    """A limit, the calls that count against it, what it is called, and how to get more of it."""

    name: str
    limit: Decimal
    counts: ColumnElement[bool]
    called: str
    hint: str


def spending_in(session: Session, *which: ColumnElement[bool]) -> Spending:
    """What the calls cost for which all of that is so."""
    reserved = case((RemoteCallRow.state.in_(OPEN), RemoteCallRow.reserved))
    query = select(
        func.coalesce(func.sum(RemoteCallRow.charged), Decimal(0)),
        func.coalesce(func.sum(reserved), Decimal(0)),
    )
    return Spending(*session.execute(query.where(*which)).one())


def start_of_day(moment: datetime) -> datetime:
    """The midnight of UTC before a moment."""
    return moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


def start_of_month(moment: datetime) -> datetime:
    """The midnight of UTC at which the month of a moment began."""
    return start_of_day(moment).replace(day=1)


def check_limits(
    session: Session, limits: Limits, call: RemoteCallRow, *, unknown_ok: bool
) -> None:
    """Raises BudgetExceeded unless every limit covers a call that is not in the books yet.

    What is free is always covered. The transaction must be the only one that spends.
    """
    if call.reserved == 0:
        return
    for budget in _budgets(limits, call):
        if call.currency != limits.currency:
            raise BudgetExceeded(
                f"The price is in {call.currency}, and {budget.called} is in {limits.currency}.",
                cause="Amounts of two currencies cannot be compared.",
                hints=["Choose a model with prices in the currency of your budgets."],
                details={"budget": budget.name, "currency": call.currency},
            )
        found = spending_in(session, budget.counts, RemoteCallRow.currency == limits.currency)
        if call.reserved is None:
            fits = unknown_ok and found.total < budget.limit
        else:
            fits = found.total + call.reserved <= budget.limit
        if not fits:
            raise _exceeded(budget, found, call, unknown_ok)


def _exceeded(
    budget: _Budget, found: Spending, call: RemoteCallRow, unknown_ok: bool
) -> BudgetExceeded:
    amounts = {"limit": budget.limit, "spent": found.charged, "reserved": found.reserved}
    told = {name: plain(amount) for name, amount in amounts.items()}
    asked = "an unknown amount" if call.reserved is None else plain(call.reserved)
    if call.reserved is None and not unknown_ok:
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
            "asked": plain_or_none(call.reserved),
            "currency": call.currency,
        },
    )


def _budgets(limits: Limits, call: RemoteCallRow) -> Iterator[_Budget]:
    """The budgets that a call counts against, the narrowest first."""
    row, at = RemoteCallRow, call.created_at
    every: list[tuple[str, Decimal | None, bool, ColumnElement[bool], str, str]] = [
        (
            *("clip", limits.clip, True, row.job_id == call.job_id),
            "the most that this clip may cost",
            "Allow this clip more (max_cost), or all of them (budgets.clip).",
        ),
        (
            *("film", limits.film, bool(call.film), row.film == call.film),
            "the budget of this film (budgets.film)",
            "Raise budgets.film.",
        ),
        (
            *("key", limits.key, bool(call.owner), row.owner == call.owner),
            "the budget of this API key",
            "Use a key with a larger budget: kinoloom keys create NAME --budget ...",
        ),
        (
            *("day", limits.day, True, row.created_at >= start_of_day(at)),
            "the budget of today (budgets.day)",
            "Raise budgets.day, or wait until midnight (UTC).",
        ),
        (
            *("month", limits.month, True, row.created_at >= start_of_month(at)),
            "the budget of this month (budgets.month)",
            "Raise budgets.month, or wait for the next one (UTC).",
        ),
    ]
    for name, limit, holds, counts, called, hint in every:
        if limit is not None and holds:
            yield _Budget(name, limit, counts, called, hint)
