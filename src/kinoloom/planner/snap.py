"""Which of the values that a model allows is nearest to the one asked for?

Every function here gives back an allowed value, gives an allowed value back unchanged, and never
passes over a nearer one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

from kinoloom.catalog.card import FpsRule, FrameRule, GuidanceRule, SizeRule

SHAPE_WEIGHT = 40.0
"""How much more a picture's shape counts than its sides: a clip of another size is scaled by its
viewer, a clip of another shape has lost or gained something. It is large enough for a size beyond
the bounds to keep its shape: of 1920x1080 within 1280 it makes 1280x720, not 1280x800."""


def size_distance(size: tuple[int, int], asked: tuple[int, int]) -> float:
    """How far a size is from the one asked for, in squared log units, its shape counting more."""
    x, y = math.log(size[0] / asked[0]), math.log(size[1] / asked[1])
    return x * x + y * y + SHAPE_WEIGHT * (x - y) ** 2


def snap_size(asked: tuple[int, int], rule: SizeRule) -> tuple[int, int]:
    """The allowed size (width, height) nearest to the one asked for."""
    if rule.only_native:
        return _nearest(rule.native, asked)
    width, height = asked
    lowest = math.ceil(rule.minimum / rule.multiple_of)
    highest = rule.maximum // rule.multiple_of
    candidates: list[tuple[int, int]] = []
    for n in range(lowest, highest + 1):
        w = n * rule.multiple_of
        # For a given width, the distance is a parabola in log(height): its lowest point lies
        # between two multiples, and the best allowed height is one of them.
        x = math.log(w / width)
        best = height * math.exp(x * SHAPE_WEIGHT / (1 + SHAPE_WEIGHT)) / rule.multiple_of
        heights = {min(max(m, lowest), highest) for m in (math.floor(best), math.ceil(best))}
        candidates.extend((w, m * rule.multiple_of) for m in heights)
    return _nearest(candidates, asked)


def size_by_shape(shape: tuple[int, int], rule: SizeRule) -> tuple[int, int]:
    """The native size whose shape is nearest to a picture's; among equals the default."""

    def distance(size: tuple[int, int]) -> tuple[float, bool, int]:
        ratio = math.log(size[0] / size[1]) - math.log(shape[0] / shape[1])
        return round(abs(ratio), 9), size != rule.default, size[0] * size[1]

    return min(rule.native, key=distance)


def snap_frames(asked: int, rule: FrameRule, at_least: int = 1) -> int:
    """The allowed frame count nearest to the one asked for; of two equally near the longer one.

    `at_least` raises the rule's minimum for tasks that need more, such as a first and a last
    frame; it must not be above the rule's maximum.
    """
    lowest = smallest_frames(rule, at_least)
    wanted = min(max(asked, lowest), rule.maximum)
    below = lowest + (wanted - lowest) // rule.multiple * rule.multiple
    above = min(below + rule.multiple, rule.maximum)
    return above if above - wanted <= wanted - below else below


def smallest_frames(rule: FrameRule, at_least: int = 1) -> int:
    """The smallest allowed frame count that is not below `at_least`.

    Raises ValueError when the model makes none that long.
    """
    missing = max(0, at_least - rule.minimum)
    smallest = rule.minimum + math.ceil(missing / rule.multiple) * rule.multiple
    if smallest > rule.maximum:
        raise ValueError(f"the model makes at most {rule.maximum} frames, not {at_least}")
    return smallest


def frames_for(duration: float, fps: float) -> int:
    """How many frames play for a duration in seconds; at least one."""
    return max(1, round(duration * fps))


def context_for(available: int, wanted: int, rule: FrameRule) -> int:
    """How many last frames of a video the model is shown, at most `wanted`.

    It is a frame count of the model's own rule, since a model that compresses time reads whole
    groups; a video shorter than `wanted` gives the largest such count it holds. Raises ValueError
    for a video shorter than the smallest.
    """
    limit = min(available, wanted)
    if limit < rule.minimum:
        raise ValueError(f"the model continues at least {rule.minimum} frames")
    return rule.minimum + (limit - rule.minimum) // rule.multiple * rule.multiple


def snap_fps(asked: float, rule: FpsRule) -> float:
    """The nearest frame rate the model was trained for."""
    return min(max(asked, rule.minimum), rule.maximum)


def snap_guidance(asked: float, rule: GuidanceRule) -> float:
    """The nearest guidance the model takes."""
    return min(max(asked, rule.minimum), rule.maximum)


def cut_away(picture: tuple[int, int], size: tuple[int, int]) -> float:
    """The share (0 to 1) of a picture that is lost when it covers a size and is cut to it."""
    shape, wanted = picture[0] / picture[1], size[0] / size[1]
    return 1 - min(shape, wanted) / max(shape, wanted)


def _nearest(sizes: Iterable[tuple[int, int]], asked: tuple[int, int]) -> tuple[int, int]:
    # Rounded, so that two that are equally near do not depend on the last bit of a logarithm.
    return min(sizes, key=lambda s: (round(size_distance(s, asked), 12), s[0] * s[1], s[0]))
