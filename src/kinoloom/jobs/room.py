"""Can a clip be written where the user wants it?"""

from __future__ import annotations

from pathlib import Path

from kinoloom.media.output import check_writable
from kinoloom.media.sequence import check_sequence_place
from kinoloom.planner.plan import Plan

_BITS_A_PIXEL = {"mp4": 2, "webm": 2, "gif": 6, "png": 12}
"""Generous bounds of what the encoders need, for the check of free space."""


def check_place(plan: Plan, path: Path) -> None:
    """Find out before the render whether the clip can be written to `path`. Raises OutputFailed."""
    pixels = plan.width * plan.height * plan.frames
    check = check_sequence_place if plan.request.format == "png" else check_writable
    check(path, pixels * _BITS_A_PIXEL[plan.request.format] // 8)
