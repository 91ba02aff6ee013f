"""Does this process grow when it makes clip after clip?

Target: at most 1.05 times the resident memory after 50 clips that there was after 5.
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import kinoloom
from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.place import own_place

TARGET = 1.05
EARLY, LATE = 5, repeats(50, 10)
STATUS = Path("/proc/self/status")
COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink")


def resident() -> int:
    """Bytes of this process that are in main memory."""
    gc.collect()
    for line in STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"{STATUS} does not say what is resident")


def main() -> None:
    """Print the table: the smallest clips of spark, each with its own seed, in seven colours."""
    if not STATUS.exists():
        print("Only Linux tells how much of a process is in memory.")
        sys.exit()
    found: dict[int, int] = {}
    with own_place():
        for number in range(1, LATE + 1):
            prompt = f"a {COLOURS[number % len(COLOURS)]} ball rising at night"
            kinoloom.generate(prompt, seed=number, steps=8, frames=9)
            if number == EARLY or number % 10 == 0:
                found[number] = resident()
    ratio = found[LATE] / found[EARLY]
    print(machine_line())
    print(f"{'clips':>8s} {'resident MB':>12s} {'ratio':>8s}")
    for number, size in found.items():
        print(f"{number:8d} {size / 1e6:12.1f} {size / found[EARLY]:8.3f}")
    verdict = "met" if ratio <= TARGET else "MISSED"
    print(f"target {TARGET} after {LATE} clips: {ratio:.3f}, {verdict}")


if __name__ == "__main__":
    main()
