"""By what are a shot, a clip of it and what that goes on from known again?

A take notes these, so that an edited storyboard tells what of it stays without anything being
planned or opened.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from kinoloom.film.board import ShotSpec, Storyboard
from kinoloom.film.making import Way
from kinoloom.film.shots import said

# Of no plan's frames: the consent of the user.
_CONSENT = {"fallback", "max_cost", "unknown_price"}


def spec_of(board: Storyboard, spec: ShotSpec, way: Way) -> str:
    """The hash of what the storyboard says of a shot that a take belongs to: words and pictures.

    Its place, length and effort are not among it: a take that was chosen outlives their change.
    """
    shot = way.shot
    seed = said(board, spec, "seed")
    content = {
        "prompt": shot.prompt,
        "negative": shot.negative,
        "seed": seed if seed is not None else ["film", board.seed],
        "model": shot.model,
        "backend": shot.backend,
        "pictures": [str(path) for path in (spec.start, spec.end, spec.keyframe)],
        "references": [str(path) for path in shot.references],
    }
    text = json.dumps(content, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii", "backslashreplace")).hexdigest()


def how(way: Way, number: int) -> str:
    """The hash of what a segment is asked for, but for its words, its seed and what is made for it.

    A user's picture counts by its name.
    """
    shot, first, last = way.shot, number == 0, number == len(way.segments) - 1
    asked = way.request(
        number,
        seed=0,
        prompt="-",
        start=(shot.start if first and way.start == "given" else None) or Path("made"),
        end=(shot.end if last and way.end == "given" else None) or Path("made"),
    )
    return hashlib.sha256(asked.model_dump_json(exclude=_CONSENT).encode()).hexdigest()[:32]


def after(way: Way, clip: str, following: Way) -> str:
    """What a shot goes on from: the clip before it, and which frames of it."""
    return f"{clip} {way.segments[-1].end} {following.context(0)}"
