"""How do tests of the books order something at a service, and have it accepted and paid?"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from kinoloom.store import Store
from kinoloom.store.job_record import JobRecord
from kinoloom.store.remote_calls import Limits, RemoteCall

D = Decimal


def job(store: Store, **values: Any) -> str:
    given: dict[str, Any] = {"queue": "api", "origin": "api", "request": {}, "task": "t2v"}
    record = JobRecord(**given, model="gen", backend="runway", **values)
    return store.jobs.add(record)[0].id


def reserve(store: Store, job_id: str | None = None, amount: str | None = "1", **more: Any) -> Any:
    """A call of take 0 of that job, or of a new one."""
    given: dict[str, Any] = {"backend": "runway", "model": "gen", "limits": Limits(), "take": 0}
    asked = None if amount is None else D(amount)
    return store.remote_calls.reserve(job_id or job(store), amount=asked, **given | more)


def accepted(store: Store, job_id: str | None = None, **more: Any) -> RemoteCall:
    call = reserve(store, job_id, **more)
    assert store.remote_calls.send(call.id)
    assert store.remote_calls.accept(call.id, remote_id=f"r-{call.id}")
    return now(store, call)


def paid(store: Store, job_id: str | None = None, charged: str | None = "1", **more: Any) -> Any:
    """A call that succeeded."""
    call = accepted(store, job_id, **more)
    cost = None if charged is None else D(charged)
    assert store.remote_calls.settle(call.id, "succeeded", charged=cost)
    return now(store, call)


def now(store: Store, call: RemoteCall) -> RemoteCall:
    found = store.remote_calls.get(call.id)
    assert found is not None
    return found
