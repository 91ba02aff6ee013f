"""What do the parameters of OpenAI's API mean in Kinoloom's words?

Only names and types are settled here, since forms say everything as text; the values are checked
like those of ``/api/clips``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any

from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest, Problem, nearest_names
from kinoloom.server.bodies import read_json
from kinoloom.server.clip_request import OPTIONS, ClipRequest, read_clip_request
from kinoloom.store.store import Store

DEFAULT = "default"
"""The model's name that stands for the one that the server's settings name."""


def _number(value: Any) -> Any:
    """Text that reads as a number as that number."""
    if isinstance(value, str):
        text = value.strip()
        if re.fullmatch(r"[+-]?\d{1,20}", text):
            return int(text)
        if re.fullmatch(r"[+-]?(\d{1,20}\.?\d{0,20}|\.\d{1,20})", text):
            return float(text)
    return value


def _switch(value: Any) -> Any:
    return {"true": True, "false": False}.get(value, value) if isinstance(value, str) else value


def _same(value: Any) -> Any:
    return value


_Read = Callable[[Any], Any]
_THEIRS: Mapping[str, tuple[str, _Read]] = {
    "prompt": ("prompt", _same),
    "model": ("model", _same),
    "size": ("size", _same),
    "seconds": ("duration", _number),
    "num_frames": ("frames", _number),
    "fps": ("fps", _number),
    "num_inference_steps": ("steps", _number),
    "guidance_scale": ("guidance", _number),
    "seed": ("seed", _number),
    "negative_prompt": ("negative", _same),
}
"""Kinoloom's field for each parameter of the API, and how its value is read."""

_OURS: Mapping[_Read, tuple[str, ...]] = {
    _same: (
        "backend",
        "tier",
        "preset",
        "acceleration",
        "cache",
        "format",
        "loras",
        "max_cost",
    ),
    _number: ("candidates", *(name for name in OPTIONS if name != "hold")),
    _switch: ("audio", "unknown_price", "fallback", "reword", "hold"),
}
"""What the API has no word for keeps Kinoloom's."""

_FIELDS = {**_THEIRS, **{n: (n, read) for read, names in _OURS.items() for n in names}}
_BACK = {ours: theirs for theirs, (ours, _) in _THEIRS.items()} | {"image": "input_reference"}
_SIDES = ("width", "height")
_EXTRA = "extra_params"
_LONGEST = 100


def fields_of(
    values: Mapping[str, Any], files: Collection[str] = (), *, media: tuple[str, ...] = ()
) -> dict[str, Any]:
    """The fields of `clip_request.read_clip_request` that these parameters mean.

    `extra_params` holds more of them; one beside it counts more. `media` are the parameters that
    the route reads itself, which may also be `files`. Raises InvalidRequest for a parameter or file
    that there is not.
    """
    if others := [name for name in files if name not in media]:
        allowed = f"a file in {' or '.join(media) or 'no parameter of this route'}"
        raise InvalidRequest([Problem(_shown(name), "a file", allowed) for name in others])
    extra = values.get(_EXTRA) or {}
    if isinstance(extra, str):  # which is how a form says an object where nobody tells it otherwise
        with suppress(InvalidRequest):
            extra = read_json(extra)
    if not isinstance(extra, Mapping):
        raise InvalidRequest([Problem(_EXTRA, _shown(extra), "an object of names and values")])
    given = {
        name: value
        for name, value in {**extra, **values}.items()
        # A form cannot say null; an empty prompt is something to complain about.
        if name not in (_EXTRA, *media) and (value not in (None, "") or name == "prompt")
    }
    known = (*_FIELDS, *_SIDES)
    if unknown := [name for name in given if name not in known]:
        raise InvalidRequest([_unknown(name, given[name], known) for name in unknown])
    fields = _size(given)
    for name, (ours, read) in _FIELDS.items():
        if name in given:
            fields[ours] = read(given[name])
    if fields.get("model") == DEFAULT:
        del fields["model"]
    return fields


def read_request(fields: Mapping[str, Any], store: Store, settings: Settings) -> ClipRequest:
    """The checked request with these fields. Raises as `read_clip_request`, in the API's words."""
    try:
        return read_clip_request(fields, store, settings)
    except InvalidRequest as error:
        raise in_their_words(error) from error


def in_their_words(error: InvalidRequest) -> InvalidRequest:
    """The same mistakes, each with the name that its field has in the API."""
    problems = [replace(p, field=_BACK.get(p.field, p.field)) for p in error.problems]
    return InvalidRequest(problems, message=error.message, hints=error.hints)


def _size(given: Mapping[str, Any]) -> dict[str, Any]:
    """The size from width and height, where they are given; both or neither."""
    sides = {name: _number(given[name]) for name in _SIDES if name in given}
    if not sides:
        return {}
    if len(sides) < len(_SIDES) or "size" in given:
        allowed = "width and height together, or size alone"
        raise InvalidRequest([Problem(name, _shown(v), allowed) for name, v in sides.items()])
    return {"size": list(sides.values())}


def _unknown(name: str, value: Any, known: tuple[str, ...]) -> Problem:
    near = nearest_names(name[:_LONGEST], known, count=1)
    allowed = "one of the parameters " + ", ".join(known)
    return Problem(name[:_LONGEST], _shown(value), allowed, near[0] if near else None)


def _shown(value: Any) -> str:
    return str(value)[:_LONGEST]
