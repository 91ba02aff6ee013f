"""How often is something repeated? Less often where BENCH_QUICK is set, to try the benchmarks."""

from __future__ import annotations

import os

QUICK = bool(os.environ.get("BENCH_QUICK"))


def repeats(count: int, quick: int = 1) -> int:
    """`count`, or `quick` when only trying."""
    return quick if QUICK else count
