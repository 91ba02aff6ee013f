"""Where do the bytes of assets lie, and what must such a place be able to do?

`Folder` is a place on this machine; `kinoloom.store.remote` has the other one.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import IO, Protocol

from kinoloom.errors import InvalidMedia
from kinoloom.store.failures import write_failure

# How much of an asset is given at a time, in bytes.
PIECE = 1 << 16
UNFINISHED = "unfinished"

_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
# Unfinished files of a process that was killed go after a day; no put takes that long.
STALE_SECONDS = 86_400


class Place(Protocol):
    """Where assets lie. Every method raises InvalidMedia for what is no digest.

    `folder` is on this machine; its disk takes the files that are not finished yet.
    """

    folder: Path

    def keep(
        self,
        file: Path,
        digest: str,
        size: int,
        recording: Callable[[], AbstractContextManager[None]],
    ) -> Path:
        """Take over the finished temporary `file`; where its bytes lie on this machine now.

        `recording()` is a transaction with the asset's row in it. Nobody removes the asset while it
        lasts, so that a row which is there has its file. Raises OutputFailed.
        """

    def path(self, digest: str) -> Path:
        """A file on this machine with the asset's bytes.

        Raises InvalidMedia when it is missing, or damaged as far as that is seen on the way.
        """

    def size(self, digest: str) -> int | None:
        """How many bytes lie there; None for no asset."""

    def read(self, digest: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end`, at most `PIECE` at a time.

        A missing or shorter asset raises InvalidMedia before the first piece is asked for.
        """

    def verify(self, digest: str) -> None:
        """Read all of it. Raises InvalidMedia when it is missing, or not what its name says."""

    def remove(self, digest: str) -> None:
        """Remove the asset's bytes, if they are there. Raises OutputFailed."""


class Folder:
    """A folder on this machine: what is in it appears whole or not at all."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(
        self,
        file: Path,
        digest: str,
        size: int,
        recording: Callable[[], AbstractContextManager[None]],
    ) -> Path:
        """See `Place`. The renaming is so quick that the transaction holds it."""
        place = self._file(digest)
        with recording(), writing_to(place):
            place.parent.mkdir(exist_ok=True)
            # Another size than its content has means damage from outside: replace it.
            if self.size(digest) != size:
                file.replace(place)
        return place

    def path(self, digest: str) -> Path:
        """See `Place`."""
        path = self._file(digest)
        if not path.is_file():
            raise missing(digest)
        return path

    def size(self, digest: str) -> int | None:
        """See `Place`."""
        path = self._file(digest)
        try:
            status = path.stat()
        except OSError:  # another process may just be removing it
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    def read(self, digest: str, start: int, end: int) -> Iterator[bytes]:
        """See `Place`."""
        return pieces(self.path(digest), start, end)

    def verify(self, digest: str) -> None:
        """See `Place`."""
        path = self.path(digest)
        with reading_from(path), path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if f"sha256:{found}" != digest:
            raise damaged(str(path))

    def remove(self, digest: str) -> None:
        """See `Place`."""
        path = self._file(digest)
        with writing_to(path):
            path.unlink(missing_ok=True)

    def _file(self, digest: str) -> Path:
        return self.folder / name_of(digest)


def name_of(digest: str) -> str:
    """The name of an asset's file in its place, ``ab/cdef...``."""
    match = _DIGEST.fullmatch(digest)
    if match is None:
        raise InvalidMedia(
            f"{digest[:100]!r} names no asset.",
            cause="A digest is `sha256:` and 64 hex digits.",
        )
    return f"{match[1][:2]}/{match[1][2:]}"


@contextmanager
def temporary(folder: Path) -> Iterator[tuple[Path, IO[bytes]]]:
    """A new file on the disk of `folder`, gone afterwards unless it was renamed."""
    with writing_to(folder):
        (folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=folder / UNFINISHED)
    try:
        with os.fdopen(handle, "wb") as file:
            yield Path(name), file
    finally:
        Path(name).unlink(missing_ok=True)


def finish(file: IO[bytes], folder: Path) -> None:
    """Close a temporary file of `folder` once its bytes are on the disk."""
    with writing_to(folder):
        file.flush()
        os.fsync(file.fileno())  # a power cut after the rename must not leave an empty file
        file.close()


def sweep(folder: Path) -> None:
    """Remove what killed processes left unfinished in `folder` more than a day ago."""
    oldest = time.time() - STALE_SECONDS
    with suppress(OSError):
        for path in (folder / UNFINISHED).iterdir():
            with suppress(OSError):  # another process sweeps too
                if path.stat().st_mtime < oldest:
                    path.unlink()


def missing(digest: str, cause: str = "") -> InvalidMedia:
    """The asset is not where it should be."""
    return InvalidMedia(
        f"The asset {digest} is not in the store.",
        cause=cause or "It was never kept here, or its file was removed.",
        hints=["Give the original file again."],
    )


def damaged(where: str) -> InvalidMedia:
    """The asset's content, at the path or address `where`, is not that of its name."""
    return InvalidMedia(
        f"The asset {where} is damaged.",
        cause="Its content is no longer what its name says: it was changed where it lies.",
        hints=["Delete the file and give the original again.", "Check the disk that it lies on."],
    )


@contextmanager
def writing_to(path: Path) -> Iterator[None]:
    """Raises OutputFailed for the disk's errors in writing to `path`."""
    try:
        yield
    except OSError as error:
        raise write_failure(error, path) from error


@contextmanager
def reading_from(path: Path) -> Iterator[None]:
    """Raises InvalidMedia for the disk's errors in reading `path`."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InvalidMedia(
            f"{path} cannot be read.",
            cause=(error.strerror if isinstance(error, OSError) else None) or str(error),
            hints=["Check the path and that you may read the file."],
        ) from error


def pieces(path: Path, start: int, end: int) -> Iterator[bytes]:
    """The bytes of a file from `start` up to `end`, at most `PIECE` at a time.

    Raises InvalidMedia at once when the file cannot be read or has fewer bytes.
    """
    with reading_from(path):
        if path.stat().st_size < end:
            raise damaged(str(path))
    return _read(path, start, end)


def _read(path: Path, start: int, end: int) -> Iterator[bytes]:
    with reading_from(path):
        file = path.open("rb")
    with file:
        file.seek(start)
        while start < end:
            with reading_from(path):
                piece = file.read(min(PIECE, end - start))
            if not piece:
                raise damaged(str(path))
            start += len(piece)
            yield piece
