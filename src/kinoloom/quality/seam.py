"""Can the join of two segments be seen, from 0 (at once) to 1 (not at all)?

Whatever happens at the join is compared with what happens between the frames on both sides of it:
a fast pan may change as much from frame to frame as a cut does in a still scene. Four parts, each 1
when good:

    match   along the motion, things look the same before and after the join
    colour  the mean colour does not jump
    motion  things go on moving the way they did
    fresh   the join is a step forward in time: no frame is shown twice

`overall` is their product, since each of them alone gives a join away, and two do so sooner.

A frame that a model has encoded once more is found to be shown twice only where it lost less by
that than things move in a step: in calm scenes it passes for new.

The constants were set on rendered clips with one fault each; those of the eye are cited.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from kinoloom.errors import InvalidMedia
from kinoloom.media.frames import Frame, checked_frames
from kinoloom.quality.measures import FLOW_SIDE, compare, extended, follow, shrunk

WINDOW = 4
"""Frames on each side that tell what is usual there: three steps, whose median one outlier leaves
alone. More would ask a longer stretch to be alike."""

RETAKE_BELOW = 0.4
"""Overall score below which a segment is worth another take. Of spark's chained joins the median is
0.53 to 0.88 by scene, and those below are the ones where the object changes its shape at once
(`benchmarks/seams.py`). In a clean clip a 5 % jump of brightness, a repeated frame and a reversal
score 0.2 to 0.3, three frames left out 0.5."""

# Grey levels of warp error beyond the usual: interpolation and grain account for one.
_ERROR_FREE, _ERROR_SCALE = 1.0, 5.0
# Share of lost pixels beyond the usual: uncovered background is a few per cent, a cut loses half.
_LOST = (0.05, 0.35)
# CIE Lab distance between the means, beyond the usual: 1 is just noticeable side by side (Mahy et
# al. 1994 found 2.3); in time the eye sees a step of the whole picture at once.
_COLOUR_FREE, _COLOUR_SCALE = 0.5, 3.0
# Share of the motion that does not go on: a half of it is a sharp turn, all of it a reversal.
_TURN = (0.15, 1.0)
_TURN_FLOOR = 0.02
"""Worst value of `motion`: that things turn back may be what was asked for."""

_STILL = 0.1
"""Pixels of mean motion at `FLOW_SIDE` below which a scene stands still: no motion can break."""

# Share of the usual step in time from which on a frame is new.
_STEP = (0.1, 0.5)
_REPEATED = 0.2
"""Worst value of `fresh`."""

_WORTH_A_NOTE = 0.7


@dataclass(frozen=True)
class SeamScore:
    """How well two segments join; every figure from 0 to 1, 1 is good; see the module.

    notes: what gives the join away, in plain words; empty when nothing does.
    """

    match: float
    colour: float
    motion: float
    fresh: float
    overall: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The scores, rounded to 4 digits, and the notes as JSON-ready data."""
        values = asdict(self)
        notes = values.pop("notes")
        return {name: round(value, 4) for name, value in values.items()} | {"notes": list(notes)}


def seam_score(before: Frame | Sequence[Frame], after: Frame | Sequence[Frame]) -> SeamScore:
    """Score the join between the uint8 RGB frames [T, H, W, 3] shown before and after it.

    The last `WINDOW` frames before it and the first after it are looked at; a boundary frame that
    both segments have belongs to `before` alone, as in the film. With a single frame on a side,
    only the other tells what is usual. Raises InvalidMedia when a side has no frames or they are
    not RGB of one size.
    """
    if len(before) == 0 or len(after) == 0:
        raise InvalidMedia(
            "There is no join to score.", cause="One of the two segments has no frames."
        )
    first, last = before[-WINDOW:], after[:WINDOW]
    frames = list(checked_frames([*first, *last]))
    steps = [_step(a, b) for a, b in pairwise(frames)]
    join = len(first) - 1
    return _judged(steps[:join], steps[join], steps[join + 1 :])


