"""Is there a readable file of a sensible size at this path?

Everything that Kinoloom reads goes through here first, so that a missing file, a folder, a pipe
that never ends or a wrong permission is named as what it is, before any decoder sees it.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from kinoloom.errors import InvalidMedia


def check_file(path: str | Path, what: str, max_bytes: int | None = None) -> Path:
    """The absolute path of a regular, readable, non-empty local file.

    `what` is the word for messages ("picture", "video"). Raises InvalidMedia otherwise, and when
    the file has more than `max_bytes`.
    """
    try:
        found = Path(path).absolute()
        info = found.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise InvalidMedia(
            f"The {what} {path} does not exist.",
            cause="There is no file at that path.",
            hints=("Check the spelling and the folder you are in.",),
        ) from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InvalidMedia(
            f"Cannot open the {what} {str(path)!r}.", cause=reason, hints=("Correct the path.",)
        ) from error
    if stat.S_ISDIR(info.st_mode):
        raise InvalidMedia(
            f"{path} is a folder, not a {what}.", hints=("Name the file inside the folder.",)
        )
    if not stat.S_ISREG(info.st_mode):
        # A pipe or a device could block for ever or never end.
        raise InvalidMedia(
            f"{path} is not a regular file.",
            cause=f"A {what} must be a file.",
            hints=("Copy its content into a file first.",),
        )
    if not os.access(found, os.R_OK):
        raise InvalidMedia(
            f"The {what} {path} cannot be read.",
            cause="You have no permission to read it.",
            hints=("Change the file's permissions.",),
        )
    if info.st_size == 0:
        raise InvalidMedia(
            f"The {what} {path} is empty.",
            cause="The file has 0 bytes.",
            hints=("Save or download it again.",),
        )
    if max_bytes is not None and info.st_size > max_bytes:
        raise InvalidMedia(
            f"The {what} {path} is too large.",
            cause=f"It has {info.st_size / 1e6:,.1f} MB, allowed are {max_bytes / 1e6:,.1f} MB.",
            hints=("Use a smaller version.",),
        )
    return found
