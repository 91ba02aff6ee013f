"""What waits, and what is being worked on?"""

from __future__ import annotations

from fastapi import APIRouter

from kinoloom.server.deps import Reader, Service
from kinoloom.server.schemas import Queue, Queues, QueueTotals

router = APIRouter(prefix="/api/queues", tags=["queues"])


@router.get("", operation_id="list_queues", summary="Count the jobs of each queue")
def list_queues(key: Reader, service: Service) -> Queues:
    """How many jobs each queue has in which state, and how many workers take from it."""
    items = [Queue.model_validate(queue) for queue in service.queues()]
    names = QueueTotals.model_fields
    totals = {name: sum(getattr(queue, name) for queue in items) for name in names}
    return Queues(items=items, totals=QueueTotals.model_validate(totals))
