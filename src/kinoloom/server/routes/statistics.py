"""What was made here, how fast, and what did it cost?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from fastapi import APIRouter

from kinoloom.server.deps import Reader, StoreDep
from kinoloom.server.schemas import Made, Savings, Share, Statistics
from kinoloom.store.cache.bytes import HITS, MISSES
from kinoloom.store.clips import ClipTotals

router = APIRouter(prefix="/api/statistics", tags=["statistics"])

_REUSED = "clips.reused"


@router.get("", operation_id="get_statistics", summary="Add up what was made")
def get_statistics(key: Reader, store: StoreDep) -> Statistics:
    """Clips by task and backend, frames, time, averages, the caches' hits, and cost.

    Clips and what they took are counted as long as their records are kept, hits and misses ever
    since the first start.
    """
    rows, counted, costs = store.clips.totals(), store.statistics.totals(), store.jobs.costs()
    clips, frames = sum(row.clips for row in rows), sum(row.frames for row in rows)
    seconds, reused = sum(row.seconds for row in rows), counted.get(_REUSED, 0)
    jobs: Counter[str] = Counter()
    for states in store.jobs.counts().values():
        jobs.update(states)
    return Statistics(
        clips=clips,
        frames=frames,
        seconds=round(seconds, 3),
        average_fps=_each(frames, seconds),
        average_steps=_each(sum(row.steps for row in rows), clips),
        average_frame_rate=_each(sum(row.fps for row in rows), clips),
        tasks={task: _made([r for r in rows if r.task == task]) for task in _names(rows, "task")},
        backends={
            name: _made([row for row in rows if row.backend == name])
            for name in _names(rows, "backend")
        },
        jobs=dict(sorted(jobs.items())),
        embeddings=_share(counted.get(HITS, 0), counted.get(MISSES, 0)),
        results=_share(reused, clips),
        cost=round(sum(costs.values()), 6),
        costs=costs,
        saved=Savings(clips=reused, seconds=round(reused * (_each(seconds, clips) or 0.0), 3)),
    )


def _names(rows: Sequence[ClipTotals], field: str) -> list[str]:
    return sorted({getattr(row, field) for row in rows})


def _made(rows: Sequence[ClipTotals]) -> Made:
    return Made(
        clips=sum(row.clips for row in rows),
        frames=sum(row.frames for row in rows),
        seconds=round(sum(row.seconds for row in rows), 3),
    )


def _share(hits: int, misses: int) -> Share:
    return Share(hits=hits, misses=misses, rate=_each(hits, hits + misses))


def _each(amount: float, count: float) -> float | None:
    return round(amount / count, 4) if count else None
