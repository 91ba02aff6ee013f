"""Can this be written, and how does a result appear whole or not at all?

Results are written under a hidden name beside their place and renamed at the end, so a reader never
sees half a file, and a crash, a full disk or Ctrl-C leaves the old file as it was.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard

from kinoloom.errors import OutputFailed

if TYPE_CHECKING:  # the server and the workers write files too, and load no codec
    import av

_ELSEWHERE = "Choose another place with --output."
_CAUSES: dict[int, tuple[str, tuple[str, ...]]] = {
    errno.ENOSPC: ("The disk is full.", ("Free some space.", _ELSEWHERE)),
    errno.EDQUOT: ("Your disk quota is used up.", ("Free some space.", _ELSEWHERE)),
    errno.EFBIG: (
        "The file would exceed the largest size allowed here.",
        (_ELSEWHERE, "Make a shorter or smaller clip."),
    ),
    errno.EACCES: ("You may not write there.", (_ELSEWHERE, "Change the folder's permissions.")),
    errno.EPERM: ("You may not write there.", (_ELSEWHERE, "Change the folder's permissions.")),
    errno.EROFS: ("That place is read-only.", (_ELSEWHERE,)),
    errno.ENOTDIR: ("Part of the path is a file, not a folder.", ("Correct the path.",)),
    errno.EEXIST: ("A file is where a folder is needed.", ("Correct the path.",)),
    errno.ENOENT: (
        "The folder does not exist or was removed meanwhile.",
        ("Create the folder.", _ELSEWHERE),
    ),
    errno.EISDIR: ("A folder with that name is in the way.", ("Choose another name.",)),
    errno.ENAMETOOLONG: ("The name is too long for this file system.", ("Shorten the name.",)),
    errno.ELOOP: ("The path goes round in a circle of links.", ("Correct the path.",)),
    errno.EIO: ("The disk reports an error.", ("Check the disk.", _ELSEWHERE)),
}


def output_failed(path: Path, error: OSError | av.FFmpegError) -> OutputFailed:
    """The error of the disk or the encoder in words, with what to do next."""
    known = _CAUSES.get(error.errno or 0)
    cause, hints = known or (error.strerror or str(error) or type(error).__name__, (_ELSEWHERE,))
    return OutputFailed(f"Cannot write {path}.", cause=cause, hints=hints)


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn what the disk or FFmpeg raises inside into OutputFailed about `path`.

    Wrap only the writing itself with it: an OSError from whoever delivers the frames is not ours to
    explain.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, OSError) or _of_ffmpeg(error):
            raise output_failed(path, error) from error
        raise


def _of_ffmpeg(error: Exception) -> TypeGuard[av.FFmpegError]:
    """Whether FFmpeg raised it, which nobody has to load who has not."""
    loaded = sys.modules.get("av")
    return loaded is not None and isinstance(error, loaded.FFmpegError)


def check_writable(path: str | Path, needed_bytes: int = 0, *, folder: bool = False) -> None:
    """Find out before hours of work whether `path` can be written.

    Creates missing parent folders, really creates and removes a file beside `path` (permission
    bits alone do not tell, on network disks and for root), and compares `needed_bytes` with the
    free space. `folder` allows `path` to be an existing folder, for a PNG sequence.
    Raises OutputFailed.
    """
    path = Path(path)
    try:
        with disk_errors(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            _check_free_name(path, folder)
            _try_file(path.parent)
            free = shutil.disk_usage(path.parent).free
    except ValueError as error:  # a zero byte in the name
        raise OutputFailed(
            f"Cannot write {str(path)!r}.", cause=f"{error}.", hints=("Correct the path.",)
        ) from error
    if free < needed_bytes:
        raise OutputFailed(
            f"Cannot write {path}.",
            cause=f"The disk has {_mega(free)} MB free, about {_mega(needed_bytes)} MB are needed.",
            hints=("Free some space.", _ELSEWHERE),
        )


def check_folder(
    path: str | Path, replaceable: Callable[[Path], bool], needed_bytes: int = 0
) -> None:
    """As `check_writable`, for a folder of files.

    An existing one is allowed only if it is empty or `replaceable` says so, which must be sure
    that nothing of the user's is in it. Raises OutputFailed.
    """
    path = Path(path)
    check_writable(path, needed_bytes, folder=True)
    with disk_errors(path):
        in_the_way = path.is_dir() and any(path.iterdir()) and not replaceable(path)
    if in_the_way:
        raise OutputFailed(
            f"Cannot write {path}.",
            cause="That folder holds files that are not a PNG sequence made by Kinoloom.",
            hints=("Choose another name.", "Empty the folder."),
        )


@contextmanager
def whole_file(path: Path, mark: str = "") -> Iterator[Path]:
    """A temporary name beside `path`; it becomes `path` at the end, or vanishes on any failure.

    Only a kill leaves it; who comes next with the same `mark` removes it.
    """
    check_writable(path)
    if mark:
        for left in path.parent.glob(f".kinoloom-{mark}-*.part"):
            with suppress(OSError):
                left.unlink()
    part = _part_beside(path, f"{mark}-" if mark else "")
    try:
        yield part
        with disk_errors(path):
            sync(part)
            part.replace(path)
            _sync_folder(path.parent)
    except BaseException:
        with suppress(OSError):
            part.unlink(missing_ok=True)
        raise


@contextmanager
def whole_folder(path: Path, replaceable: Callable[[Path], bool]) -> Iterator[Path]:
    """A temporary folder beside `path`; it becomes `path` at the end, or vanishes on any failure.

    An existing `path` is replaced as `check_folder` says. Raises OutputFailed.
    """
    check_folder(path, replaceable)
    part, old = _part_beside(path), _part_beside(path)
    try:
        with disk_errors(path):
            part.mkdir()
        yield part
        with disk_errors(path):
            _sync_folder(part)
            if path.is_dir():
                path.rename(old)
            part.rename(path)
            _sync_folder(path.parent)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        with suppress(OSError):
            if old.is_dir() and not path.exists():
                old.rename(path)
        raise
    finally:
        shutil.rmtree(old, ignore_errors=True)


def sync(file: Path) -> None:
    """Wait until the file's bytes are on the disk; some disks report being full only here."""
    with file.open("rb+") as handle:
        os.fsync(handle.fileno())


def _check_free_name(path: Path, folder: bool) -> None:
    try:
        path.lstat()
    except FileNotFoundError:
        return
    if path.is_dir() and not folder:
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if folder and not path.is_dir():
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


def _try_file(folder: Path) -> None:
    probe = _part_beside(folder / "probe")
    try:
        os.close(os.open(probe, os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    finally:
        probe.unlink(missing_ok=True)


def _part_beside(path: Path, mark: str = "") -> Path:
    # A short name of its own, since the final one may already be as long as the disk allows.
    return path.with_name(f".kinoloom-{mark}{secrets.token_hex(6)}.part")


def _sync_folder(folder: Path) -> None:
    # Makes the rename itself durable. Windows cannot open folders, some network disks refuse: the
    # file is whole either way.
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _mega(count: int) -> str:
    return f"{count / 1e6:,.1f}"
