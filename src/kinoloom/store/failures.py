"""What does a failure of the disk or the database mean for the user?"""

from __future__ import annotations

import errno
import sqlite3
from pathlib import Path

from kinoloom.errors import KinoloomError, OutputFailed, StoreBroken

_ELSEWHERE = "Set KINOLOOM_HOME to a folder that you may write to."
# Of PostgreSQL's error codes; the classes are about the connection, the login and the shutdown.
_DISK_FULL, _DUPLICATE_TABLE = "53100", "42P07"
_CONNECTION_CLASSES = ("08", "28", "3D", "57")
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


def sqlite_failure(error: BaseException | None, path: Path) -> KinoloomError:
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
        return busy(str(path))
    return broken(path, str(error))


def busy(place: str) -> OutputFailed:
    """Others used the database for longer than anyone waits."""
    return OutputFailed(
        f"Kinoloom's database {place} is busy.",
        cause="Others have been using it for too long.",
        hints=["Wait for the other processes, or end them, then try again."],
    )


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


def newer(place: str, revision: str) -> StoreBroken:
    """The database was written by a version that knows more tables than this one."""
    return StoreBroken(
        f"Kinoloom's database {place} is from a newer version of Kinoloom.",
        cause=f"Its schema is {revision!r}, which this version does not know.",
        hints=[
            "Update Kinoloom: pip install --upgrade kinoloom",
            "Use this version with another folder (KINOLOOM_HOME) or database.",
        ],
    )


def postgres_failure(error: BaseException | None, place: str) -> KinoloomError:
    """The driver's error in the user's words; `place` is the address without a password."""
    state = getattr(error, "sqlstate", None) or ""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    if state == _DISK_FULL:
        return OutputFailed(
            f"Kinoloom's database {place} cannot grow.",
            cause=lines[0],
            hints=["Free some space on the disk of the database's server."],
        )
    if state == _DUPLICATE_TABLE:
        return StoreBroken(
            f"Kinoloom's database {place} cannot be used.",
            cause=f"It has tables of some other program: {lines[0]}",
            hints=["Give Kinoloom a database of its own."],
        )
    # Without a state nobody answered; the others are about the login and a server that ends.
    if not state or state[:2] in _CONNECTION_CLASSES:
        return StoreBroken(
            f"Kinoloom's database {place} cannot be reached.",
            cause=lines[0],
            hints=["Check the address, the name and the password, and that the server runs."],
        )
    return StoreBroken(
        f"Kinoloom's database {place} cannot be used.",
        cause=lines[0],
        hints=["Look into the log of the database's server."],
    )


def _code(error: BaseException | None) -> int:
    """SQLite's primary result code, without the details in the upper bits."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF
