"""How long will a render take, and how well is that known?

The model of time: a clip's work is width x height x frames; a step takes one pass, or two with
guidance that the model was not taught; a pass takes seconds that depend on the work; everything
else (encoding the prompt, decoding, writing) is overhead. Measurements of this machine come first,
the card's figure, taken on another machine, only where there are none.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kinoloom.backends.base import Placement
from kinoloom.catalog.card import GuidanceRule, ModelCard
from kinoloom.request import Level

Origin = Literal["measured", "interpolated", "card", "unknown"]

_MEASURED_SPREAD = 1.15
_INTERPOLATED_SPREAD = 1.5
_EXTRAPOLATED_SPREAD = 2.0
_CARD_SPREAD = 3.0
"""Bounds of an estimate as a factor either way. A guess, except that the first is about what two
renders of one plan on a desktop machine differ by."""


@dataclass(frozen=True)
class Measurement:
    """What one render of this machine took.

    `seconds_per_step` is the mean over the steps; `overhead` the seconds of everything else. A
    first render that had to load the model should not be recorded with the loading in it.
    `placement`, `tiling` and `acceleration` are how it was rendered, `peak` the bytes of the device
    at its peak, where they are known.
    """

    model: str
    device: str
    width: int
    height: int
    frames: int
    guidance: float
    seconds_per_step: float
    overhead: float
    placement: Placement = "resident"
    tiling: bool = False
    acceleration: Level = "lossless"
    peak: int | None = None


Measurements = Sequence[Measurement] | Callable[[str, str], Sequence[Measurement]]
"""Measurements, or what gives those of a model id on a device."""


class Estimate(BaseModel):
    """Seconds of rendering with bounds, None when nothing is known; `basis` says from what."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    seconds: float | None
    low: float | None
    high: float | None
    source: Origin
    basis: str


@dataclass(frozen=True)
class _Pace:
    """Seconds of one pass and of the overhead at some amount of work."""

    per_pass: float
    overhead: float


def estimate(
    card: ModelCard,
    *,
    device: str,
    size: tuple[int, int],
    frames: int,
    steps: int,
    guidance: float,
    measurements: Measurements | None = None,
    placement: Placement = "resident",
    acceleration: Level = "lossless",
) -> Estimate:
    """How long a clip of this size (pixels), frame count and steps takes on a device.

    Only renders with the same placement and acceleration tell: a step that waits for its weights,
    or that a cache skips half of, has another pace.
    """
    work = size[0] * size[1] * frames
    passes = card.guidance.passes(guidance)
    known = measurements(card.id, device) if callable(measurements) else measurements or ()
    alike = (card.id, device, placement, acceleration)
    own = [
        m for m in known if (m.model, m.device, m.placement, m.acceleration) == alike and _sane(m)
    ]

    same = [
        m
        for m in own
        if (m.width, m.height, m.frames) == (*size, frames)
        and card.guidance.passes(m.guidance) == passes
    ]
    if same:
        pace = _middle(card.guidance, same)
        totals = [steps * m.seconds_per_step + m.overhead for m in same]
        seconds = steps * passes * pace.per_pass + pace.overhead
        return Estimate(
            seconds=seconds,
            low=min(*totals, seconds / _MEASURED_SPREAD),
            high=max(*totals, seconds * _MEASURED_SPREAD),
            source="measured",
            basis=f"{_renders(len(same))} of this size on this machine",
        )
    if own:
        pace, inside = _interpolated(card.guidance, own, work)
        basis = f"{_renders(len(own))} of other sizes on this machine"
        spread = _INTERPOLATED_SPREAD if inside else _EXTRAPOLATED_SPREAD
        return _spread(
            steps * passes * pace.per_pass + pace.overhead, spread, "interpolated", basis
        )
    if card.timing is not None:
        timing = card.timing
        ratio = work / math.prod(timing.at)
        per_pass = timing.seconds_per_step / card.guidance.passes(card.guidance.default)
        seconds = ratio * (steps * passes * per_pass + timing.overhead)
        basis = f"the model card, measured on {timing.machine} on {timing.date.isoformat()}"
        return _spread(seconds, _CARD_SPREAD, "card", basis)
    return Estimate(
        seconds=None, low=None, high=None, source="unknown", basis="not rendered here before"
    )


def estimate_elsewhere(seconds: Sequence[float]) -> Estimate:
    """How long a clip takes at a service, from the seconds that its last ones took."""
    if not seconds:
        basis = "not made there before"
        return Estimate(seconds=None, low=None, high=None, source="unknown", basis=basis)
    basis = f"the last {len(seconds)} there" if len(seconds) > 1 else "the last one there"
    return Estimate(
        seconds=median(seconds), low=min(seconds), high=max(seconds), source="measured", basis=basis
    )


def _sane(m: Measurement) -> bool:
    whole = m.width > 0 and m.height > 0 and m.frames > 0
    times = (m.seconds_per_step, m.overhead)
    return whole and all(math.isfinite(t) and t >= 0 for t in times) and m.seconds_per_step > 0


def _middle(rule: GuidanceRule, measurements: Sequence[Measurement]) -> _Pace:
    """The median pace: one render beside a heavy program must not spoil the estimate."""
    return _Pace(
        median(m.seconds_per_step / rule.passes(m.guidance) for m in measurements),
        median(m.overhead for m in measurements),
    )


def _interpolated(
    rule: GuidanceRule, measurements: Sequence[Measurement], work: int
) -> tuple[_Pace, bool]:
    """The pace at some work, and whether that lies within what was measured.

    Between two measured amounts a straight line in log-log space, which is exact for any power of
    the work; outside of them in proportion to the nearest.
    """
    groups: dict[int, list[Measurement]] = defaultdict(list)
    for m in measurements:
        groups[m.width * m.height * m.frames].append(m)
    points = {amount: _middle(rule, group) for amount, group in groups.items()}
    if work in points:
        return points[work], True
    smaller = [amount for amount in points if amount < work]
    larger = [amount for amount in points if amount > work]
    if not smaller or not larger:
        nearest = max(smaller) if smaller else min(larger)
        pace, ratio = points[nearest], work / nearest
        return _Pace(pace.per_pass * ratio, pace.overhead * ratio), False
    below, above = max(smaller), min(larger)
    share = math.log(work / below) / math.log(above / below)

    def between(low: float, high: float) -> float:
        if low <= 0 or high <= 0:  # no logarithm; an overhead may be nothing
            return low + (high - low) * share
        return math.exp(math.log(low) + (math.log(high) - math.log(low)) * share)

    a, b = points[below], points[above]
    return _Pace(between(a.per_pass, b.per_pass), between(a.overhead, b.overhead)), True


def _spread(seconds: float, factor: float, source: Origin, basis: str) -> Estimate:
    return Estimate(
        seconds=seconds, low=seconds / factor, high=seconds * factor, source=source, basis=basis
    )


def _renders(count: int) -> str:
    return "1 render" if count == 1 else f"{count} renders"
