"""What was made here by now, how fast, and what did it cost?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from kinoloom.store.cache.bytes import HITS, MISSES
from kinoloom.store.clips import ClipTotals
from kinoloom.store.money import plain
from kinoloom.store.statistics import REUSED
from kinoloom.store.store import Store


def statistics(store: Store) -> dict[str, Any]:
    """Clips by task and backend, frames, seconds, averages, the caches' hits, and cost.

    Costs are amounts of USD as text, by backend, of everything that was ever paid;
    `jobs.costs` knows more.

    Clips and what they took are counted as long as their records are kept, hits and misses ever
    since the first start. JSON-ready.
    """
    rows, counted = store.clips.totals(), store.statistics.totals()
    paid = {
        row.name: row.charged
        for row in store.remote_calls.costs("backend")
        if row.currency == "USD" and row.charged
    }
    clips, frames = sum(row.clips for row in rows), sum(row.frames for row in rows)
    seconds, reused = sum(row.seconds for row in rows), counted.get(REUSED, 0)
    jobs: Counter[str] = Counter()
    for states in store.jobs.counts().values():
        jobs.update(states)
    return {
        "clips": clips,
        "frames": frames,
        "seconds": round(seconds, 3),
        "average_fps": _each(frames, seconds),
        "average_steps": _each(sum(row.steps for row in rows), clips),
        "average_frame_rate": _each(sum(row.fps for row in rows), clips),
        "tasks": {task: _made(rows, "task", task) for task in sorted({r.task for r in rows})},
        "backends": {n: _made(rows, "backend", n) for n in sorted({r.backend for r in rows})},
        "jobs": dict(sorted(jobs.items())),
        "embeddings": _share(counted.get(HITS, 0), counted.get(MISSES, 0)),
        "results": _share(reused, clips),
        "cost": plain(sum(paid.values(), Decimal(0))),
        "costs": {backend: plain(amount) for backend, amount in paid.items()},
        "saved": {"clips": reused, "seconds": round(reused * (_each(seconds, clips) or 0.0), 3)},
    }


def _made(rows: Sequence[ClipTotals], field: str, value: str) -> dict[str, float]:
    found = [row for row in rows if getattr(row, field) == value]
    return {
        "clips": sum(row.clips for row in found),
        "frames": sum(row.frames for row in found),
        "seconds": round(sum(row.seconds for row in found), 3),
    }


def _share(hits: int, misses: int) -> dict[str, float | None]:
    return {"hits": hits, "misses": misses, "rate": _each(hits, hits + misses)}


def _each(amount: float, count: float) -> float | None:
    return round(amount / count, 4) if count else None
