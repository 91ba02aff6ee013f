"""May another model's clip take the place of a film's segment?"""

from __future__ import annotations

from kinoloom.planner.plan import Plan

_SAME_SHAPE = 0.01
"""How much the ratio of width to height may differ: less is not seen when it is scaled."""


def differs(asked: Plan, other: Plan) -> str | None:
    """What keeps another plan's clip from being shown in place of what was asked; None: it may.

    The film shows certain frames of the clip, so it must have as many, as fast. Its size may be
    another one of the same shape: films are scaled when they are joined.
    """
    if other.frames != asked.frames:
        return f"it would make {other.frames} frames, not {asked.frames}"
    if other.fps != asked.fps:
        return f"it would make {other.fps:g} frames a second, not {asked.fps:g}"
    shape = asked.width / asked.height
    if abs(other.width / other.height - shape) > _SAME_SHAPE * shape:
        was = f"{asked.width}x{asked.height}"
        return f"it would make {other.width}x{other.height}, which is not of the shape of {was}"
    return None
