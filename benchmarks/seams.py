"""How far do the colours of chained clips drift, matched or not, and do the joins show?

Every segment of a chain starts from the last frame of the one before, with a seed of its own.
Target: the match leaves at most half of what the colours drift from the first segment to the last.
"""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from pathlib import Path

import numpy as np

import kinoloom
from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.place import own_place
from kinoloom.film.colour import drift, match_colour
from kinoloom.media.frames import Frame
from kinoloom.media.images import save_png
from kinoloom.quality.seam import RETAKE_BELOW, seam_score

TARGET = 0.5
SEGMENTS = repeats(8, 3)
FRAMES, STEPS = 17, 10
PROMPTS = (
    "a red ball rolling to the right on green grass",
    "a yellow star rising in the blue sky",
    "a large purple square bouncing in the desert",
)


def chain(prompt: str, folder: Path, *, matched: bool) -> list[Frame]:
    """The segments' frames, uint8 [FRAMES, H, W, 3] each; all start from the same first one."""
    segments: list[Frame] = []
    start = folder / "start.png"
    for seed in range(SEGMENTS):
        inputs = {"image": start} if segments else {}
        clip = kinoloom.generate(
            prompt, seed=seed, frames=FRAMES, steps=STEPS, format="png", cache="bypass", **inputs
        )
        segments.append(np.asarray(clip.frames))
        last = segments[-1][-1]
        save_png(start, match_colour(last, segments[0][0]) if matched else last)
    return segments


def drifted(segments: list[Frame]) -> float:
    """By how much the last segment is farther from the anchor's colours than the first is, Lab."""
    anchor = segments[0][0]
    return drift(segments[-1], anchor) - drift(segments[0], anchor)


def seams(segments: list[Frame]) -> list[float]:
    """The score of each join; the frame that both sides have counts to the first."""
    return [seam_score(before, after[1:]).overall for before, after in pairwise(segments)]


def milliseconds(work: object, *arguments: object) -> float:
    """The median processor time of a call."""
    assert callable(work)
    taken = []
    for _ in range(repeats(5)):
        begin = time.process_time()
        work(*arguments)
        taken.append(time.process_time() - begin)
    return 1000 * statistics.median(taken)


def main() -> None:
    """Print the table."""
    print(machine_line())
    print(f"{SEGMENTS} segments of {FRAMES} frames, {STEPS} steps; drift in CIE Lab, seams 0 to 1")
    head = f"{'':46s} {'':>7s} {'drift':>6s} {'worst':>6s} {'median':>6s} {'retakes':>7s}"
    print(head)
    drifts: dict[bool, list[float]] = {False: [], True: []}
    scores: dict[bool, list[float]] = {False: [], True: []}
    for prompt in PROMPTS:
        for matched in (False, True):
            with own_place() as folder:
                segments = chain(prompt, folder, matched=matched)
            joins = seams(segments)
            drifts[matched].append(drifted(segments))
            scores[matched] += joins
            bad = sum(score < RETAKE_BELOW for score in joins)
            print(
                f"{prompt:46s} {'matched' if matched else 'free':>7s} {drifts[matched][-1]:6.2f} "
                f"{min(joins):6.2f} {statistics.median(joins):6.2f} {bad:7d}",
                flush=True,
            )
    free, held = (sum(max(0.0, value) for value in drifts[way]) for way in (False, True))
    ratio = held / max(free, 1e-6)
    seen = {way: statistics.median(values) for way, values in scores.items()}
    print(f"median seam score: free {seen[False]:.2f}, matched {seen[True]:.2f}")
    large = np.random.default_rng(0).integers(0, 256, (8, 480, 720, 3), dtype=np.uint8)
    print(f"matching a frame of 720x480: {milliseconds(match_colour, large[0], large[1]):.0f} ms")
    print(f"scoring a join of 720x480: {milliseconds(seam_score, large[:4], large[4:]):.0f} ms")
    verdict = "met" if ratio <= TARGET else "MISSED"
    print(f"target {TARGET} of the free drift: {ratio:.2f} of it, {verdict}")


if __name__ == "__main__":
    main()
