"""Which exact fraction does a frame rate mean?"""

from __future__ import annotations

import math
from fractions import Fraction

from kinoloom.errors import InvalidRequest, Problem

MAX_FPS = 1000
"""Above this a rate is taken for a mistake; no display and no container needs it."""


def exact_rate(fps: float | Fraction) -> Fraction:
    """The frame rate as a fraction: 24 -> 24/1, 12.5 -> 25/2, 23.976 -> 24000/1001.

    Rates within 0.001 of n * 1000/1001 are the NTSC rates (SMPTE ST 12-1), which people round to
    two or three decimals; others become the nearest fraction with a denominator up to 1001.
    Raises InvalidRequest unless 0.01 <= fps <= 1000.
    """
    value = float(fps)
    if not math.isfinite(value) or not 0.01 <= value <= MAX_FPS:
        raise InvalidRequest([Problem("fps", value, f"a number from 0.01 to {MAX_FPS}")])
    whole = round(value)
    if abs(value - whole) < 1e-6:
        return Fraction(whole)
    ntsc = Fraction(round(value * 1001 / 1000) * 1000, 1001)
    # 29.97 is 30000/1001 to within 0.00003, while 29.9 is meant as it stands.
    if ntsc and abs(float(ntsc) - value) < 0.001:
        return ntsc
    return Fraction(value).limit_denominator(1001)
