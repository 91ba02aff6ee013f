"""What did services cost, by what one asks, and how much of the budgets is left?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any, get_args

from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest, Problem, nearest_names
from kinoloom.planner.cost import shown
from kinoloom.store.budgets import start_of_day, start_of_month
from kinoloom.store.keys import ApiKey
from kinoloom.store.money import plain
from kinoloom.store.remote_calls import CostRow, Group, Spending
from kinoloom.store.store import Store

GROUPS: tuple[Group, ...] = get_args(Group)


@dataclass(frozen=True)
class BudgetState:
    """How much of a budget is used.

    `name` is "day", "month" or "key NAME"; `share` what is spent and reserved of the limit, 1 for
    all of it; `warn` whether that is as much as the settings want to be warned of.
    """

    name: str
    limit: Decimal
    spending: Spending
    currency: str
    warn: bool

    @property
    def share(self) -> float:
        """What counts against the budget, as a share of it; 1 for a budget of nothing."""
        return float(self.spending.total / self.limit) if self.limit else 1.0

    @property
    def left(self) -> Decimal:
        """What may still be spent, never below 0."""
        return max(self.limit - self.spending.total, Decimal(0))

    def as_dict(self) -> dict[str, Any]:
        """The state as JSON-ready data; money is text."""
        return {
            "name": self.name,
            "limit": plain(self.limit),
            "spent": plain(self.spending.charged),
            "reserved": plain(self.spending.reserved),
            "left": plain(self.left),
            "currency": self.currency,
            "share": round(self.share, 4),
            "warn": self.warn,
        }

    def __str__(self) -> str:
        used, limit = shown(self.spending.total, self.currency), shown(self.limit, self.currency)
        return f"{used} of the budget of {limit} ({self.name}) are spent or reserved"


def budget_state(settings: Settings, store: Store) -> list[BudgetState]:
    """How much is used of the budgets of this day and this month (UTC), as far as there are any."""
    budgets, now = settings.budgets, datetime.now(UTC)
    limits = (
        ("day", budgets.day, start_of_day(now)),
        ("month", budgets.month, start_of_month(now)),
    )
    found = []
    for name, limit, since in limits:
        if limit is not None:
            spending = store.remote_calls.spending(since=since, currency=budgets.currency)
            found.append(_state(settings, name, limit, spending))
    return found


def key_state(settings: Settings, store: Store, key: ApiKey) -> BudgetState | None:
    """How much is used of a key's budget; None where it has none."""
    if key.budget is None:
        return None
    currency = settings.budgets.currency
    spending = store.remote_calls.spending(owner=key.id, currency=currency)
    return _state(settings, f"key {key.name}", key.budget, spending)


def cost_report(
    settings: Settings,
    store: Store,
    by: Group = "day",
    since: date | None = None,
    until: date | None = None,
    *,
    only: ApiKey | None = None,
) -> dict[str, Any]:
    """What `costs` says, and the state of the `budgets`: of the day, the month and each key.

    With `only` nothing but the calls and the budget of that key.
    """
    if only is None:
        keys = [key for key in store.keys.list() if key.revoked_at is None]
        states = budget_state(settings, store)
    else:
        keys, states = [only], []
    states += [state for key in keys if (state := key_state(settings, store, key)) is not None]
    found = costs(store, by, since, until, owner=None if only is None else only.id)
    return found | {"budgets": [state.as_dict() for state in states]}


def costs(
    store: Store,
    by: Group = "day",
    since: date | None = None,
    until: date | None = None,
    *,
    owner: str | None = None,
) -> dict[str, Any]:
    """What the calls cost that were made from the day `since` to the day `until`, both included.

    Days are those of UTC; with `owner` only the calls of that key. Each of the `rows` has a
    currency, so a name may come twice, and `totals` has a row for each currency. `id` is the same
    as `name`, but for a key, which has both. They are None for calls of no film or no key, and for
    what was paid before backends were noted. JSON-ready; money is text.
    """
    rows = store.remote_calls.costs(
        by,
        since=None if since is None else _midnight(since),
        # The last day that there is has no next one.
        until=None if until is None or until == date.max else _midnight(until + timedelta(1)),
        owner=owner,
    )
    names = {key.id: key.name for key in store.keys.list()} if by == "key" else {}
    return {
        "by": by,
        "since": None if since is None else since.isoformat(),
        "until": None if until is None else until.isoformat(),
        "rows": [
            {"name": names.get(row.name, row.name) or None, "id": row.name or None, **_amounts(row)}
            for row in rows
        ],
        "totals": [_amounts(row) for row in _totals(rows)],
    }


def checked_group(name: str) -> Group:
    """What costs are added up by, as a user wrote it. Raises InvalidRequest."""
    for group in GROUPS:
        if group == name:
            return group
    near = nearest_names(name, GROUPS, count=1)
    raise InvalidRequest(
        [Problem("by", name, f"one of {', '.join(GROUPS)}", near[0] if near else None)]
    )


def checked_day(field: str, text: str | None) -> date | None:
    """A day as a user wrote it. Raises InvalidRequest naming the field."""
    if text is None:
        return None
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise InvalidRequest([Problem(field, text, "a day such as 2026-11-21")]) from None


def _state(settings: Settings, name: str, limit: Decimal, spending: Spending) -> BudgetState:
    warn = spending.total >= limit * Decimal(str(settings.budgets.warn_at))
    return BudgetState(name, limit, spending, settings.budgets.currency, warn)


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)


def _totals(rows: Iterable[CostRow]) -> Sequence[CostRow]:
    """The sums of some rows, one for each currency."""
    found: dict[str, CostRow] = {}
    for row in rows:
        so_far = found.get(row.currency, CostRow("", 0, Decimal(0), Decimal(0), 0, row.currency))
        found[row.currency] = CostRow(
            "",
            so_far.calls + row.calls,
            so_far.charged + row.charged,
            so_far.reserved + row.reserved,
            so_far.unknown + row.unknown,
            row.currency,
        )
    return [found[currency] for currency in sorted(found)]


def _amounts(row: CostRow) -> dict[str, Any]:
    return {
        "calls": row.calls,
        "charged": plain(row.charged),
        "reserved": plain(row.reserved),
        "unknown": row.unknown,
        "currency": row.currency,
    }
