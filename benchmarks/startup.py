"""How long does a user wait for `kinoloom --help`, and a program for `import kinoloom`?

Target: 0.25 seconds each.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from benchmarks.effort import repeats
from benchmarks.machine import machine_line

TARGET = 0.25
ROUNDS = repeats(15, 2)
COMMANDS = {
    "python -c pass": ("-c", "pass"),
    "import kinoloom": ("-c", "import kinoloom"),
    "import kinoloom.api": ("-c", "import kinoloom.api"),
    "kinoloom --help": ("-m", "kinoloom", "--help"),
    "kinoloom generate --help": ("-m", "kinoloom", "generate", "--help"),
}
JUDGED = ("import kinoloom", "kinoloom --help")


def start(*arguments: str) -> tuple[float, float]:
    """Run Python to its end; seconds of wall and of processor time."""
    before, begin = os.times(), time.perf_counter()
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
    wall, after = time.perf_counter() - begin, os.times()
    user = after.children_user - before.children_user
    return wall, user + after.children_system - before.children_system


def main() -> None:
    """Print the table. The rounds are interleaved, so that other load meets all alike."""
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in COMMANDS}
    for arguments in COMMANDS.values():
        start(*arguments)  # compiles what is not compiled yet
    for _ in range(ROUNDS):
        for name, arguments in COMMANDS.items():
            taken[name].append(start(*arguments))
    print(machine_line())
    print(f"{f'start-up, median of {ROUNDS}':28s} {'wall s':>8s} {'cpu s':>8s} {'ratio':>8s}")
    walls = {name: statistics.median(w for w, _ in rounds) for name, rounds in taken.items()}
    bare = walls["python -c pass"]
    for name, rounds in taken.items():
        processor = statistics.median(c for _, c in rounds)
        print(f"{name:28s} {walls[name]:8.3f} {processor:8.3f} {walls[name] / bare:8.1f}")
    slowest = max(walls[name] for name in JUDGED)
    verdict = "met" if slowest <= TARGET else "MISSED"
    print(f"target {TARGET} s for {' and '.join(JUDGED)}: {slowest:.3f} s, {verdict}")


if __name__ == "__main__":
    main()
