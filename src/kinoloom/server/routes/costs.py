"""What did services cost, and what is left of the budgets?"""

from __future__ import annotations

import datetime
import re
from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BeforeValidator

from kinoloom.jobs.costs import cost_report
from kinoloom.server.deps import Reader, SettingsDep, StoreDep, owner_of
from kinoloom.server.schemas import Costs
from kinoloom.store.remote_calls import Group

router = APIRouter(prefix="/api/costs", tags=["statistics"])


def _written_as_day(value: object) -> object:
    """Refuse what pydantic takes for a day too: a number, as seconds since 1970."""
    if isinstance(value, str) and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", value):
        raise ValueError("a day such as 2026-11-22")
    return value


Day = Annotated[datetime.date, BeforeValidator(_written_as_day)]


@router.get("", operation_id="get_costs", summary="Add up what services cost")
def get_costs(
    key: Reader,
    settings: SettingsDep,
    store: StoreDep,
    by: Annotated[Group, Query(description="What to add up by.")] = "day",
    since: Annotated[Day | None, Query(description="The first day (UTC) that counts.")] = None,
    until: Annotated[Day | None, Query(description="The last day (UTC) that counts.")] = None,
) -> Costs:
    """What was paid and what is set aside, in rows and in all, and how much of the budgets is used.

    A key without the scope admin sees its own calls and its own budget only. Amounts are exact
    decimal numbers as text; a price that nobody knows is counted as unknown, never as nothing.
    """
    found = cost_report(
        settings,
        store,
        by,
        since,
        until,
        only=None if owner_of(key) is None else key,
    )
    return Costs.model_validate(found)
