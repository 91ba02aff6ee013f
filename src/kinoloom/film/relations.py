"""What in a storyboard does not go together, though each field alone may be as it is?"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from kinoloom.errors import nearest_names
from kinoloom.film.board import Storyboard
from kinoloom.film.shots import (
    cast_of,
    prompt_with,
    references_of,
    shot_frames,
    transition_frames,
    transition_into,
)
from kinoloom.request_checks import MAX_PROMPT, MAX_REFERENCES

Place = tuple[str | int, ...]
"""The keys that lead to a value, from the outermost: ("shots", 3, "duration")."""

Mistake = tuple[Place, object, str, object]
"""Where, the value there, what is allowed, and the nearest that is allowed or None."""


def mistakes(board: Storyboard, wrong: Collection[Place] = ()) -> Iterator[Mistake]:
    """Every contradiction among the fields of a storyboard.

    `wrong` are places of mistakes known already. What depends on a value there is not judged: it
    would be judged by a value that nobody meant.
    """
    known = {place[:length] for place in wrong for length in (len(place), 3)}

    def sure(*places: Place) -> bool:
        """Whether none of these places, nor a part around one, is wrong."""
        return not any(place[:n] in known for place in places for n in range(len(place) + 1))

    yield from _names(board)
    if sure(("characters",)):
        yield from _unknown_characters(board)
    for index in range(len(board.shots)):
        around: list[Place] = [("shots", n) for n in (index - 1, index) if n >= 0]
        lengths: list[Place] = [*around, ("defaults",)]
        parts = [(*p, name) for p in lengths for name in ("duration", "frames", "transition")]
        if sure(("fps",), *parts):
            yield from _transition(board, index)
        yield from _cast(board, index)
        if sure(("mode",)):
            yield from _pictures(board, index)
            if index and board.mode == "keyframe" and sure(*parts):
                yield from _boundary(board, index)


def _names(board: Storyboard) -> Iterator[Mistake]:
    seen: dict[str, int] = {}
    for index, spec in enumerate(board.shots):
        # File systems that do not tell A from a would mix up the files of two shots.
        first = seen.setdefault(spec.id.lower(), index)
        if first != index:
            allowed = f"an id that no other shot has; shots[{first}] is called so"
            yield ("shots", index, "id"), spec.id, allowed, None


def _unknown_characters(board: Storyboard) -> Iterator[Mistake]:
    def unknown(names: tuple[str, ...] | None, *above: str | int) -> Iterator[Mistake]:
        for name in names or ():
            if name not in board.characters:
                known = ", ".join(board.characters) or "none is there yet"
                near = nearest_names(name, board.characters, count=1)
                allowed = f"characters that are defined: {known}"
                yield (*above, "characters"), name, allowed, near[0] if near else None

    yield from unknown(board.defaults.characters, "defaults")
    for index, spec in enumerate(board.shots):
        yield from unknown(spec.characters, "shots", index)


def _transition(board: Storyboard, index: int) -> Iterator[Mistake]:
    spec = board.shots[index]
    kind = transition_into(board, index).kind
    place: Place = ("shots", index, "transition")
    if kind == "cut":
        return
    if not index and kind == "crossfade":
        allowed = "cut or fade: before the first shot there is nothing to fade over from"
        yield place, kind, allowed, "fade"
        return
    around = [shot_frames(board, board.shots[n]) for n in (index - 1, index) if n >= 0]
    longest = min(around) // 2
    frames = transition_frames(board, index)
    if frames > longest:
        shown = f"{longest / board.fps:.3f}".rstrip("0").rstrip(".")
        allowed = (
            f"at most half of the shorter of the two shots, {longest} of its {min(around)} frames"
        )
        if spec.transition is None:
            allowed += "; this one is that of `defaults`"
        yield (*place, "duration"), transition_into(board, index).duration, allowed, shown
    elif not frames:
        allowed = f"at least one frame, which is {1 / board.fps:.3f} seconds, or a cut"
        yield (*place, "duration"), transition_into(board, index).duration, allowed, "cut"


def _cast(board: Storyboard, index: int) -> Iterator[Mistake]:
    spec = board.shots[index]
    cast = cast_of(board, spec)
    pictures = len(references_of(cast))
    if pictures > MAX_REFERENCES:
        allowed = f"characters with at most {MAX_REFERENCES} references together"
        yield ("shots", index, "characters"), f"{pictures} references", allowed, None
    length = len(prompt_with(cast, spec.prompt))
    if length > MAX_PROMPT:
        allowed = f"at most {MAX_PROMPT} characters together with what describes its characters"
        yield ("shots", index, "prompt"), f"{length} characters", allowed, None


def _pictures(board: Storyboard, index: int) -> Iterator[Mistake]:
    """In chaining a shot begins where the one before it ended, and its end is not known before."""
    spec = board.shots[index]
    place: Place = ("shots", index)
    chained = board.mode == "chaining"
    if chained and spec.end is not None:
        allowed = (
            "not given in the mode chaining, where nothing holds a shot to its end; `keyframe` of"
            " the next shot begins that one with a picture, and the mode keyframe holds both"
        )
        yield (*place, "end"), spec.end.name, allowed, None
    if chained and index and spec.start is not None:
        allowed = (
            "given for the first shot only, as others begin with the last frame before them;"
            " `keyframe` begins one with a picture instead"
        )
        yield (*place, "start"), spec.start.name, allowed, "keyframe"
    elif spec.start and spec.keyframe and spec.start != spec.keyframe:
        allowed = "the same picture as `start`, or left out: both are the shot's first frame"
        yield (*place, "keyframe"), spec.keyframe.name, allowed, None


def _boundary(board: Storyboard, index: int) -> Iterator[Mistake]:
    """At a cut two shots share a frame, so it cannot be two pictures."""
    before, spec = board.shots[index - 1], board.shots[index]
    start = spec.keyframe or spec.start
    if transition_into(board, index).kind != "cut" or not before.end or not start:
        return
    if before.end != start:
        allowed = (
            f"the picture that shots[{index - 1}] ends with, as a cut shares that frame;"
            " or a crossfade or fade between them"
        )
        name = "keyframe" if spec.keyframe else "start"
        yield ("shots", index, name), start.name, allowed, before.end.name
