"""What do calls and films that are being made add up to: by day, backend, model, film or key?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from decimal import Decimal
from typing import Literal

from sqlalchemy import ColumnElement, case, func, select
from sqlalchemy.orm import Session

from kinoloom.store.budgets import OPEN, left_of_films
from kinoloom.store.database import Database
from kinoloom.store.tables import RemoteCallRow

Group = Literal["day", "backend", "model", "film", "key"]
"""What costs may be added up by."""


@dataclass(frozen=True)
class CostRow:
    """What some calls add up to, in one currency.

    `name` is their day (UTC), backend, model, film or key (the id), empty for none. `calls` counts
    those that were not released, `charged` is what was paid and `reserved` what open ones hold and
    what is left for films that are being made; `unknown` counts the calls of which neither is
    known. What is left for a film is of the day that now is, and of no backend and no model yet.
    """

    name: str
    calls: int
    charged: Decimal
    reserved: Decimal
    unknown: int
    currency: str


def cost_rows(
    database: Database,
    session: Session,
    by: Group,
    since: datetime | None,
    until: datetime | None,
    owner: str | None,
) -> Sequence[CostRow]:
    """The rows of `RemoteCalls.costs`."""
    names: dict[Group, ColumnElement[str]] = {
        "day": database.day(RemoteCallRow.created_at),
        "backend": RemoteCallRow.backend.expression,
        "model": RemoteCallRow.model.expression,
        "film": RemoteCallRow.film.expression,
        "key": RemoteCallRow.owner.expression,
    }
    is_open = RemoteCallRow.state.in_(OPEN)
    known = case((is_open, RemoteCallRow.reserved), else_=RemoteCallRow.charged)
    query = select(
        names[by],
        func.count(),
        func.coalesce(func.sum(RemoteCallRow.charged), Decimal(0)),
        func.coalesce(func.sum(case((is_open, RemoteCallRow.reserved))), Decimal(0)),
        func.count() - func.count(known),
        RemoteCallRow.currency,
    ).where(RemoteCallRow.state != "released")
    query = query.where(*within(since, until, owner))
    query = query.group_by(names[by], RemoteCallRow.currency)
    rows = [CostRow(*row) for row in session.execute(query)]
    now = database.now(session)
    films = left_of_films(session)
    if (since is not None and now < since) or (until is not None and now >= until):
        films = []
    found = {(row.name, row.currency): row for row in rows}
    for left in films:
        if not left.amount or owner not in (None, left.owner):
            continue
        place = {"day": f"{now:%Y-%m-%d}", "film": left.film, "key": left.owner}.get(by, "")
        nothing = CostRow(place, 0, Decimal(0), Decimal(0), 0, left.currency)
        row = found.get((place, left.currency), nothing)
        found[place, left.currency] = replace(row, reserved=row.reserved + left.amount)
    return [found[place] for place in sorted(found)]


def within(
    since: datetime | None, until: datetime | None, owner: str | None
) -> Sequence[ColumnElement[bool]]:
    """What is so of the calls made from `since` until before `until`, of one owner if named."""
    which = []
    if since is not None:
        which.append(RemoteCallRow.created_at >= since)
    if until is not None:
        which.append(RemoteCallRow.created_at < until)
    if owner is not None:
        which.append(RemoteCallRow.owner == owner)
    return which
