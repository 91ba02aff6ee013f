"""What does a failure of the disk or the database mean for the user?"""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from kinoloom.errors import KinoloomError, OutputFailed, StoreBroken

_ELSEWHERE = "Set KINOLOOM_HOME to a folder that you may write to."
_ROOM = "Free some space, or set KINOLOOM_HOME to a folder on another disk."


def write_failure(error: OSError, path: Path) -> OutputFailed:
    """Why `path` in the data folder could not be written, and what to do."""
    hints = [_ELSEWHERE]
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        hints = [_ROOM]
    return OutputFailed(
        f"Kinoloom's data cannot be written to {path}.",
        cause=error.strerror or str(error),
        hints=hints,
    )


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process held the database: the same thing may work a little later."""
    return _code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def database_failure(error: BaseException | None, path: Path) -> KinoloomError:
    """The driver's error in the user's words."""
    code = _code(error)
    if code == sqlite3.SQLITE_FULL:
        return OutputFailed(
            f"Kinoloom's database {path} cannot grow.", cause="The disk is full.", hints=[_ROOM]
        )
    if code in (
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_IOERR,
    ):
        return OutputFailed(
            f"Kinoloom's database {path} cannot be written.",
            cause=str(error),
            hints=["Check the folder's permissions and the disk.", _ELSEWHERE],
        )
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return OutputFailed(
            f"Kinoloom's database {path} is busy.",
            cause="Another process has been writing to it for too long.",
            hints=["Wait for the other process, or end it, then try again."],
        )
    return broken(path, str(error))


def broken(path: Path, cause: str) -> StoreBroken:
    """The database cannot be used as it is."""
    return StoreBroken(
        f"Kinoloom's database {path} cannot be read.",
        cause=cause,
        hints=[
            "Restore the file from a backup, or move it away (with its -wal and -shm files): "
            "Kinoloom then starts a new one. Your videos are not in it and stay.",
            "Set KINOLOOM_HOME to another folder.",
        ],
    )


def newer(path: Path, revision: str) -> StoreBroken:
    """The database was written by a version that knows more tables than this one."""
    return StoreBroken(
        f"Kinoloom's database {path} is from a newer version of Kinoloom.",
        cause=f"Its schema is {revision!r}, which this version does not know.",
        hints=[
            "Update Kinoloom: pip install --upgrade kinoloom",
            "Set KINOLOOM_HOME to another folder to use this version beside it.",
        ],
    )


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code, without the details in the upper bits."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
