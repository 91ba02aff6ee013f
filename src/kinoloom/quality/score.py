"""How good does this clip look, from 0 to 1, and what is wrong with it?

Five scores, each 1 when good, and `overall`, their weighted geometric mean:

    overall = sharpness^0.25 * temporal^0.25 * flicker^0.20 * frozen^0.20 * colour^0.10

Geometric, because a clip is as bad as its worst side: noise must not buy back with sharpness what
it loses in steadiness, nor a frozen clip with steadiness what it lacks in motion. Each score counts
as at least 0.02, so that one total failure still leaves the others visible in `overall`.

A single frame has no time in it: the four scores of time are then neutral (1) and `overall` is the
sharpness alone. A scene that was meant to stand still cannot be told from a frozen clip by looking;
`overall` counts it as frozen, and a note says so.

The constants below were set on rendered clips whose one fault is known. Sound ones score 0.8 to 1.
A blur of 4 pixels, noise of 15 grey levels, flicker of 4 % and a frozen picture each lower
`overall` by 0.2 or more, a colour cast that creeps in by 0.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from itertools import groupby
from typing import Any

from kinoloom.media.frames import Frame
from kinoloom.media.rates import exact_rate
from kinoloom.quality.measures import Measures, measure

WEIGHTS = {"sharpness": 0.25, "temporal": 0.25, "flicker": 0.20, "frozen": 0.20, "colour": 0.10}
"""Exponents of the geometric mean; their sum is 1."""

_FLOOR = 0.02

# Blur effect: a sharp rendering has an acuity of 0.55 or more at any content, one blurred by 4
# pixels about 0.3, and below 0.15 no edge is left.
_ACUITY = (0.15, 0.55)
# Laplacian variance at which half of the fine detail counts as present: sharp clips have 30 to 400
# even when most of the picture is flat, a blur of 2 pixels brings them to 1 to 8.
_DETAIL = 8.0
# Share of the fine detail that does not move along: interpolation and occlusion alone cause up to
# 0.25, noise of 10 grey levels 0.65 and more.
_NOISE = (0.35, 0.90)
# Warp error in grey levels: up to 1.5 is the interpolation itself; noise of 10 levels has 7,
# flicker of 8 % has 19.
_WARP_FREE, _WARP_SCALE = 1.5, 6.0
# Share of lost pixels: uncovered background is a few per cent, unrelated frames lose half.
_LOST = (0.05, 0.40)
# Second difference of brightness in grey levels: real motion stays below 1, 4 % flicker has 19.
_JERK_FREE, _JERK_SCALE = 0.5, 5.0
# VBench's mean absolute difference: even fast motion stays below 0.15, random pictures have 0.25
# to 0.33.
_CHANGE = (0.15, 0.50)
# Lab distances. A step of 1 between frames is just noticeable. Over a clip a camera move or a
# growing object shifts the mean by up to 10; a colour cast that creeps in has 25.
_STEP_FREE, _STEP_SCALE = 1.0, 5.0
_DRIFT_FREE, _DRIFT_SCALE = 10.0, 12.0

_WORTH_A_NOTE = 0.5
_BLURRED = 0.35
"""Sharpness below which a note says so; soft clouds before a blue sky are rightly near 0.45."""
_LONG_FREEZE = 0.5
"""Seconds of standing still inside a moving clip that the viewer takes for a fault."""


@dataclass(frozen=True)
class Scores:
    """How good a clip looks; every figure from 0 to 1, 1 is good.

    sharpness: edges and fine detail, discounted by the share of it that is noise.
    temporal: things stay the same along their motion.
    colour: colours neither jump nor drift.
    flicker: brightness does not pump.
    frozen: the share of frames that differ from the one before.
    overall: their weighted geometric mean, see the module.
    notes: what is wrong, in plain words; empty when nothing is.
    """

    sharpness: float
    temporal: float
    colour: float
    flicker: float
    frozen: float
    overall: float
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """The scores, rounded to 4 digits, and the notes as JSON-ready data."""
        values = asdict(self)
        notes = values.pop("notes")
        return {name: round(value, 4) for name, value in values.items()} | {"notes": list(notes)}


def score(frames: Iterable[Frame], fps: float, expected: int | None = None) -> Scores:
    """Score uint8 RGB frames [T, H, W, 3], or any [H, W, 3] one by one, shown `fps` a second.

    Works from one frame on; needs no reference, and holds only two frames of an iterator, of which
    `expected` says about how many will come. Raises InvalidMedia when there are no frames or
    they are not RGB of one size, InvalidRequest when `fps` is not a frame rate.
    """
    rate = float(exact_rate(fps))
    return judge(measure(frames, expected), rate)


def judge(measured: Measures, fps: float) -> Scores:
    """The scores that follow from the measures of a clip."""
    values = {
        "sharpness": _sharpness(measured),
        "temporal": _temporal(measured),
        "colour": _colour(measured),
        "flicker": _flicker(measured),
        "frozen": _frozen(measured),
    }
    if measured.count == 1:
        overall = values["sharpness"]
    else:
        overall = math.prod(max(_FLOOR, values[name]) ** w for name, w in WEIGHTS.items())
    return Scores(**values, overall=overall, notes=tuple(_notes(measured, values, fps)))


def _sharpness(m: Measures) -> float:
    if m.acuity is None:
        return 0.0
    detail = m.detail / (m.detail + _DETAIL)
    return _ramp(m.acuity, _ACUITY) * detail * (1 - _ramp(m.noise or 0.0, _NOISE))


def _temporal(m: Measures) -> float:
    if m.warp_error is None or m.lost is None:
        return 1.0
    return _decay(m.warp_error, _WARP_FREE, _WARP_SCALE) * (1 - _ramp(m.lost, _LOST))


def _colour(m: Measures) -> float:
    if m.colour_step is None or m.colour_drift is None:
        return 1.0
    step = _decay(m.colour_step, _STEP_FREE, _STEP_SCALE)
    return step * _decay(m.colour_drift, _DRIFT_FREE, _DRIFT_SCALE)


def _flicker(m: Measures) -> float:
    jerk = 1.0 if m.luma_jerk is None else _decay(m.luma_jerk, _JERK_FREE, _JERK_SCALE)
    change = 1.0 if m.change is None else 1 - _ramp(m.change, _CHANGE)
    return jerk * change


def _frozen(m: Measures) -> float:
    return sum(m.moving) / len(m.moving) if m.moving else 1.0


def _ramp(value: float, ends: tuple[float, float]) -> float:
    """0 up to the first end, 1 from the second on, straight between."""
    low, high = ends
    return min(1.0, max(0.0, (value - low) / (high - low)))


def _decay(value: float, free: float, scale: float) -> float:
    """1 up to `free`, then falling by the factor e every `scale`."""
    return math.exp(-max(0.0, value - free) / scale)


def _notes(m: Measures, values: dict[str, float], fps: float) -> list[str]:
    notes = []
    if m.count == 1:
        notes.append("A single frame: only its sharpness was judged; the rest is neutral.")
    elif m.count == 2:
        notes.append("Two frames: brightness flicker needs three, only their difference counts.")
    if m.acuity is None:
        notes.append("The picture is empty: there is no edge in it.")
    elif m.noise is not None and _ramp(m.noise, _NOISE) > _WORTH_A_NOTE:
        notes.append(f"Noisy: {m.noise:.0%} of the fine detail changes from frame to frame.")
    elif values["sharpness"] < _BLURRED:
        notes.append("Blurred: edges are soft or there is little detail.")
    if values["temporal"] < _WORTH_A_NOTE:
        notes.append("Unsteady: things change their look as they move, or frames do not follow on.")
    if values["flicker"] < _WORTH_A_NOTE:
        notes.append("Flicker: the brightness jumps between frames.")
    if values["colour"] < _WORTH_A_NOTE:
        notes.append("Colours jump or drift over the clip.")
    notes += _standstill(m.moving, fps)
    return notes


def _standstill(moving: tuple[bool, ...], fps: float) -> list[str]:
    if not moving:
        return []
    if not any(moving):
        return [
            "Nothing moves. If a still scene was asked for, that is right, but overall counts it "
            "as frozen."
        ]
    start, best_start, best = 0, 0, 0
    for moves, group in groupby(moving):
        length = len(list(group))
        if not moves and length > best:
            best_start, best = start, length
        start += length
    if best / fps < _LONG_FREEZE:
        return []
    return [f"Stands still for {best / fps:.1f} s from second {best_start / fps:.1f} on."]
