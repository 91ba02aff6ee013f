"""How much faster is a clip that was made before found again than rendered?

Target: 1000 times as fast, for spark's default clip.
"""

from __future__ import annotations

import statistics
import sys
import time

from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.place import own_place
from kinoloom.api import build_request, run
from kinoloom.config import load_settings

TARGET = 1000
RENDERS, REPEATS = repeats(3), repeats(50, 5)
PROMPT = "a red ball rolling to the right on green grass"


def timed(cache: str) -> tuple[float, float, bool]:
    """Seconds until the plan is there, seconds until the clip is, and whether it was there."""
    marks = []
    begin = time.perf_counter()
    settings = load_settings()
    request = build_request(prompt=PROMPT, seed=1, cache=cache)
    clip = run(request, settings, on_plan=lambda _: marks.append(time.perf_counter()))
    return marks[0] - begin, time.perf_counter() - begin, clip.reused


def main() -> None:
    """Print the table."""
    with own_place():
        timed("use")  # loads the model, and makes the clip that is found
        renders = [timed("bypass") for _ in range(RENDERS)]
        timed("use")
        found = [timed("use") for _ in range(REPEATS)]
    if any(reused for *_, reused in renders) or not all(reused for *_, reused in found):
        sys.exit("A clip was found that should have been rendered, or the other way round.")
    render = statistics.median(whole for _, whole, _ in renders)
    again = statistics.median(whole for _, whole, _ in found)
    plan = statistics.median(planned for planned, *_ in found)
    ratio = render / again
    print(machine_line())
    print(f"{f'median of {RENDERS} renders, {REPEATS} repeats':44s} {'seconds':>9s}")
    print(f"{'rendered, with the model loaded':44s} {render:9.4f}")
    print(f"{'found again':44s} {again:9.4f}")
    print(f"{'  of that the plan':44s} {plan:9.4f}")
    print(f"{'  the record, and what the file says':44s} {again - plan:9.4f}")
    print(f"target {TARGET} times as fast: {ratio:.0f}, {'met' if ratio >= TARGET else 'MISSED'}")


if __name__ == "__main__":
    main()
