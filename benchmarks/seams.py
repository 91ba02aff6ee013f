"""How far do the colours of chained clips drift, matched or not, and do the joins show?

Every segment of a chain goes on from the one before, with a seed of its own: from its last frame
(`i2v`), or from as many as its card's `extend` says. All add as many new frames. Target: the match
leaves at most half of what the colours drift from the first segment to the last, the way that the
card chooses for films.
"""

from __future__ import annotations

import statistics
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import kinoloom
from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.place import own_place
from kinoloom.catalog.loader import Catalog
from kinoloom.film.colour import drift, match_colour, match_colours
from kinoloom.media.frames import Frame
from kinoloom.media.images import save_png
from kinoloom.media.lossless import save_lossless
from kinoloom.quality.seam import RETAKE_BELOW, seam_score

TARGET = 0.5
SEGMENTS = repeats(8, 3)
FRAMES, STEPS, FPS = 17, 10, 12
PROMPTS = (
    "a red ball rolling to the right on green grass",
    "a yellow star rising in the blue sky",
    "a large purple square bouncing in the desert",
)


def chain(prompt: str, folder: Path, context: int, *, matched: bool) -> list[Frame]:
    """The frames that a film shows of each segment, uint8 [n, H, W, 3]; n is `FRAMES` of the first.

    All begin with the same segment.
    """
    segments: list[Frame] = []
    for seed in range(SEGMENTS):
        inputs: dict[str, Any] = {}
        length = FRAMES
        if segments:
            last = list(segments[-1][-context:])
            last = match_colours(last, segments[0][0]) if matched else last
            inputs = _handed(last, folder)
            length += context - 1
        clip = kinoloom.generate(
            prompt, seed=seed, frames=length, steps=STEPS, format="png", cache="bypass", **inputs
        )
        segments.append(np.asarray(clip.frames)[context if segments else 0 :])
    return segments


def _handed(frames: list[Frame], folder: Path) -> dict[str, Path]:
    """What the next segment is asked to go on from."""
    if len(frames) == 1:
        save_png(folder / "start.png", frames[0])
        return {"image": folder / "start.png"}
    save_lossless(folder / "start.mkv", frames, FPS)
    return {"video": folder / "start.mkv"}


def drifted(segments: list[Frame]) -> float:
    """By how much the last segment is farther from the anchor's colours than the first is, Lab."""
    anchor = segments[0][0]
    return drift(segments[-1], anchor) - drift(segments[0], anchor)


def seams(segments: list[Frame]) -> list[float]:
    """The score of each join."""
    return [seam_score(before, after).overall for before, after in pairwise(segments)]


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
    rule = Catalog.load().get("spark").extend
    assert rule is not None  # spark can go on from a video
    chosen = "extend" if rule.chains else "i2v"
    print(machine_line())
    print(f"{SEGMENTS} segments of {FRAMES} frames, {STEPS} steps; drift in CIE Lab, seams 0 to 1")
    print(f"{'':46s} {'':>7s} {'':>7s} {'drift':>6s} {'worst':>6s} {'median':>6s} {'retakes':>7s}")
    ratios, summary = {}, []
    for way, context in (("i2v", 1), ("extend", rule.context_frames)):
        drifts: dict[bool, list[float]] = {False: [], True: []}
        scores: dict[bool, list[float]] = {False: [], True: []}
        for prompt in PROMPTS:
            for matched in (False, True):
                with own_place() as folder:
                    segments = chain(prompt, folder, context, matched=matched)
                joins = seams(segments)
                drifts[matched].append(drifted(segments))
                scores[matched] += joins
                bad = sum(score < RETAKE_BELOW for score in joins)
                print(
                    f"{prompt:46s} {way:>7s} {'matched' if matched else 'free':>7s} "
                    f"{drifts[matched][-1]:6.2f} {min(joins):6.2f} "
                    f"{statistics.median(joins):6.2f} {bad:7d}",
                    flush=True,
                )
        free, held = (sum(max(0.0, value) for value in drifts[kind]) for kind in (False, True))
        ratios[way] = held / max(free, 1e-6)
        seen = {kind: statistics.median(values) for kind, values in scores.items()}
        summary.append(
            f"{way}: drift free {free:.2f}, matched {held:.2f}, which is {ratios[way]:.2f} of it; "
            f"median seam score free {seen[False]:.2f}, matched {seen[True]:.2f}"
        )
    print("\n".join(summary))
    large = np.random.default_rng(0).integers(0, 256, (8, 480, 720, 3), dtype=np.uint8)
    print(f"matching a frame of 720x480: {milliseconds(match_colour, large[0], large[1]):.0f} ms")
    print(f"scoring a join of 720x480: {milliseconds(seam_score, large[:4], large[4:]):.0f} ms")
    verdict = "met" if ratios[chosen] <= TARGET else "MISSED"
    print(f"target {TARGET} of the free drift, by {chosen}, which spark's card chooses: {verdict}")


if __name__ == "__main__":
    main()
