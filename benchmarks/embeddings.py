"""How much faster is the second clip of a prompt, when its embeddings are in the cache?

Each clip is made by a program of its own, as on the command line, with another seed: the first one
loads the text encoder and encodes the prompt, the second one does neither. Loading includes the
import of torch and diffusers.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.place import own_place

ROUNDS = repeats(5)
PROMPT = "a red ball rolling to the right on green grass"
PROGRAM = """
import json, sys, time, kinoloom
from kinoloom.config import load_settings
from kinoloom.store.store import Store
timings = kinoloom.generate(sys.argv[1], seed=int(sys.argv[2])).record.timings
with Store.of(load_settings()) as store:
    counted = store.statistics.totals()
print(json.dumps(dict(timings) | counted | {"processor": time.process_time()}))
"""


def clip(seed: int) -> dict[str, float]:
    """Make a clip in a new process; its seconds by phase and the counters of the store."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, PROMPT, str(seed)],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Print the table."""
    firsts, seconds = [], []
    with own_place():
        clip(0)  # files that are read from the disk once
    for _ in range(ROUNDS):
        with own_place():
            firsts.append(clip(1))
            seconds.append(clip(2))
    counted = {(c["cache.hits"], c["cache.misses"]) for c in seconds}
    if counted != {(1, 1)}:
        sys.exit("The second clip did not find the embeddings of the first.")
    print(machine_line())
    print(
        f"{f'a process a clip, median of {ROUNDS}':32s} {'first':>8s} {'second':>8s} {'ratio':>8s}"
    )
    for name, phases in {
        "load and encode": ("load", "encode"),
        "denoise": ("denoise",),
        "decode": ("decode",),
        "all of the clip": ("total",),
        "processor time of the program": ("processor",),
    }.items():
        first = statistics.median(sum(c[p] for p in phases) for c in firsts)
        second = statistics.median(sum(c[p] for p in phases) for c in seconds)
        print(f"{name:32s} {first:8.3f} {second:8.3f} {first / second:8.3f}")
    saved = [
        (a["load"] + a["encode"] - b["load"] - b["encode"]) / a["total"]
        for a, b in zip(firsts, seconds, strict=True)
    ]
    print(f"the text encoder's share of the first clip: {statistics.median(saved):.1%}")


if __name__ == "__main__":
    main()
