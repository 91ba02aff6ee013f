"""What exactly is each shot of a storyboard: which frames, which words, from which pictures?

What a shot says counts before the film's `defaults`, and these before the film's own `model` and
`backend`. Frames are the clock: a length in seconds becomes a number of frames once, here.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

from kinoloom.film.board import (
    DEFAULT_DURATION,
    Character,
    OnFailure,
    ShotAudio,
    ShotSpec,
    Storyboard,
    Transition,
)
from kinoloom.media.rates import exact_rate
from kinoloom.request import Tier
from kinoloom.request_checks import MAX_SEED


@dataclass(frozen=True)
class Shot:
    """A shot with nothing left to inherit.

    Fields:
        index, id: its place, from 0, and its name, unique in the film.
        prompt, negative: the words, with those of its characters before them.
        frames, fps, size: how long and how large; size is None where the model is to decide.
        seed: None where neither the shot nor the film has one.
        model, backend, steps, guidance, tier, candidates: as in `VideoRequest`.
        on_failure: what happens when it cannot be made.
        max_cost: the film's budget, out of which another backend may be paid for it.
        start, end: the pictures at its first and its last frame, where they are given. At a cut in
            the mode `keyframe` the end of a shot is the start of the next, whichever names it.
        references: the pictures of its characters, each once.
        transition: from the shot before into this one; a cut for the first, unless it fades in.
        overlap: frames of a crossfade, which both shots show.
        audio, title: its sound, and the name of its chapter.
    """

    index: int
    id: str
    prompt: str
    negative: str | None
    frames: int
    fps: float
    size: tuple[int, int] | None
    seed: int | None
    model: str | None
    backend: str | None
    steps: int | None
    guidance: float | None
    tier: Tier
    candidates: int
    on_failure: OnFailure
    max_cost: Decimal | None
    start: Path | None
    end: Path | None
    references: tuple[Path, ...]
    transition: Transition
    overlap: int
    audio: ShotAudio | None
    title: str | None


def shots_of(board: Storyboard) -> tuple[Shot, ...]:
    """The shots of a storyboard that was checked, in their order."""
    ends = [_end(board, index) for index in range(len(board.shots))]
    return tuple(_shot(board, index, spec, ends[index]) for index, spec in enumerate(board.shots))


def film_frames(shots: Iterable[Shot]) -> int:
    """How many frames the film has: those of its shots, each crossfade's counted once."""
    return sum(shot.frames - shot.overlap for shot in shots)


def frames_in(seconds: float, fps: float) -> int:
    """How many frames play in that many seconds: to the nearest, of two equally near the more.

    `seconds` and `fps` count as the decimals that they are written as, and 23.976 as 24000/1001.
    """
    return math.floor(Fraction(str(seconds)) * exact_rate(fps) + Fraction(1, 2))


def said(board: Storyboard, spec: ShotSpec, name: str) -> Any:
    """What counts for a shot in one of the fields of `ShotDefaults`; None where nobody says it."""
    own = getattr(spec, name)
    if own is None:
        own = getattr(board.defaults, name)
    if own is None and name in ("model", "backend", "on_failure"):
        own = getattr(board, name)
    return own


def shot_frames(board: Storyboard, spec: ShotSpec) -> int:
    """The frames of a shot, at least one: its own length, else that of the defaults."""
    for part in (spec, board.defaults):
        if part.frames is not None:
            return part.frames
        if part.duration is not None:
            return max(1, frames_in(part.duration, board.fps))
    return frames_in(DEFAULT_DURATION, board.fps)


def transition_into(board: Storyboard, index: int) -> Transition:
    """How a shot begins: the defaults say how shots follow each other, not how the film opens."""
    spec = board.shots[index]
    own = said(board, spec, "transition") if index else spec.transition
    return own or Transition()


def transition_frames(board: Storyboard, index: int) -> int:
    """How many frames the transition into a shot takes; a cut takes none."""
    return frames_in(transition_into(board, index).duration, board.fps)


def cast_of(board: Storyboard, spec: ShotSpec) -> list[Character]:
    """The characters of a shot that are defined, each once."""
    names = dict.fromkeys(said(board, spec, "characters") or ())
    return [board.characters[name] for name in names if name in board.characters]


def references_of(cast: Sequence[Character]) -> tuple[Path, ...]:
    """The pictures of several characters, each once."""
    return tuple(dict.fromkeys(path for character in cast for path in character.references))


def prompt_with(cast: Sequence[Character], prompt: str) -> str:
    """A prompt behind the triggers and descriptions of its characters.

    What it says already is not said again.
    """
    known = prompt.casefold()
    words: list[str] = []
    for character in cast:
        for part in (character.trigger, character.description):
            if part and part.casefold() not in known:
                words.append(_ended(part))
                known += "\n" + part.casefold()
    return " ".join([*words, prompt])


def _shot(board: Storyboard, index: int, spec: ShotSpec, end: Path | None) -> Shot:
    cast = cast_of(board, spec)
    transition = transition_into(board, index)
    start = spec.keyframe or spec.start
    if start is None and index and transition.kind == "cut" and board.mode == "keyframe":
        start = board.shots[index - 1].end
    seed = said(board, spec, "seed")
    if seed is None and board.seed is not None:
        seed = (board.seed + index) % (MAX_SEED + 1)
    return Shot(
        index=index,
        id=spec.id,
        prompt=prompt_with(cast, spec.prompt),
        negative=said(board, spec, "negative"),
        frames=shot_frames(board, spec),
        fps=board.fps,
        size=board.size,
        seed=seed,
        model=said(board, spec, "model"),
        backend=said(board, spec, "backend"),
        steps=said(board, spec, "steps"),
        guidance=said(board, spec, "guidance"),
        tier=said(board, spec, "tier") or "auto",
        candidates=said(board, spec, "candidates") or 1,
        on_failure=said(board, spec, "on_failure"),
        max_cost=board.budget,
        start=start,
        end=end,
        references=references_of(cast),
        transition=transition,
        overlap=transition_frames(board, index) if transition.kind == "crossfade" else 0,
        audio=spec.audio,
        title=spec.title,
    )


def _end(board: Storyboard, index: int) -> Path | None:
    """The picture at the end of a shot: its own, or at a cut the one that the next starts with."""
    own = board.shots[index].end
    if own is not None or board.mode != "keyframe" or index + 1 == len(board.shots):
        return own
    if transition_into(board, index + 1).kind != "cut":
        return None
    after = board.shots[index + 1]
    return after.keyframe or after.start


def _ended(words: str) -> str:
    """Words that end as a sentence does, in any writing."""
    return words if unicodedata.category(words[-1]).startswith("P") else words + "."
