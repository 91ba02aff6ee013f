"""What may a job spend, and what is set aside for it before anything is ordered?"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from kinoloom.config import Settings
from kinoloom.errors import BudgetExceeded
from kinoloom.planner.plan import Plan
from kinoloom.store.job_record import JobRecord
from kinoloom.store.remote_calls import Limits, RemoteCall
from kinoloom.store.store import Store

TRIED = ("failed", "cancelled", "released")
"""A call in one of these states is over, and its take may have another one."""


def reserve_take(
    store: Store, settings: Settings, job: JobRecord, plan: Plan, number: int
) -> RemoteCall:
    """A new call for a take, with its cost set aside in every budget.

    Raises BudgetExceeded, Conflict when the take has one that is not over.
    """
    amount = plan.cost.amount
    return store.remote_calls.reserve(
        job.id,
        number,
        backend=plan.backend,
        model=plan.model,
        amount=None if amount is None else amount / plan.candidates,
        currency=plan.cost.currency,
        owner=job.owner,
        film=job.film,
        limits=_limits(store, settings, job, plan),
        unknown_ok=plan.request.unknown_price,
    )


def reserve_job(
    store: Store, settings: Settings, job: JobRecord, plan: Plan, *, again: bool = False
) -> None:
    """Set the cost aside of every take that is neither made nor ordered.

    With `again` that of those too which the service made and has no more. Raises BudgetExceeded;
    then nothing more is set aside than before.
    """
    over = (*TRIED, "succeeded") if again else TRIED
    try:
        for number in range(plan.candidates):
            if store.jobs.artefact(job.id, f"render:{number}") is not None:
                continue
            call = store.remote_calls.current(job.id, number)
            if call is None or call.state in over:
                reserve_take(store, settings, job, plan, number)
    except BudgetExceeded:
        store.remote_calls.release(job.id)
        raise


def film_limits(store: Store, settings: Settings, job: JobRecord) -> Limits:
    """What may be spent for the film of a job, if it has one, and in all for the key that asked."""
    budgets = settings.budgets
    film = store.films.get(job.film) if job.film is not None else None
    of_film = [
        x for x in (budgets.film, film.budget if film is not None else None) if x is not None
    ]
    return Limits(
        film=min(of_film, default=None),
        day=budgets.day,
        month=budgets.month,
        key=_of_key(store, job.owner),
        currency=budgets.currency,
    )


def _limits(store: Store, settings: Settings, job: JobRecord, plan: Plan) -> Limits:
    limits = film_limits(store, settings, job)
    of_clip = [x for x in (settings.budgets.clip, plan.request.max_cost) if x is not None]
    others = settings.budgets.any or limits.key is not None or limits.film is not None
    return replace(
        limits,
        clip=min(of_clip, default=None),
        # What the request alone allows is in the currency of the price.
        currency=limits.currency if others else plan.cost.currency,
    )


def _of_key(store: Store, owner: str | None) -> Decimal | None:
    """What the key that asked may spend in all."""
    if owner is None:
        return None
    return next((key.budget for key in store.keys.list() if key.id == owner), None)
