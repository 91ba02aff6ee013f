"""How does a file that a client sends get into the store?

A body is counted while it arrives (`limits.BodyLimit`), its files are spooled to the disk, and here
each is kept under its content. The first bytes must be those of a picture, video or sound that
Kinoloom takes; no decoder runs in this process: what is inside is looked at in a child process,
when the request is planned. The name that a client gives its file is never used.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import Request

from kinoloom.config import Settings
from kinoloom.errors import InvalidMedia, InvalidRequest, Problem, TooLarge
from kinoloom.store.assets import Asset
from kinoloom.store.store import Store

Kind = Literal["image", "video", "any", "file"]
"""What a field takes: pictures, videos (moving GIFs among them), both of them, or sound too."""
Medium = Literal["image", "video", "audio"]

# A form may fill the memory with its text alone: the most is fields x bytes, 25 MiB.
_MAX_FILES = 20
_MAX_FIELDS = 100
_MAX_TEXT = 256 * 1024
_CHUNK = 1024**2
_HEAD = 64

_EBML = b"\x1a\x45\xdf\xa3"
# The brands of ISO base media files (MP4, QuickTime) with video; HEIC and AVIF are such files too,
# which nothing here reads.
_BRANDS = frozenset(
    b"isom iso2 iso3 iso4 iso5 iso6 iso7 iso8 iso9 mp41 mp42 mp71 avc1 hvc1 M4VH M4VP dash cmfc"
    b" MSNV 3gp4 3gp5 3gp6 3gp7".split()
) | {b"M4V ", b"qt  "}
# What QuickTime files without a brand begin with.
_ATOMS = frozenset({b"moov", b"mdat", b"wide", b"free", b"skip"})
_TAKEN = {
    "image": "a PNG, JPEG, WebP or GIF",
    "video": "an MP4, WebM, MOV, MKV, AVI or GIF",
    "any": "a picture (PNG, JPEG, WebP, GIF) or a video (MP4, WebM, MOV, MKV, AVI)",
    "file": "a picture (PNG, JPEG, WebP, GIF), a video (MP4, WebM, MOV, MKV, AVI) or sound (WAV,"
    " FLAC, MP3, M4A, OGG)",
}


def media_kind(head: bytes) -> tuple[Medium, str] | None:
    """Whether a file that begins with `head` (64 bytes will do) is a picture, a video or sound, and
    its format ("png", "mp4", "wav"); None for all that is not taken."""
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image", "png"
    if head.startswith(b"\xff\xd8\xff"):
        return "image", "jpeg"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "image", "gif"
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        return "image", "webp"
    if head.startswith(b"RIFF") and head[8:12] == b"AVI ":
        return "video", "avi"
    if head.startswith(_EBML):
        for name, short in ((b"webm", "webm"), (b"matroska", "mkv")):
            if name in head[:_HEAD]:
                return "video", short
    if head[4:8] == b"ftyp" and head[8:12] in _BRANDS:
        return "video", "mov" if head[8:10] == b"qt" else "mp4"
    if head[4:8] in _ATOMS:
        return "video", "mov"
    return _sound_kind(head)


def _sound_kind(head: bytes) -> tuple[Medium, str] | None:
    if head.startswith(b"RIFF") and head[8:12] == b"WAVE":
        return "audio", "wav"
    if head.startswith(b"fLaC"):
        return "audio", "flac"
    if head.startswith(b"OggS"):
        return "audio", "ogg"
    if head[4:8] == b"ftyp" and head[8:12] in (b"M4A ", b"M4B "):
        return "audio", "m4a"
    # An MP3 begins with its tags, or at once with a frame: eleven bits that are set, then the
    # version 1 or 2 (1.) and layer III (01).
    frame = len(head) > 1 and head[0] == 0xFF and head[1] & 0xF6 == 0xF2
    return ("audio", "mp3") if frame or head.startswith(b"ID3") else None


def check_media(head: bytes, field: str, kind: Kind) -> tuple[Medium, str]:
    """The kind and format of a file for `field` by its first bytes.

    Raises InvalidMedia for what the field does not take.
    """
    found = media_kind(head)
    if found is None or not (
        kind in ("file", found[0])
        or (kind == "any" and found[0] != "audio")
        or (kind == "video" and found[1] == "gif")
    ):
        what = "is empty" if not head else f"is {found[1].upper()}" if found else "is none of these"
        raise InvalidMedia(
            f"The file of {field} is not taken.",
            cause=f"It {what}: allowed is {_TAKEN[kind]}, told by its content.",
            hints=["Convert the file, then send it again."],
        )
    return found


def receive(
    upload: UploadFile, field: str, kind: Kind, *, store: Store, settings: Settings
) -> Asset:
    """Keep an uploaded file in the store; blocks, so call it in a thread.

    Raises InvalidMedia for what `field` does not take, TooLarge for more than
    `settings.max_upload`, OutputFailed when the disk does not take it.
    """
    upload.file.seek(0)
    head = upload.file.read(_HEAD)
    word, _ = check_media(head, field, kind)

    def chunks() -> Iterator[bytes]:
        chunk, size = head, 0
        while chunk:
            size += len(chunk)
            _check_size(size, field, settings)
            yield chunk
            chunk = upload.file.read(_CHUNK)

    return store.assets.put_stream(chunks(), word)


def keep(data: bytes, field: str, kind: Kind, *, store: Store, settings: Settings) -> Asset:
    """Keep bytes that came otherwise than as a file: fetched, or in JSON. Raises as `receive`."""
    word, _ = check_media(data[:_HEAD], field, kind)
    _check_size(len(data), field, settings)
    return store.assets.put_bytes(data, word)


async def read_form(request: Request) -> FormData:
    """The fields and files of a multipart or urlencoded body; close it when done with it.

    Raises InvalidRequest for one that cannot be read or has too many parts, TooLarge.
    """
    try:
        return await request.form(
            max_files=_MAX_FILES, max_fields=_MAX_FIELDS, max_part_size=_MAX_TEXT
        )
    except HTTPException as error:
        raise InvalidRequest(
            [Problem("body", "...", f"a form ({error.detail})")],
            message="The form cannot be read.",
        ) from error
    except ValueError as error:  # text that its own charset cannot say
        raise InvalidRequest(
            [Problem("body", "...", "a form in UTF-8")], message="The form cannot be read."
        ) from error


def _check_size(size: int, field: str, settings: Settings) -> None:
    if size > settings.max_upload:
        raise TooLarge(
            f"The file of {field} is too large.",
            cause=f"At most {settings.max_upload / 1024**2:g} MiB are taken.",
            hints=["Send a smaller file.", "Raise max_upload in the settings of the server."],
        )
