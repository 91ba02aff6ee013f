"""Is each field of a storyboard something that it may hold?

One pass makes clean values of whatever was given and collects every mistake with its place. In a
file a value is the text that is written there, and its field says what that text means: ``12`` is
the number of a length and the words of a prompt.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, get_args

from kinoloom import request_checks as check
from kinoloom.errors import InvalidMedia, InvalidRequest, Problem, nearest_names
from kinoloom.film.board import (
    DEFAULT_TRANSITION,
    MAX_SHOTS,
    Mode,
    OnFailure,
    TransitionKind,
)
from kinoloom.film.relations import Mistake, Place
from kinoloom.media.localfile import check_file
from kinoloom.request import Tier

Media = Callable[[object], Path]
"""Finds the file that a value names. Raises `request_checks.Wrong` with what is allowed, or
InvalidMedia, when it names none."""

Take = Callable[["Fields", Place, Any], Any]
"""Makes a clean value of what was given at a place. Raises `request_checks.Wrong`."""

MAX_MISTAKES = 100
"""So many are listed; a file that has more of them is some other file, and each takes a while."""
MAX_CHARACTERS = 64
MAX_TITLE = 200
MAX_DESCRIPTION = 1000
MIN_GAIN, MAX_GAIN = -60.0, 24.0
MAX_TRANSITION = 30.0
MAX_FADE = 60.0

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_MAX_KEY = 64
_YES_NO = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class TooMany(Exception):
    """There are more mistakes than are listed."""


class Incomplete(Exception):
    """A part lacks what it cannot be without, and that was told."""


class Fields:
    """The fields of one storyboard as they are gone through.

    `written`: whether values are the text of a file. `mistakes` are those found so far.
    """

    def __init__(self, media: Media, *, written: bool) -> None:
        self._media = media
        self._written = written
        self.mistakes: list[Mistake] = []

    def section(
        self, place: Place, value: Any, fields: Mapping[str, Take], required: tuple[str, ...] = ()
    ) -> dict[str, Any]:
        """The clean fields of a mapping; what is empty is left out, as if it were not there."""
        if not isinstance(value, Mapping):
            raise check.Wrong("lines of `key: value` with the keys " + ", ".join(fields))
        clean: dict[str, Any] = {}
        for key, given in value.items():
            name = str(check.shown(key))
            take = fields.get(key) if isinstance(key, str) else None
            if take is None:
                near = nearest_names(name, fields, count=1) if len(name) <= _MAX_KEY else []
                allowed = "one of the fields " + ", ".join(fields)
                nearest = near[0] if near else None
                self.wrong((*place, name), check.shown(_short(given)), allowed, nearest)
            elif given is not None:
                self.entry(clean, key, (*place, key), given, take)
        for key in required:
            if value.get(key) is None:
                self.wrong((*place, key), None, "a value; this must be given")
        return clean

    def entry(self, clean: dict[str, Any], key: str, place: Place, given: Any, take: Take) -> None:
        """Put the clean value at its key, or tell of the mistake."""
        try:
            clean[key] = take(self, place, given)
        except Incomplete:
            pass
        except check.Wrong as wrong:
            self.wrong(place, check.shown(_short(given)), wrong.allowed, wrong.nearest)
        except InvalidMedia as error:
            allowed = f"a file that can be read. {error.message} {error.cause}".rstrip()
            self.wrong(place, check.shown(_short(given)), allowed)

    def media(self, value: Any) -> Path:
        """The file that a value names. Raises Wrong or InvalidMedia."""
        return self._media(value)

    def number(self, value: Any) -> Any:
        """What is written as a number as that number; anything else as it is."""
        if not self._written or not isinstance(value, str):
            return value
        try:
            return int(value[:80])
        except ValueError:
            pass
        try:
            return float(value[:80])
        except ValueError:
            return value

    def yes_or_no(self, value: Any) -> Any:
        """What is written as yes or no as true or false; anything else as it is."""
        if self._written and isinstance(value, str):
            return _YES_NO.get(value.lower(), value)
        return value

    def wrong(self, place: Place, value: Any, allowed: str, nearest: Any = None) -> None:
        """Note a mistake. Raises TooMany."""
        if len(self.mistakes) >= MAX_MISTAKES:
            raise TooMany
        self.mistakes.append((place, value, allowed, nearest))


def storyboard(fields: Fields, data: Any) -> dict[str, Any]:
    """The clean values of a whole storyboard, as `Storyboard` takes them.

    A shot with mistakes is there with what is right of it, so that others keep their place.
    """
    try:
        clean = fields.section((), data, _FILM, required=("shots",))
    except check.Wrong as wrong:
        raise InvalidRequest(
            [Problem("storyboard", check.shown(_short(data)), wrong.allowed)],
            message="This is no storyboard.",
        ) from None
    _only_one_length(fields, ("defaults",), clean.get("defaults", {}))
    for index, shot in enumerate(clean.get("shots", ())):
        _only_one_length(fields, ("shots", index), shot)
        shot.setdefault("id", f"shot-{index + 1:03d}")
    return clean


def _only_one_length(fields: Fields, place: Place, part: Mapping[str, Any]) -> None:
    if part.get("duration") is not None and part.get("frames") is not None:
        allowed = "either frames or duration, not both"
        fields.wrong((*place, "duration"), part["duration"], allowed)


def _plain(test: Callable[[Any], Any]) -> Take:
    return lambda fields, place, value: test(value)


def _number(test: Callable[[Any], Any]) -> Take:
    return lambda fields, place, value: test(fields.number(value))


def _yes_or_no(fields: Fields, place: Place, value: Any) -> bool:
    return check.yes_or_no(fields.yes_or_no(value))


def _file(fields: Fields, place: Place, value: Any) -> Path:
    return fields.media(value)


def _size(fields: Fields, place: Place, value: Any) -> tuple[int, int]:
    if isinstance(value, list | tuple):
        value = [fields.number(side) for side in value]
    return check.size(value)


def _text(most: int) -> Callable[[Any], str]:
    def test(value: Any) -> str:
        text = check.text(value)
        if not 1 <= len(text) <= most:
            raise check.Wrong(f"text of 1 to {most} characters; this has {len(text)}")
        return text

    return test


def _id(value: Any) -> str:
    if isinstance(value, str) and _ID.fullmatch(value):
        return value
    near = None
    if isinstance(value, str):
        near = re.sub(r"[^A-Za-z0-9._-]+", "-", value[:64]).strip("._-") or None
    raise check.Wrong("1 to 64 letters (a to z), digits, dots, _ and -", near)


def _part(known: Mapping[str, Take], required: tuple[str, ...] = ()) -> Take:
    return lambda fields, place, value: fields.section(place, value, known, required)


def _shot_audio(fields: Fields, place: Place, value: Any) -> dict[str, Any]:
    # An API names a file with a mapping too, of which `asset` is the key.
    if isinstance(value, Mapping) and "asset" not in value:
        clean = fields.section(place, value, _SHOT_AUDIO, required=("file",))
        if "file" not in clean:
            raise Incomplete
        return clean
    return {"file": fields.media(value)}


def _transition(fields: Fields, place: Place, value: Any) -> dict[str, Any]:
    """A word such as `crossfade`, or its kind and duration."""
    if isinstance(value, Mapping):
        clean = fields.section(place, value, _TRANSITION, required=("kind",))
        if "kind" not in clean:
            raise Incomplete
    else:
        clean = {"kind": check.choice(get_args(TransitionKind))(value)}
    kind, duration = clean.get("kind"), clean.get("duration")
    if kind == "cut" and duration:
        fields.wrong((*place, "duration"), duration, "not given for a cut, which takes no time")
        return {"kind": "cut"}
    if kind in ("crossfade", "fade") and duration is None:
        clean["duration"] = DEFAULT_TRANSITION
    return clean


def _files(fields: Fields, place: Place, value: Any) -> list[Path]:
    values = value if isinstance(value, list | tuple) else [value]
    if not 1 <= len(values) <= check.MAX_REFERENCES:
        raise check.Wrong(f"a list of 1 to {check.MAX_REFERENCES} pictures")
    clean: dict[str, Any] = {}
    for n, item in enumerate(values):
        fields.entry(clean, str(n), (*place, n), item, _file)
    return list(clean.values())


def _names(fields: Fields, place: Place, value: Any) -> list[str]:
    """The names of characters; one alone counts as a list of it."""
    values = [value] if isinstance(value, str) else value
    if not isinstance(values, list | tuple) or len(values) > MAX_CHARACTERS:
        raise check.Wrong(f"a list of at most {MAX_CHARACTERS} names of characters")
    return [check.name(item) for item in values]


def _characters(fields: Fields, place: Place, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping) or len(value) > MAX_CHARACTERS:
        raise check.Wrong(f"at most {MAX_CHARACTERS} names, each with {', '.join(_CHARACTER)}")
    clean: dict[str, Any] = {}
    for key, given in value.items():
        name = str(check.shown(key))
        where = (*place, name)
        try:
            name = check.name(key)
        except check.Wrong as wrong:
            fields.wrong(where, name, wrong.allowed)
            continue
        # One that is wrong is there all the same: shots that name it name no unknown one.
        clean[name] = {}
        if given is not None:
            fields.entry(clean, name, where, given, _part(_CHARACTER))
    return clean


def _shots(fields: Fields, place: Place, value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_SHOTS:
        raise check.Wrong(f"a list of 1 to {MAX_SHOTS} shots, each with a prompt")
    shots = []
    for index, given in enumerate(value):
        clean: dict[str, Any] = {}
        fields.entry(clean, "shot", (*place, index), given, _part(_SHOT, required=("prompt",)))
        shots.append(clean.get("shot", {}))
    return shots


def _short(value: Any) -> Any:
    """A value as a mistake shows it, without writing out a whole section."""
    if isinstance(value, Mapping):
        return "a mapping"
    return "a list" if isinstance(value, list | tuple) and len(value) > 4 else value


_DEFAULTS: Mapping[str, Take] = {
    "duration": _number(check.number(check.MIN_DURATION, check.MAX_DURATION, " seconds")),
    "frames": _number(check.whole(1, check.MAX_FRAMES)),
    "seed": _number(check.whole(0, check.MAX_SEED)),
    "negative": _plain(check.text),
    "model": _plain(check.name),
    "backend": _plain(check.name),
    "steps": _number(check.whole(0, check.MAX_STEPS)),
    "guidance": _number(check.number(0.0, check.MAX_GUIDANCE)),
    "tier": _plain(check.choice(get_args(Tier))),
    "characters": _names,
    "transition": _transition,
    "candidates": _number(check.whole(1, check.MAX_CANDIDATES)),
    "on_failure": _plain(check.choice(get_args(OnFailure))),
}
_SHOT: Mapping[str, Take] = {
    "id": _plain(_id),
    "title": _plain(_text(MAX_TITLE)),
    "prompt": _plain(_text(check.MAX_PROMPT)),
    **_DEFAULTS,
    "start": _file,
    "end": _file,
    "keyframe": _file,
    "audio": _shot_audio,
}
_CHARACTER: Mapping[str, Take] = {
    "references": _files,
    "description": _plain(_text(MAX_DESCRIPTION)),
    "trigger": _plain(_text(MAX_TITLE)),
}
_TRANSITION: Mapping[str, Take] = {
    "kind": _plain(check.choice(get_args(TransitionKind))),
    "duration": _number(check.number(0.0, MAX_TRANSITION, " seconds")),
}
_SHOT_AUDIO: Mapping[str, Take] = {
    "file": _file,
    "gain_db": _number(check.number(MIN_GAIN, MAX_GAIN)),
    "offset": _number(check.number(0.0, check.MAX_DURATION, " seconds")),
}
_FILM_AUDIO: Mapping[str, Take] = {
    "bed": _file,
    "gain_db": _number(check.number(MIN_GAIN, MAX_GAIN)),
    "fade": _number(check.number(0.0, MAX_FADE, " seconds")),
    "keep_shots": _yes_or_no,
}
_FILM: Mapping[str, Take] = {
    "title": _plain(_text(MAX_TITLE)),
    "mode": _plain(check.choice(get_args(Mode))),
    "model": _plain(check.name),
    "backend": _plain(check.name),
    "size": _size,
    "fps": _number(check.number(check.MIN_FPS, check.MAX_FPS)),
    "seed": _number(check.whole(0, check.MAX_SEED)),
    "budget": _plain(check.money),
    "keyframe_model": _plain(check.name),
    "on_failure": _plain(check.choice(get_args(OnFailure))),
    "defaults": _part(_DEFAULTS),
    "characters": _characters,
    "audio": _part(_FILM_AUDIO),
    "shots": _shots,
}


def local_media(folder: Path) -> Media:
    """Finds files by their path, relative to a folder; they are looked for, not opened."""

    def find(value: object) -> Path:
        text = check.path(value)
        # Resolved, so that two ways to one picture are one picture.
        return check_file(folder / Path(text).expanduser(), "file").resolve()

    return find


def no_media(value: object) -> Path:
    """Refuses every file: there is no place to look for one."""
    raise check.Wrong("not given here, where no file can be looked up")
