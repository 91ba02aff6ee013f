"""How was this video made? Its own file says so.

MP4 and WebM keep the settings in the container's `comment`, GIF in a comment extension, a PNG
sequence in `kinoloom.json` and in a text chunk of every frame, so that a single frame knows too.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from PIL import Image

from kinoloom.errors import InvalidMedia
from kinoloom.media.gif import read_gif_facts
from kinoloom.media.localfile import check_file
from kinoloom.media.reader import open_container
from kinoloom.media.sequence import read_sequence_info
from kinoloom.media.settings_tag import decode_settings

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def read_settings(path: str | Path) -> dict[str, Any] | None:
    """The settings that Kinoloom wrote into a video, a PNG sequence or one of its frames.

    The object has an integer `kinoloom`, the version of its layout; everything else in it is as
    untrusted as the file itself. None when the file has no settings, or only a comment that
    Kinoloom did not write, or one above 1 MB. Raises InvalidMedia when `path` is missing or is
    neither a video nor a PNG nor a folder of PNGs.
    """
    if os.path.isdir(path):  # noqa: PTH112 (never raises)
        sequence = read_sequence_info(path)
        if sequence.settings is not None:
            return sequence.settings
        return _from_png(sequence.files[0])
    found = check_file(path, "video")
    if _starts_with(found, _PNG_SIGNATURE):
        return _from_png(found)
    with open_container(found) as container:
        if container.format.name == "gif":
            comments: tuple[str, ...] = read_gif_facts(found).comments
        else:
            # Matroska spells its keys in capitals.
            comments = tuple(v for k, v in container.metadata.items() if k.lower() == "comment")
    for comment in comments:
        settings = decode_settings(comment)
        if settings is not None:
            return settings
    return None


def _from_png(path: Path) -> dict[str, Any] | None:
    """From the chunks before the pixels, which are not decoded."""
    check_file(path, "frame")
    try:
        with Image.open(path, formats=("PNG",)) as image:
            comment = image.info.get("Comment")
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InvalidMedia(
            f"The picture {path} is damaged.", cause=str(error), hints=("Copy it again.",)
        ) from error
    return decode_settings(comment) if isinstance(comment, str) else None


def _starts_with(path: Path, signature: bytes) -> bool:
    with path.open("rb") as file:
        return file.read(len(signature)) == signature
