"""How does a video that came within an answer get onto the disk, whole and not too large?"""

from __future__ import annotations

import binascii
from collections.abc import Iterator
from pathlib import Path

from kinoloom.backends.remote.download import MAX_BYTES
from kinoloom.errors import InvalidMedia, NetworkFailed, TooLarge
from kinoloom.media.output import disk_errors

_BLOCK = 1 << 20
"""Characters of base64 that are decoded at a time; a multiple of 4."""


def write_video(data: str | bytes, target: Path, *, limit: int = MAX_BYTES) -> Path:
    """Write a video to `target` once all of it is known to be one; base64 where it is text.

    Raises NetworkFailed for base64 that is damaged, TooLarge, InvalidMedia for what is no MP4 file,
    and OutputFailed.
    """
    part = target.with_name(target.name + ".part")
    size = 0
    with disk_errors(target):
        try:
            with part.open("wb") as file:
                for block in _decoded(data):
                    if size == 0 and block[4:8] != b"ftyp":
                        raise InvalidMedia("What Google sent is no video.")
                    size += len(block)
                    if size > limit:
                        raise TooLarge(f"The finished video has more than {limit} bytes.")
                    file.write(block)
            if size == 0:
                raise InvalidMedia("What Google sent is no video.", cause="It is empty.")
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
    return target


def _decoded(data: str | bytes) -> Iterator[bytes]:
    for start in range(0, len(data), _BLOCK):
        block = data[start : start + _BLOCK]
        if isinstance(block, bytes):
            yield block
            continue
        try:
            yield binascii.a2b_base64(block, strict_mode=True)
        except binascii.Error:
            raise NetworkFailed("The finished video arrived damaged.") from None
