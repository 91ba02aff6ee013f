"""How long does scoring a clip take on one thread, and where does the time go?

Target: 121 frames of 720x480 in at most 1.5 seconds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import cv2
import numpy as np

from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from kinoloom.quality.score import score

TARGET = 1.5
FRAMES, HEIGHT, WIDTH = 121, 480, 720
ROUNDS = repeats(3)


def moving_texture() -> np.ndarray:
    """A textured picture that pans and turns: every pixel moves, the flow has its full work."""
    side = 2 * WIDTH
    canvas = np.random.default_rng(0).normal(0, 1, (side, side, 3)).astype(np.float32)
    canvas = cv2.GaussianBlur(canvas, (0, 0), 2)
    canvas = np.clip(128 + canvas / canvas.std() * 40, 0, 255).astype(np.uint8)
    clip = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for t in range(FRAMES):
        turn = cv2.getRotationMatrix2D((side / 2, side / 2), 0.1 * t, 1)
        turn[:, 2] -= ((side - WIDTH) / 2 - t, (side - HEIGHT) / 2)
        clip[t] = cv2.warpAffine(canvas, turn, (WIDTH, HEIGHT))
    return clip


def seconds(work: Callable[[], object]) -> float:
    """The median of some rounds of processor time, which other programs' load hardly touches."""
    taken = []
    for _ in range(ROUNDS):
        begin = time.process_time()
        work()
        taken.append(time.process_time() - begin)
    return statistics.median(taken)


def main() -> None:
    """Print the table."""
    cv2.setNumThreads(1)
    clip = moving_texture()
    score(clip[:4], 24)
    begin = time.perf_counter()
    scores = score(clip, 24)
    wall = time.perf_counter() - begin
    whole = seconds(lambda: score(clip, 24))
    frozen = np.repeat(clip[:1], FRAMES, axis=0)
    still = seconds(lambda: score(frozen, 24))
    print(machine_line())
    print(f"{'scoring ' + f'{FRAMES} frames {WIDTH}x{HEIGHT}, 1 thread':44s} {'seconds':>8s}")
    print(f"{'everything moves, processor time':44s} {whole:8.2f}")
    print(f"{'everything moves, wall time':44s} {wall:8.2f}")
    print(f"{'frozen, processor time':44s} {still:8.2f}")
    print(
        f"target {TARGET} s: {whole / TARGET:.2f} of it, {'met' if whole <= TARGET else 'MISSED'}"
    )
    print(f"scores: {scores.as_dict()}")


if __name__ == "__main__":
    main()