@dataclass(frozen=True)
class _Step:
    """From one frame to the next: warp error in grey levels, share of lost pixels, distance of the
    mean colours in Lab, mean difference in grey levels, motion [H, W, 2] in pixels."""

    error: float
    lost: float
    colour: float
    change: float
    flow: npt.NDArray[np.float32]

    @property
    def speed(self) -> float:
        """Mean motion, pixels."""
        return float(np.linalg.norm(self.flow, axis=2).mean())


def _step(first: Frame, second: Frame) -> _Step:
    greys = [extended(_grey(shrunk(frame, FLOW_SIDE))) for frame in (first, second)]
    pair = compare(greys[0], greys[1])
    colour = float(np.linalg.norm(_mean_lab(second) - _mean_lab(first)))
    return _Step(pair.error, pair.lost, colour, 255 * pair.change, follow(greys[0], greys[1]))


def _judged(before: list[_Step], join: _Step, after: list[_Step]) -> SeamScore:
    sides = [side for side in (before, after) if side]

    def beyond(measure: Callable[[_Step], float]) -> float:
        """How much more it is at the join than is usual on the livelier side."""
        usual = max((median(map(measure, side)) for side in sides), default=0.0)
        return measure(join) - usual

    match = _decay(beyond(lambda s: s.error), _ERROR_FREE, _ERROR_SCALE)
    match *= 1 - _ramp(beyond(lambda s: s.lost), _LOST)
    colour = _decay(beyond(lambda s: s.colour), _COLOUR_FREE, _COLOUR_SCALE)
    fresh = _fresh(sides, join)
    motion = max(_TURN_FLOOR, 1 - _ramp(_turn(before, join, after, fresh), _TURN))
    fresh = max(_REPEATED, fresh)
    overall = match * colour * motion * fresh
    parts = {"match": match, "colour": colour, "motion": motion, "fresh": fresh}
    return SeamScore(**parts, overall=overall, notes=tuple(_notes(parts)))


def _turn(before: list[_Step], join: _Step, after: list[_Step], fresh: float) -> float:
    """Share of the motion, 0..1, that does not go on over the join, beyond the usual."""
    sides = [*before[-1:], *after[:1]]
    # A held frame has no motion; that counts as held, once.
    worst = max((fresh * _apart(side, join) for side in sides), default=0.0)
    if len(sides) == 2:
        worst = max(worst, _apart(*sides))
    usual = [_apart(a, b) for s in (before, after) for a, b in pairwise(s)]
    return worst - (median(usual) if usual else 0.0)


def _apart(first: _Step, second: _Step) -> float:
    """How different two motions are: 0 the same, 1 opposite, or one of them none."""
    both = first.speed + second.speed
    apart = float(np.linalg.norm(first.flow - second.flow, axis=2).mean())
    return apart / (both + 2 * _STILL)


def _fresh(sides: list[list[_Step]], join: _Step) -> float:
    """How large a step in time the join is, against the calmer side; 1 in a still scene."""
    usual = min((median(step.change for step in side) for side in sides), default=0.0)
    speed = min((median(step.speed for step in side) for side in sides), default=0.0)
    if speed < _STILL:
        return 1.0
    return _ramp(join.change / max(usual, 1e-6), _STEP)


def _notes(parts: dict[str, float]) -> list[str]:
    said = {
        "match": "The picture jumps: what is shown after the join does not follow from before.",
        "colour": "The colours or the brightness jump at the join.",
        "motion": "The motion breaks: things move otherwise after the join than before.",
        "fresh": "A frame is held or shown twice at the join.",
    }
    return [note for name, note in said.items() if parts[name] < _WORTH_A_NOTE]


def _grey(frame: Frame) -> Frame:
    return np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), dtype=np.uint8)


def _mean_lab(frame: Frame) -> npt.NDArray[np.float64]:
    """Mean L, a and b: [3]."""
    small = shrunk(frame, FLOW_SIDE).astype(np.float32) / 255
    lab = np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2LAB), dtype=np.float64)
    return np.asarray(lab.mean(axis=(0, 1)), dtype=np.float64)


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """0 up to the first end, 1 from the second on, straight between."""
    low, high = ends
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _decay(value: float, free: float, scale: float) -> float:
    """1 up to `free`, then falling by the factor e every `scale`."""
    return math.exp(-max(0.0, value - free) / scale)
