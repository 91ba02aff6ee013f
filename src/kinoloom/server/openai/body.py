"""What does the body of a request hold: which values, which files?

The official client sends forms, with nested values as ``extra_params[seed]`` and lists as
``name[]``; others send JSON. Both become the same nested values here.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

from fastapi import Depends
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from kinoloom import request_checks as check
from kinoloom.errors import InvalidRequest, Problem
from kinoloom.server.bodies import read_json
from kinoloom.server.uploads import read_form

_MAX_DEPTH = 4
_NAME = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")
_KEY = re.compile(r"\[([^\[\]]*)\]")


@dataclass(frozen=True)
class Body:
    """The values of a request by name, JSON-like, and its files, open until the answer is sent."""

    values: Mapping[str, Any]
    files: Mapping[str, UploadFile] = field(default_factory=dict)


async def read_body(request: Request) -> AsyncIterator[Body]:
    """The body of a request, a form or JSON.

    Raises InvalidRequest for one that cannot be read, HTTPException 415 for another media type.
    """
    kind = request.headers.get("Content-Type", "").partition(";")[0].strip().lower()
    if kind in ("multipart/form-data", "application/x-www-form-urlencoded"):
        form = await read_form(request)
        try:
            items = form.multi_items()
            files = {name: value for name, value in items if isinstance(value, UploadFile)}
            values = _nested((name, value) for name, value in items if isinstance(value, str))
            yield Body(values, files)
        finally:
            await form.close()
    elif kind == "application/json":
        yield Body(read_json(await request.body()))
    else:
        raise HTTPException(415, "Send multipart/form-data or application/json.")


Sent = Annotated[Body, Depends(read_body)]


def _nested(items: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """``a[b]=1`` as ``{"a": {"b": "1"}}``, ``a[]=1`` as ``{"a": ["1"]}``."""
    values: dict[str, Any] = {}
    for name, value in items:
        match = _NAME.fullmatch(name)
        keys = [match[1], *_KEY.findall(match[2])] if match else [name]
        several = len(keys) > 1 and keys[-1] == ""
        *outer, last = keys[:-1] if several else keys
        if len(keys) > _MAX_DEPTH or "" in (*outer, last):
            allowed = "a name such as extra_params[seed]"
            raise InvalidRequest([Problem(check.shown(name), check.shown(value), allowed)])
        into = values
        for key in outer:
            into = into.setdefault(key, {})
            if not isinstance(into, dict):
                raise _twice(name)
        if several and isinstance(into.setdefault(last, []), list):
            into[last].append(value)
        elif last in into:
            raise _twice(name)
        else:
            into[last] = value
    return values


def _twice(name: str) -> InvalidRequest:
    return InvalidRequest([Problem(check.shown(name), "...", "given once")])
