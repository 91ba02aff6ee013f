"""How long does it take until a server answers, and until its worker takes jobs?

From the start of `kinoloom serve` to its first answer, and with a worker to the moment when
`/ready` says that a job would run. The worker's child, which loads torch, starts meanwhile: a clip
that is asked for then waits for that too. What is measured against is a Python that only imports
FastAPI.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.processes import served, until

ROUNDS = repeats(7, 1)
FRESH, AGAIN = "serve, new data folder", "serve, again"
READY = "serve with worker, ready for jobs"
BARE = "python -c 'import fastapi, uvicorn'"


def bare() -> float:
    """Seconds that a process takes which only imports what any such server imports."""
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-c", "import fastapi, uvicorn"], check=True)
    return time.perf_counter() - begin


def answered(home: Path) -> float:
    """Seconds from the start to the first answer."""
    with served(home, "--no-worker") as server:
        return time.perf_counter() - server.begun


def ready(home: Path) -> float:
    """Seconds from the start to the moment when jobs run."""
    with served(home) as server:
        return until(server.is_ready, "the worker takes jobs") - server.begun


def main() -> None:
    """Print the table. The rounds are interleaved, so that other load meets all alike."""
    taken: dict[str, list[float]] = {name: [] for name in (BARE, FRESH, AGAIN, READY)}
    with tempfile.TemporaryDirectory() as folder:
        bare()
        answered(Path(folder) / "first")  # compiles what is not compiled yet
        for number in range(ROUNDS):
            home = Path(folder) / str(number)
            taken[BARE].append(bare())
            taken[FRESH].append(answered(home))
            taken[AGAIN].append(answered(home))
            taken[READY].append(ready(home))
    base = statistics.median(taken[BARE])
    print(machine_line())
    print(f"{f'median of {ROUNDS}':36s} {'seconds':>8s} {'ratio':>8s}")
    for name, seconds in taken.items():
        median = statistics.median(seconds)
        print(f"{name:36s} {median:8.3f} {median / base:8.1f}")


if __name__ == "__main__":
    main()
