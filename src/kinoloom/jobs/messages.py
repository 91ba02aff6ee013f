"""How do a process and the child that works for it speak?

In lines of JSON, one object each and pure ASCII, over the child's standard input and a private copy
of its standard output. The parent sends a command with a number, or asks for the command of a
number to stop; whatever the child says carries the number of the command that it is about.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from kinoloom.errors import InvalidRequest, KinoloomError, Problem, error_of

MAX_LINE = 8 * 2**20
"""Bytes of one line. Plans hold kilobytes, previews tens of them: a longer line is a mistake."""


def pack(message: Mapping[str, Any]) -> bytes:
    """A message as its line. Raises ValueError when it is longer than `MAX_LINE`."""
    line = json.dumps(message, separators=(",", ":"), allow_nan=False).encode("ascii") + b"\n"
    if len(line) > MAX_LINE:
        raise ValueError(f"a message of {len(line)} bytes; {MAX_LINE} are allowed")
    return line


def unpack(line: bytes) -> dict[str, Any]:
    """The message of a line. Raises ValueError when it is none: cut, too long, not an object."""
    if len(line) > MAX_LINE or not line.endswith(b"\n"):
        raise ValueError("a line that is too long or cut off")
    try:
        message = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ValueError("a line that is no JSON") from error
    if not isinstance(message, dict):
        raise ValueError("JSON that is no object")
    return message


def error_from(data: Mapping[str, Any]) -> KinoloomError:
    """The error that `KinoloomError.as_dict` described, as the class of its kind."""
    kind, message = str(data.get("kind")), str(data.get("message", ""))
    hints = [str(hint) for hint in data.get("hints", ())]
    if kind == InvalidRequest.kind:
        found = [
            Problem(str(p["field"]), p["value"], str(p["allowed"]), p["nearest"])
            for p in data.get("problems", ())
        ]
        error = InvalidRequest(found, message=message, hints=hints)
        error.cause = str(data.get("cause", ""))  # of a broken card, which has no such problems
        error.details = dict(data.get("details") or {})
        return error
    cause, details = str(data.get("cause", "")), data.get("details")
    return error_of(kind, message, cause=cause, hints=hints, details=details)
