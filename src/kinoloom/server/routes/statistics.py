"""What was made here, how fast, and what did it cost?"""

from __future__ import annotations

from fastapi import APIRouter

from kinoloom.server.deps import Reader, Service
from kinoloom.server.schemas import Statistics

router = APIRouter(prefix="/api/statistics", tags=["statistics"])


@router.get("", operation_id="get_statistics", summary="Add up what was made")
def get_statistics(key: Reader, service: Service) -> Statistics:
    """Clips by task and backend, frames, time, averages, the caches' hits, and cost.

    Clips and what they took are counted as long as their records are kept, hits and misses ever
    since the first start.
    """
    return Statistics.model_validate(service.statistics())
