"""How is a kept file sent, whole or a part of it?

A player asks for ranges of a video, a browser for what has changed. Everything that the server
sends from the store goes through `send`, whether the file lies in a folder or in a bucket, so that
both get the same answers (RFC 9110: sections 13 on conditions and 14 on ranges).
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from kinoloom.errors import Conflict, InvalidMedia, NotFound
from kinoloom.store.clips import ClipRecord
from kinoloom.store.store import Store

MEDIA_TYPES = {
    "mp4": "video/mp4",
    "webm": "video/webm",
    "gif": "image/gif",
    "png": "image/png",
    "jpg": "image/jpeg",
}
"""The media type of each format that a clip or a picture of it has."""

_CHUNK = 64 * 1024
# The settings are a page of text, but the index of a long MP4 comes before them.
_SETTINGS_WITHIN = 4 * 1024**2
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")


@dataclass(frozen=True)
class Content:
    """Bytes that can be sent: how many, of which type, and how to read those from `start` up to
    but without `end`. `tag` changes when the bytes do."""

    size: int
    media_type: str
    tag: str
    read: Callable[[int, int], Iterator[bytes]]


def clip_content(store: Store, clip: ClipRecord) -> Content:
    """The video of a clip.

    Raises NotFound when its file is gone or another one lies in its place, Conflict for a PNG
    sequence, which is a folder.
    """
    media_type = MEDIA_TYPES.get(clip.format, "application/octet-stream")
    if clip.asset is not None:
        try:
            return asset_content(store, clip.asset, media_type)
        except NotFound:
            if not clip.path.is_absolute():
                raise
    if clip.path.is_dir():
        raise Conflict(
            f"The clip {clip.id} is a folder of pictures, which cannot be sent as one file.",
            cause="it was made with the format png",
            hints=["Make it again as mp4, webm or gif.", f"Copy the folder {clip.path.name}."],
        )
    try:
        status = clip.path.stat()
    except OSError as error:
        raise _gone(f"The video of clip {clip.id}") from error
    if not _says(clip.path, clip.id, status.st_size, status.st_mtime_ns):
        raise _gone(f"The video of clip {clip.id}")
    tag = f"{clip.id}-{status.st_size:x}-{status.st_mtime_ns:x}"
    return Content(status.st_size, media_type, tag, partial(_read, clip.path))


def asset_content(store: Store, digest: str, media_type: str) -> Content:
    """A file of the store. Raises NotFound when it is not there any more."""
    try:
        size = store.assets.size(digest)
    except InvalidMedia as error:
        raise _gone("The file") from error
    return Content(
        size, media_type, digest.removeprefix("sha256:"), partial(store.assets.open_range, digest)
    )


def send(request: Request, content: Content, *, name: str, attachment: bool = False) -> Response:
    """The answer to a GET or HEAD for `content`: all of it, the one range asked for, or nothing
    new.

    `name` is the file name that a browser suggests; it must be plain ASCII without quotes. Several
    ranges at once are answered with everything, as RFC 9110 allows. Raises HTTPException 416 for a
    range that lies outside.
    """
    tag = f'"{content.tag}"'
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",  # kept, but asked for: a clip may be deleted
        "Content-Disposition": f'{"attachment" if attachment else "inline"}; filename="{name}"',
        "ETag": tag,
    }
    if _names(request.headers.get("If-None-Match", ""), tag):
        return Response(status_code=304, headers=headers)
    start, end = 0, content.size
    wanted = _range(request, tag, content.size)
    if wanted is not None:
        start, end = wanted
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{content.size}"
    headers["Content-Length"] = str(end - start)
    status = 200 if wanted is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=content.media_type)
    return StreamingResponse(
        content.read(start, end), status, headers=headers, media_type=content.media_type
    )


def _range(request: Request, tag: str, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last that are asked for; None for everything."""
    header = request.headers.get("Range") if request.method == "GET" else None
    if header is None or request.headers.get("If-Range", tag) != tag:
        return None
    match = _RANGE.fullmatch(header.strip().replace(" ", ""))
    if match is None or match[1] == match[2] == "":
        return None  # several ranges, another unit, or none that can be read
    if match[1] == "":  # the last so many bytes
        start, end = max(0, size - int(match[2])), size
    else:
        start = int(match[1])
        if match[2] and int(match[2]) < start:
            return None
        end = min(size, int(match[2]) + 1) if match[2] else size
    if start >= end:
        raise HTTPException(
            416, f"The file has {size} bytes.", headers={"Content-Range": f"bytes */{size}"}
        )
    return start, end


def _names(header: str, tag: str) -> bool:
    """Whether a list of entity tags has this one, compared weakly as If-None-Match is."""
    tags = [part.strip().removeprefix("W/") for part in header.split(",")]
    return tag in tags or tags == ["*"]


def _read(path: Path, start: int, end: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start, os.SEEK_SET)
        left = end - start
        while left > 0 and (chunk := file.read(min(_CHUNK, left))):
            left -= len(chunk)
            yield chunk


@lru_cache(maxsize=1024)
def _says(path: Path, clip_id: str, size: int, changed: int) -> bool:
    """Whether a file says that it is the clip with that id: its settings, which every clip carries,
    hold it as text near the beginning or the end. Nothing is decoded. `size` and `changed` tell the
    answers for one path apart."""
    try:
        with path.open("rb") as file:
            parts = [file.read(_SETTINGS_WITHIN)]
            if size > _SETTINGS_WITHIN:
                file.seek(max(_SETTINGS_WITHIN, size - _SETTINGS_WITHIN))
                parts.append(file.read(_SETTINGS_WITHIN))
    except OSError:
        return False
    return any(clip_id.encode() in part for part in parts)


def _gone(what: str) -> NotFound:
    return NotFound(
        f"{what} is not there any more.",
        cause="it was moved or deleted after it was made",
        hints=["Make it again: the job's plan says how."],
    )
