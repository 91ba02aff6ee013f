"""Which storyboard does a client send, and how is one sent back?

The fields are those of a storyboard's file, but media are named by what the server can check: an
uploaded file by its digest. A path means nothing here and is refused. Every mistake is answered at
once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Annotated, Any

from fastapi import Depends
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from kinoloom import request_checks as check
from kinoloom.errors import InvalidMedia
from kinoloom.film.board import Storyboard
from kinoloom.film.storyboard import storyboard_of
from kinoloom.server.bodies import read_json
from kinoloom.server.deps import StoreDep
from kinoloom.server.schemas import DIGEST
from kinoloom.store.store import Store

_ALLOWED = 'an uploaded file: {"asset": "sha256:..."}, see POST /api/assets'
_FILES = frozenset({"references", "bed", "file", "start", "end", "keyframe"})
_DIGEST = re.compile(DIGEST)
_ASSET = re.compile(r"[/\\]([0-9a-f]{2})[/\\]([0-9a-f]{62})$")


def read_storyboard_body(data: Mapping[str, Any], store: Store) -> Storyboard:
    """The storyboard in a body; its media are files of the store.

    Raises InvalidRequest with every mistake at once.
    """

    def find(value: object) -> Path:
        digest = _digest(value)
        if digest is None:
            raise check.Wrong(_ALLOWED)
        try:
            return store.assets.path(digest)
        except InvalidMedia:
            raise check.Wrong("a file that was uploaded before (POST /api/assets)") from None

    return storyboard_of(data, media=find)


async def _board(request: Request, store: StoreDep) -> Storyboard:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise HTTPException(415, "Send application/json.")
    data = read_json(await request.body())
    return await run_in_threadpool(read_storyboard_body, data, store)


Board = Annotated[Storyboard, Depends(_board)]
"""The storyboard in a JSON body. Raises InvalidRequest with every mistake at once."""


def shown_storyboard(board: Mapping[str, Any]) -> dict[str, Any]:
    """A storyboard's JSON as a client may send it again: its files are those of the store by their
    digests, and any others are their bare names. What is not said is left out."""
    shown: dict[str, Any] = _shown("", board)
    return shown


def _shown(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        parts = {key: _shown(key, part) for key, part in value.items()}
        # An empty list of characters says that there are none in spite of the defaults.
        empty = {key for key, part in parts.items() if part == [] and key == "references"}
        return {k: p for k, p in parts.items() if p not in (None, "") and k not in empty}
    if isinstance(value, list | tuple):
        return [_shown(name, item) for item in value]
    return _named(value) if name in _FILES and value is not None else value


def _named(path: object) -> Any:
    found = _ASSET.search(str(path))
    return {"asset": f"sha256:{found[1]}{found[2]}"} if found else PurePath(str(path)).name


def _digest(value: object) -> str | None:
    """The digest that an object {"asset": digest}, or the digest alone, names."""
    if isinstance(value, Mapping) and set(value) == {"asset"}:
        value = value["asset"]
    return value if isinstance(value, str) and _DIGEST.fullmatch(value) else None
