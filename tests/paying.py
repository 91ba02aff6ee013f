"""How do the tests come to a job that has cost something?"""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from kinoloom.store.remote_calls import Limits, RemoteCall
from kinoloom.store.store import Store


def pay(store: Store, job_id: str, charged: str | None, **values: Any) -> RemoteCall:
    """A call that succeeded for a job which has not ended; None for a charge that is not known."""
    given: dict[str, Any] = {"take": 0, "backend": "veo", "model": "m", "limits": Limits()}
    amount = None if charged is None else Decimal(charged)
    call = store.remote_calls.reserve(job_id, amount=amount, **given | values)
    assert store.remote_calls.send(call.id)
    assert store.remote_calls.accept(call.id, remote_id=f"remote-{call.id}")
    assert store.remote_calls.settle(call.id, "succeeded", charged=amount)
    found = store.remote_calls.get(call.id)
    assert found is not None
    return found
