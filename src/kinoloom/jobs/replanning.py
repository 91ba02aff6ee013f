"""How is a plan made again while its job runs: for another device, in other words, elsewhere?

What the user asked stays in the plan as it was. The seed stays, and what is left to be tried.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kinoloom.config import Settings
from kinoloom.jobs.planning import plan_request
from kinoloom.planner.plan import Alternative, Plan
from kinoloom.store.store import Store


def planned_again(
    plan: Plan,
    settings: Settings,
    store: Store,
    *,
    model: str | None = None,
    backend: str | None = None,
    prompt: str | None = None,
    alternatives: Sequence[Alternative] | None = None,
) -> Plan:
    """The plan on this machine, with another model or in other words where these are given.

    `alternatives` are what is left to be tried after it. Raises KinoloomError.
    """
    asked = plan.request
    changed: dict[str, Any] = {
        "model": model or plan.model,
        "backend": backend or plan.backend,
        "seed": plan.seed,
        "prompt": asked.prompt if prompt is None else prompt,
    }
    again = plan_request(
        type(asked)(**asked.model_dump() | changed), settings, store, inputs=plan.inputs
    )
    left = plan.alternatives if alternatives is None else tuple(alternatives)
    return again.model_copy(update={"request": asked, "alternatives": left})
