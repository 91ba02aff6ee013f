"""May what a plan costs be spent?

Asked before a job is accepted. What is already spent and reserved is the ledger's to count; here is
what a plan alone shows.
"""

from __future__ import annotations

from kinoloom.config import Settings
from kinoloom.errors import BudgetExceeded, InvalidRequest, Problem
from kinoloom.planner.plan import Plan


def check_consent(plan: Plan, settings: Settings) -> None:
    """Raise InvalidRequest for an unknown price without an explicit yes, BudgetExceeded for a cost
    above what the request or the settings allow one clip."""
    cost, budgets = plan.cost, settings.budgets
    if cost.free:
        return
    if cost.amount is None:
        if not plan.request.unknown_price:
            raise InvalidRequest(
                [Problem("unknown_price", False, "true, once you have looked at the price there")],
                message=f"What this clip would cost is not known: {cost.basis}.",
                hints=["Say yes to any price: --unknown-price", "Or take another model."],
            )
        return
    if budgets.any and cost.currency != budgets.currency:
        raise BudgetExceeded(
            f"The clip would cost {cost}, but the budgets are in {budgets.currency}.",
            hints=["Set budgets.currency to the currency of the service's prices."],
        )
    limits = {"max_cost": plan.request.max_cost, "budgets.clip": budgets.clip}
    for name, limit in limits.items():
        if limit is not None and cost.amount > limit:
            raise BudgetExceeded(
                f"The clip would cost {cost}; {name} allows {limit:f} {cost.currency}.",
                cause=cost.basis,
                hints=[
                    "Ask for a shorter or smaller clip, or a cheaper model.",
                    f"Or raise {name}.",
                ],
                details={"cost": f"{cost.amount:f}", "limit": f"{limit:f}", "budget": name},
            )
