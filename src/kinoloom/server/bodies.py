"""Which fields and files are in the body of a request?

JSON and forms end as the same thing, a mapping of fields in which a file that came along is an
uploaded one: ``{"asset": "sha256:..."}``. What the fields mean is checked elsewhere.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import Annotated, Any, NoReturn

from fastapi import Depends
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from kinoloom import request_checks as check
from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest, Problem
from kinoloom.server.deps import SettingsDep, StoreDep
from kinoloom.server.uploads import Kind, read_form, receive
from kinoloom.store.store import Store

KINDS: Mapping[str, Kind] = {
    "image": "image",
    "last_image": "image",
    "video": "video",
    "mask": "any",
    "references": "image",
    "keyframes": "image",
}
"""The media of a request by their fields, and what each of these takes."""

REQUEST_PART = "request"
"""The part of a form that holds all fields as JSON, in place of a part for each."""

_KEYFRAME = re.compile(r"keyframes\[(\d{1,7})\]")
_SEVERAL = frozenset({"references", "keyframes", "loras"})


async def _fields(request: Request, store: StoreDep, settings: SettingsDep) -> dict[str, Any]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "application/json":
        return read_json(await request.body())
    if kind != "multipart/form-data":
        raise HTTPException(415, "Send application/json or multipart/form-data.")
    form = await read_form(request)
    try:
        return await run_in_threadpool(form_fields, form, store, settings)
    finally:
        await form.close()


Fields = Annotated[dict[str, Any], Depends(_fields)]
"""The fields of a JSON body or a form, its files kept already. Raises InvalidRequest for what
cannot be read, InvalidMedia and TooLarge for a file that is not taken."""


def read_json(body: bytes | str) -> dict[str, Any]:
    """The object in a JSON body. Raises InvalidRequest when there is none."""
    try:
        value = json.loads(body, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        # ValueError is also no UTF-8, and a number of more digits than Python reads.
        deep = isinstance(error, RecursionError)
        reason = "it is nested too deeply" if deep else check.shown(str(error))
        raise InvalidRequest([Problem("body", "...", f"valid JSON ({reason})")]) from error
    if not isinstance(value, dict):
        raise InvalidRequest([Problem("body", check.shown(value), "a JSON object")])
    return value


def form_fields(form: FormData, store: Store, settings: Settings) -> dict[str, Any]:
    """The fields of a form as JSON would have them; its files are put into the store.

    Numbers and switches come as text and are read as what their field is; what cannot be read
    stays text, which the check of the field refuses. Raises InvalidRequest, InvalidMedia, TooLarge.
    """
    texts: dict[str, list[str]] = defaultdict(list)
    files: list[tuple[str, UploadFile]] = []
    for name, value in form.multi_items():
        if isinstance(value, str):
            texts[name].append(value)
        elif value.filename or value.size:  # else a field of a page in which no file was chosen
            files.append((name, value))
    fields = _from_part(texts) if REQUEST_PART in texts else _from_texts(texts)
    problems = [
        Problem(check.shown(name), "a file", "one of the files " + ", ".join(KINDS))
        for name, _ in files
        if _base(name) not in KINDS
    ]
    if problems:
        raise InvalidRequest(problems)
    for name, upload in files:
        kept = receive(upload, name, KINDS[_base(name)], store=store, settings=settings)
        _put(fields, name, {"asset": kept.digest})
    return fields


def _from_part(texts: Mapping[str, list[str]]) -> dict[str, Any]:
    """The fields in the part `request`."""
    others = sorted(set(texts) - {REQUEST_PART})
    if others or len(texts[REQUEST_PART]) > 1:
        allowed = f"nothing but files beside one part {REQUEST_PART!r}, which holds all fields"
        names = ", ".join(map(str, map(check.shown, others))) or REQUEST_PART
        raise InvalidRequest([Problem("body", names, allowed)])
    return read_json(texts[REQUEST_PART][0])


def _from_texts(texts: Mapping[str, list[str]]) -> dict[str, Any]:
    """The fields that are parts of their own; an empty one counts as not given."""
    fields: dict[str, Any] = {}
    problems = []
    for name, values in texts.items():
        given = [value for value in values if value]
        if not given:
            continue
        if _base(name) in _SEVERAL:
            for value in given:
                _put(fields, name, value)
        elif len(given) > 1:
            problems.append(Problem(check.shown(name), f"{len(given)} values", "one value"))
        else:
            read = _READ.get(name, str)
            try:
                fields[name] = read(given[0])
            except (ValueError, KeyError):
                fields[name] = given[0]
    if problems:
        raise InvalidRequest(problems)
    return fields


def _put(fields: dict[str, Any], name: str, value: Any) -> None:
    """Add a value under its name, of which `references` and the like may have several."""
    base = _base(name)
    if base not in _SEVERAL:
        fields[name] = value
        return
    if isinstance(value, str) and name == "keyframes":  # FRAME=REFERENCE
        frame, _, value = value.partition("=")
        value = [_number(frame), value]
    elif base == "keyframes":
        found = _KEYFRAME.fullmatch(name)
        value = [int(found[1]) if found else None, value]
    several = fields.setdefault(base, [])
    if not isinstance(several, list):
        raise InvalidRequest([Problem(base, check.shown(several), "a list")])
    several.append(value)


def _base(name: str) -> str:
    return "keyframes" if _KEYFRAME.fullmatch(name) else name


def _number(text: str) -> Any:
    return int(text) if text.isdecimal() and len(text) < 8 else text


_SWITCHES = {"true": True, "false": False, "1": True, "0": False, "on": True, "off": False}
_READ: Mapping[str, Callable[[str], Any]] = {
    **dict.fromkeys(("frames", "steps", "seed", "candidates", "priority"), int),
    **dict.fromkeys(("duration", "fps", "guidance", "timeout"), float),
    "hold": lambda text: _SWITCHES[text.strip().lower()],
}


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
