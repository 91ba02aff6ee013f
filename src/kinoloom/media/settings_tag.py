"""What do the settings of a video look like inside its file?

One JSON object whose `kinoloom` member is the version of this layout. Whatever is read back was
written by others until proven otherwise, so it is bounded in size and checked in shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

SCHEMA = 1
"""The version of the layout that this code writes."""

MAX_SETTINGS_BYTES = 1_000_000
"""Settings are a prompt and some numbers; a megabyte is far more than they ever need."""


def encode_settings(settings: Mapping[str, Any] | None) -> str:
    """The settings as one line of ASCII JSON tagged `{"kinoloom": 1, ...}`; "" for None.

    ASCII, because GIF comments are 7-bit by the specification and because every container then
    gives back exactly what was put in. Raises ValueError when they exceed `MAX_SETTINGS_BYTES`,
    TypeError when a value has no JSON form.
    """
    if settings is None:
        return ""
    text = json.dumps({"kinoloom": SCHEMA} | dict(settings), allow_nan=False)
    if len(text) > MAX_SETTINGS_BYTES:
        raise ValueError(f"the settings take {len(text)} bytes, allowed are {MAX_SETTINGS_BYTES}")
    return text


def decode_settings(text: str | None) -> dict[str, Any] | None:
    """The settings in `text`, or None when it holds none.

    None, never an error, for everything that Kinoloom did not write: no text, too long, not JSON,
    not an object, no integer tag >= 1. A stranger's comment does not make a video invalid.
    """
    if not text or len(text) > MAX_SETTINGS_BYTES:
        return None
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    if not isinstance(value, dict):
        return None
    tag = value.get("kinoloom")
    if isinstance(tag, bool) or not isinstance(tag, int) or tag < 1:
        return None
    return value


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
