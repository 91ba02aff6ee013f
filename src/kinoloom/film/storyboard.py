"""How does a file, or data that was sent, become a storyboard, and what is wrong with it?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from kinoloom import config_file
from kinoloom.config_file import Written
from kinoloom.errors import InvalidRequest, Problem
from kinoloom.film import fields as reading
from kinoloom.film import relations
from kinoloom.film.board import (
    Character,
    FilmAudio,
    ShotAudio,
    ShotDefaults,
    ShotSpec,
    Storyboard,
    Transition,
)
from kinoloom.film.fields import MAX_MISTAKES, Fields, Media, TooMany, local_media, no_media
from kinoloom.film.relations import Place

__all__ = [
    "Character",
    "FilmAudio",
    "ShotAudio",
    "ShotDefaults",
    "ShotSpec",
    "Storyboard",
    "Transition",
    "read_storyboard",
    "storyboard_of",
]

MAX_VALUES = 50_000
"""Values of a file: a thousand shots with every field have half of it."""

_HINT = "`kinoloom film new` writes a storyboard that explains every field."


def read_storyboard(file: Path) -> Storyboard:
    """The storyboard in a file of YAML or JSON; paths in it are relative to its folder.

    Raises InvalidRequest with every mistake at once (up to 100), each with its line: ``line 12:
    shots[3].duration``, where shots count from 0.
    """
    whole = Path(file).absolute()
    kind = config_file.Kind(
        name="storyboard",
        hint=_HINT,
        where=lambda keys, _, line: f"line {line}: {_dotted(keys)}",
        most_values=MAX_VALUES,
    )
    written, twice = config_file.read(whole, kind)
    lines = dict(_lines(written, ()))
    found = Fields(local_media(whole.parent), written=True)
    return _checked(found, _plain(written), lines, twice, f"The storyboard {file}")


def storyboard_of(
    data: Mapping[str, Any], *, folder: Path | None = None, media: Media | None = None
) -> Storyboard:
    """The storyboard in data such as an API's JSON.

    Pictures and sound are found by `media`, or as paths relative to `folder`; without either, a
    storyboard that names some is refused. Raises InvalidRequest with every mistake at once (up to
    100).
    """
    if media is None:
        media = no_media if folder is None else local_media(folder.absolute())
    return _checked(Fields(media, written=False), data, {}, [], "The storyboard")


def _checked(
    found: Fields, data: object, lines: Mapping[Place, int], twice: list[Problem], what: str
) -> Storyboard:
    with suppress(TooMany):
        board = Storyboard.model_validate(reading.storyboard(found, data))
        for mistake in relations.mistakes(board, [place for place, *_ in found.mistakes]):
            found.wrong(*mistake)
        if not found.mistakes and not twice:
            return board
    problems = list(twice)
    # Sorting keeps the order of those of one line, and of data without lines.
    for place, value, allowed, nearest in sorted(found.mistakes, key=lambda m: _line(m[0], lines)):
        line = f"line {_line(place, lines)}: " if lines else ""
        problems.append(Problem(line + _dotted(place), value, allowed, nearest))
    count = f"{len(problems)} mistake{'s' if len(problems) != 1 else ''}"
    if len(found.mistakes) >= MAX_MISTAKES:
        count = f"{MAX_MISTAKES} mistakes or more"
    raise InvalidRequest(problems, message=f"{what} has {count}.", hints=[_HINT])


def _plain(written: Written) -> Any:
    """What is written as text, lists and mappings."""
    if isinstance(written.value, dict):
        return {key: _plain(value) for key, value in written.value.items()}
    if isinstance(written.value, tuple):
        return [_plain(item) for item in written.value]
    return written.value


def _lines(written: Written, place: Place) -> Iterator[tuple[Place, int]]:
    """The line of each value, by its place."""
    yield place, written.line
    if isinstance(written.value, dict):
        for key, value in written.value.items():
            yield from _lines(value, (*place, key))
    elif isinstance(written.value, tuple):
        for n, item in enumerate(written.value):
            yield from _lines(item, (*place, n))


def _line(place: Place, lines: Mapping[Place, int]) -> int:
    """The line of a place, or of the nearest that is around it; 0 where there are no lines."""
    for length in range(len(place), -1, -1):
        if place[:length] in lines:
            return lines[place[:length]]
    return 0


def _dotted(place: Place) -> str:
    """A place as programmers write it: shots[3].duration."""
    text = ""
    for part in place:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text
