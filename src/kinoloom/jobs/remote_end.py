"""What is ordered for a call, and how does an order end that nobody waits for any more?

Such an order is that of a job which was cancelled or ran out of time, or ended in another way while
a service had it. It is stopped where that is possible, and the books say what it cost. What a
service cannot be asked now is asked again by the next housekeeping.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from kinoloom.backends.base import Order, RemoteBackend, RemoteStatus, Ticket
from kinoloom.catalog.card import ModelCard
from kinoloom.config import Settings
from kinoloom.errors import Conflict, KinoloomError, NotFound, Uncertain
from kinoloom.jobs.notices import notified_at
from kinoloom.jobs.planning import load_catalog, remote_for
from kinoloom.jobs.takes import plan_of_take, take_of
from kinoloom.planner.cost import shown
from kinoloom.planner.plan import Plan
from kinoloom.store.job_record import JobRecord
from kinoloom.store.remote_calls import RemoteCall
from kinoloom.store.store import Store

_log = logging.getLogger(__name__)


def ticket_of(call: RemoteCall) -> Ticket:
    """The ticket of an accepted call."""
    assert call.remote_id is not None  # which is what `accepted` means
    return Ticket(call.remote_id, call.endpoint, call.data)


def order_of(
    plan: Plan, call: RemoteCall, settings: Settings, pictures: Mapping[str, Path]
) -> Order:
    """What a backend is handed for a call: the same each time."""
    take = plan_of_take(plan, call.take) if plan.candidates > 1 else plan
    return Order(
        key=call.id,
        take=take_of(take),
        inputs=pictures,
        audio=plan.audio,
        notify=notified_at(settings, call),
    )


def settle_doubt(store: Store, job: JobRecord, remote_id: str | None) -> None:
    """Note that a job's uncertain order is there under an id, or with None that it is not there.

    Raises Conflict when the job has no such order, and when another one has that id: two jobs would
    wait for the same video, and the order that was really meant be lost.
    """
    calls = store.remote_calls
    for call in calls.of_job(job.id):
        if call.state != "uncertain":
            continue
        if remote_id is None:
            settled = calls.unsend(call.id)
        else:
            for other in calls.list(backend=call.backend, remote_id=remote_id, limit=1):
                raise Conflict(
                    f"The order {remote_id} is that of another clip.",
                    cause=f"The job {other.job_id} has it.",
                    hints=[f"Look for another one at {call.backend}, of {call.created_at}."],
                )
            settled = calls.accept(call.id, remote_id=remote_id)
        if settled:
            return
    raise Conflict(
        f"The job {job.id} has no order that anybody is uncertain about.",
        hints=[f"Look at its orders: kinoloom jobs show {job.id}"],
    )


def end_order(
    store: Store,
    call: RemoteCall,
    backend: RemoteBackend,
    card: ModelCard,
    log: Callable[[str], None],
) -> None:
    """Stop an accepted order and close its books; `log` is told what happened.

    What was finished by then counts as that. Where the service does not say what it charges, what
    was reserved counts as charged.
    """
    try:
        status = backend.cancel(ticket_of(call), card)
    except NotFound as error:
        status = RemoteStatus("failed", error=error, charged=call.reserved)
    except KinoloomError as error:
        log(f"The order {call.remote_id} at {call.backend} cannot be stopped now: {error.message}")
        return
    except Exception:  # a mistake in a backend's code must not keep the job from ending
        _log.exception("The backend %s failed to cancel an order.", call.backend)
        return
    ended = status.state if status.state in ("succeeded", "failed") else "cancelled"
    error_told = status.error.as_dict() if status.error is not None else None
    if not store.remote_calls.settle(
        call.id,
        ended,
        charged=status.charged,
        error=error_told,
    ):
        return
    booked = store.remote_calls.get(call.id)
    charged = booked.charged if booked is not None else None
    paid = "an unknown amount" if charged is None else shown(charged, call.currency)
    guessed = "" if status.charged is not None else ", as far as is known"
    log(f"The order at {call.backend} ended as {ended}; it cost {paid}{guessed}.")


def end_left_orders(store: Store, settings: Settings, *, job_id: str | None = None) -> None:
    """End the orders of jobs that are over, or of one, and settle what was reserved for them."""
    for call in store.remote_calls.left():
        if job_id not in (None, call.job_id):
            continue
        try:
            _end_left(store, settings, call)
        except KinoloomError as error:
            _log.warning("The order %s waits: %s", call.id, error.message)


def _end_left(store: Store, settings: Settings, call: RemoteCall) -> None:
    backend = remote_for(call.backend, settings)
    card = load_catalog(settings).get(call.model)
    if call.state == "sent":
        found = _found(store, settings, call, backend, card)
        if found is None:
            return
        call = found
    status = backend.poll(ticket_of(call), card)
    if status.state != "queued" and status.state != "running":
        error = status.error.as_dict() if status.error is not None else None
        store.remote_calls.settle(call.id, status.state, charged=status.charged, error=error)
        return
    if any(left.id == call.id for left in store.remote_calls.left()):  # not begun anew meanwhile
        end_order(store, call, backend, card, lambda text: _log.info("%s", text))


def _found(
    store: Store,
    settings: Settings,
    call: RemoteCall,
    backend: RemoteBackend,
    card: ModelCard,
) -> RemoteCall | None:
    """A call that was sent and has no ticket, once it has one; None where it has none."""
    calls, job = store.remote_calls, store.jobs.get(call.job_id)
    try:
        plan = None if job is None or job.plan is None else Plan.model_validate(job.plan)
        # Pictures were sent as they lay in a folder that is gone; without them it may look like
        # another order, and so like none.
        if plan is None or plan.inputs.files or plan.model != call.model:
            raise Uncertain(f"Nobody knows whether {call.backend} accepted an order.")
        ticket = backend.find(order_of(plan, call, settings, {}), card)
    except Uncertain as error:
        calls.doubt(call.id, error.as_dict())
        return None
    if ticket is None:
        calls.unsend(call.id)  # which releases it, for its job has ended
        return None
    calls.accept(
        call.id,
        remote_id=ticket.remote_id,
        endpoint=ticket.endpoint,
        data=ticket.data,
        cost=ticket.cost,
    )
    return calls.get(call.id)
