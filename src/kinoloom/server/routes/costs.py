"""What did services cost, and what is left of the budgets?"""

from __future__ import annotations

import datetime
from typing import Annotated

from fastapi import APIRouter, Query

from kinoloom.jobs.costs import cost_report
from kinoloom.server.deps import Reader, SettingsDep, StoreDep, owner_of
from kinoloom.server.schemas import Costs
from kinoloom.store.remote_calls import Group

router = APIRouter(prefix="/api/costs", tags=["statistics"])


@router.get("", operation_id="get_costs", summary="Add up what services cost")
def get_costs(
    key: Reader,
    settings: SettingsDep,
    store: StoreDep,
    by: Annotated[Group, Query(description="What to add up by.")] = "day",
    since: Annotated[
        datetime.date | None, Query(description="The first day (UTC) that counts.")
    ] = None,
    until: Annotated[
        datetime.date | None, Query(description="The last day (UTC) that counts.")
    ] = None,
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
