"""How is a clip made again from what its own file says?

The settings in a file are as untrusted as the file: every value is checked like a user's, and an
input picture is used only when its content is the one the clip was made from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kinoloom.errors import InvalidMedia
from kinoloom.media.sequence import read_sequence_info
from kinoloom.media.settings import read_settings
from kinoloom.planner.inputs import file_digest
from kinoloom.request import VideoRequest

if TYPE_CHECKING:
    from kinoloom.store.store import Store

_TAKEN = ("model", "prompt", "negative", "frames", "fps", "steps", "guidance", "seed")
_PICTURES = ("image", "last_image", "references", "keyframes")
_ASKED = ("loras", "preset", "acceleration")
_REPLACES = {"duration": "frames", "tier": "steps"}


@dataclass(frozen=True)
class Remake:
    """A request that makes a clip again, and the key its plan has if nothing was changed."""

    request: VideoRequest
    key: str


def read_remake(path: Path, changes: Mapping[str, Any], store: Store) -> Remake:
    """The request for the clip in `path` with `changes`; what is None in them is not changed.

    Raises InvalidMedia for a file without Kinoloom's settings or whose inputs are gone, and
    InvalidRequest for values that cannot be used.
    """
    settings = read_settings(path)
    plan = settings.get("plan") if settings else None
    if not isinstance(plan, dict):
        raise InvalidMedia(
            f"{path} does not say how it was made.",
            cause="it holds no settings of Kinoloom's",
            hints=["only videos that Kinoloom made, and that no other program saved again, do"],
        )
    values = {name: plan.get(name) for name in _TAKEN}
    values["size"] = (plan.get("width"), plan.get("height"))
    asked = plan.get("request")
    if isinstance(asked, dict):
        values["tier"], values["format"] = asked.get("tier", "auto"), asked.get("format", "mp4")
        values |= {name: asked[name] for name in _ASKED if asked.get(name)}
    wanted = {name: value for name, value in changes.items() if value is not None}
    values |= _inputs(path, plan.get("inputs"), _kept(wanted), store)
    for new, old in _REPLACES.items():
        if new in wanted and old not in wanted:
            values.pop(old)
    # The context of a continued video is part of its frames, which the plan counts anew.
    return Remake(VideoRequest.checked(**(values | wanted)), str(plan.get("key", "")))


def _kept(wanted: Mapping[str, Any]) -> tuple[str, ...]:
    """The inputs that stay those of the clip: a new picture leaves the others, and no video."""
    if "video" in wanted:
        return ()
    pictures = tuple(name for name in _PICTURES if name not in wanted)
    films = () if {"image", "last_image"} & wanted.keys() else ("video", "mask")
    return (*pictures, *(name for name in films if name not in wanted))


def _inputs(path: Path, inputs: object, names: tuple[str, ...], store: Store) -> dict[str, Any]:
    """The pictures and video of a clip: from the store, else where they were, if unchanged."""
    found: dict[str, Any] = {}
    if not isinstance(inputs, dict):
        return found
    for name in names:
        entry = inputs.get(name)
        if isinstance(entry, dict):
            found[name] = _place(path, name, entry, store)
        elif isinstance(entry, list) and name == "references":
            found[name] = [_place(path, name, e, store) for e in entry if isinstance(e, dict)]
        elif isinstance(entry, list) and name == "keyframes":
            pairs = [(e.get("index"), e.get("image")) for e in entry if isinstance(e, dict)]
            found[name] = [
                (i, _place(path, name, e, store)) for i, e in pairs if isinstance(e, dict)
            ]
    return found


def _place(path: Path, name: str, entry: Mapping[str, Any], store: Store) -> Path:
    """Where an input of the clip in `path` is now; InvalidMedia when it is nowhere."""
    digest, place = str(entry.get("digest", "")), Path(str(entry.get("path", "")))
    try:
        return store.assets.path(digest)
    except InvalidMedia:
        if _holds(place, digest):
            return place
    option = name.removesuffix("s").replace("_", "-")
    raise InvalidMedia(
        f"The {name.replace('_', ' ')} that {path} was made from is not here any more.",
        cause=f"it was {place}",
        hints=[f"give it again with --{option} FILE"],
    )


def _holds(place: Path, digest: str) -> bool:
    """Whether a place has that content. A stranger's file may name any place of this machine, so
    nothing but a file and a PNG sequence is read: no device that never ends, no whole disk."""
    try:
        if not place.is_file():
            read_sequence_info(place)
        return file_digest(place) == digest
    except (OSError, ValueError, InvalidMedia):
        return False
