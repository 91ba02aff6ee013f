"""Does the file end before its own structure says it should?

FFmpeg plays what is left of a file that was cut short and says nothing, so a broken download would
pass for a shorter clip. MP4 boxes (ISO/IEC 14496-12, 4.2) and the Matroska segment (RFC 8794, 9559)
state their lengths; comparing them with the file's length finds the cut. GIFs are walked in `gif`.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

_EBML_HEADER = 0x1A45DFA3
_SEGMENT = 0x18538067


def is_cut(path: Path, container: str) -> bool:
    """Whether an MP4, MOV, WebM or Matroska file ends before its stated length."""
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if "mp4" in container:
            return _boxes_exceed(file, size)
        if "webm" in container or "matroska" in container:
            return _segment_exceeds(file, size)
    return False


def _boxes_exceed(file: BinaryIO, size: int) -> bool:
    at = 0
    while at + 8 <= size:
        file.seek(at)
        head = file.read(16)
        length = int.from_bytes(head[:4], "big")
        if length == 0:  # by definition: to the end of the file
            return False
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # not a box; trailing bytes that players ignore
            return False
        at += length
    return at > size


def _segment_exceeds(file: BinaryIO, size: int) -> bool:
    while file.tell() < size:
        identifier = _vint(file, keep_marker=True)
        length = _vint(file, keep_marker=False)
        if identifier is None:
            return True
        if length is None:  # a live recording does not know its length
            return False
        if identifier == _SEGMENT:
            return file.tell() + length > size
        if identifier != _EBML_HEADER:
            return False
        file.seek(length, 1)
    return True


def _vint(file: BinaryIO, *, keep_marker: bool) -> int | None:
    """An EBML variable-size integer; None at the end of the file or for "unknown size"."""
    first = file.read(1)
    if not first or first[0] == 0:
        return None
    count = 9 - first[0].bit_length()
    data = first + file.read(count - 1)
    if len(data) < count:
        return None
    value = int.from_bytes(data, "big")
    if keep_marker:
        return value
    value &= (1 << (7 * count)) - 1
    return None if value == (1 << (7 * count)) - 1 else value
