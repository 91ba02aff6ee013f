"""How is a file kept exactly once, under a name that is its content?

A file with the SHA-256 ``abcdef...`` lies at ``assets/ab/cdef...``. It appears there whole or not
at all, is never changed, and the same content put twice is one file.
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from sqlalchemy.dialects.sqlite import insert

from kinoloom.errors import InvalidMedia
from kinoloom.store.database import Database
from kinoloom.store.failures import write_failure
from kinoloom.store.tables import AssetRow

_CHUNK = 1 << 20
_DIGEST = re.compile(r"sha256:([0-9a-f]{64})")
# Unfinished files of a process that was killed go after a day; no put takes that long.
_STALE_SECONDS = 86_400


@dataclass(frozen=True)
class Asset:
    """A kept file: `digest` is ``sha256:`` and 64 hex digits, `size` is in bytes.

    `kind` says what it is in a word ("image", "video", "poster"), as the first to put it called it.
    """

    digest: str
    path: Path
    size: int
    kind: str


class Assets:
    """The files of a store by their content."""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder = folder
        self._database = database

    def put_bytes(self, data: bytes, kind: str) -> Asset:
        """Keep `data`. Raises OutputFailed when the disk does not take it."""
        with self._temporary() as (path, file):
            with _writing_to(self.folder):
                file.write(data)
            return self._publish(path, file, hashlib.sha256(data).hexdigest(), len(data), kind)

    def put_file(self, path: str | Path, kind: str, *, link: bool = False) -> Asset:
        """Keep a copy of the file at `path`.

        With `link` the asset may share the file's bytes on disk (a hard link) where the file system
        can; only for files that nobody changes in place, such as Kinoloom's own results. Changing
        such a file would change the asset; `verify` finds it.

        Raises InvalidMedia when the file cannot be read, OutputFailed when the disk does not take
        it.
        """
        path = Path(path)
        with _reading_from(path):
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
                raise InvalidMedia(f"{path} cannot be used.", cause="It is not a file.")
        if link and (asset := self._put_linked(path, kind)):
            return asset
        with self._temporary() as (temporary, target):
            digest, size = self._copy(path, target)
            return self._publish(temporary, target, digest, size, kind)

    def get(self, digest: str) -> Asset:
        """The asset with that digest. Raises InvalidMedia when the store does not have it."""
        path = self.path(digest)
        with self._database.reading() as session:
            row = session.get(AssetRow, digest)
        if row is None:
            raise _missing(digest)
        return Asset(digest, path, row.size, row.kind)

    def path(self, digest: str) -> Path:
        """Where the asset's file is. Raises InvalidMedia when the store does not have it."""
        path = self._place(digest)
        if not path.is_file():
            raise _missing(digest)
        return path

    def verify(self, digest: str) -> None:
        """Read the whole file and make sure that its content is still that of its name.

        Raises InvalidMedia when it is not, or when the store does not have the asset.
        """
        path = self.path(digest)
        with _reading_from(path), path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if f"sha256:{found}" != digest:
            raise InvalidMedia(
                f"The asset {path} is damaged.",
                cause="Its content is no longer what its name says: it was changed on the disk.",
                hints=["Delete the file and give the original again.", "Check the disk."],
            )

    def sweep(self) -> None:
        """Remove what killed processes left unfinished more than a day ago."""
        oldest = time.time() - _STALE_SECONDS
        with suppress(OSError):
            for path in self._unfinished.iterdir():
                with suppress(OSError):  # another process sweeps too
                    if path.stat().st_mtime < oldest:
                        path.unlink()

    @property
    def _unfinished(self) -> Path:
        return self.folder / "unfinished"

    def _place(self, digest: str) -> Path:
        match = _DIGEST.fullmatch(digest)
        if match is None:
            raise InvalidMedia(
                f"{digest[:100]!r} names no asset.",
                cause="A digest is `sha256:` and 64 hex digits.",
            )
        return self.folder / match[1][:2] / match[1][2:]

    @contextmanager
    def _temporary(self) -> Iterator[tuple[Path, IO[bytes]]]:
        """A new file on the assets' disk, gone afterwards unless it was published."""
        with _writing_to(self.folder):
            self._unfinished.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=self._unfinished)
        try:
            with os.fdopen(handle, "wb") as file:
                yield Path(name), file
        finally:
            Path(name).unlink(missing_ok=True)

    def _copy(self, source: Path, target: IO[bytes]) -> tuple[str, int]:
        """Copy and hash in one pass, so that the digest is that of the copy."""
        digest, size = hashlib.sha256(), 0
        with _reading_from(source):
            file = source.open("rb")
        with file:
            while True:
                with _reading_from(source):
                    chunk = file.read(_CHUNK)
                if not chunk:
                    return digest.hexdigest(), size
                digest.update(chunk)
                size += len(chunk)
                with _writing_to(self.folder):
                    target.write(chunk)

    def _put_linked(self, source: Path, kind: str) -> Asset | None:
        """The asset as a hard link; None where the file system has none, or the file changes."""
        with _reading_from(source), source.open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with self._temporary() as (temporary, _):
            link = temporary.with_name(temporary.name + ".link")
            try:
                link.hardlink_to(source)
            except OSError:
                return None
            try:
                after = link.stat()
                if _identity(before) != _identity(after):
                    return None
                return self._keep(link, digest, after.st_size, kind)
            finally:
                link.unlink(missing_ok=True)

    def _publish(self, path: Path, file: IO[bytes], digest: str, size: int, kind: str) -> Asset:
        """Give a finished temporary file its name."""
        with _writing_to(self.folder):
            file.flush()
            os.fsync(file.fileno())  # a power cut after the rename must not leave an empty file
            file.close()
        return self._keep(path, digest, size, kind)

    def _keep(self, path: Path, digest: str, size: int, kind: str) -> Asset:
        name = f"sha256:{digest}"
        place = self._place(name)
        with _writing_to(place):
            place.parent.mkdir(exist_ok=True)
            # Another size than its content has means damage from outside: replace it.
            if not (place.is_file() and place.stat().st_size == size):
                path.replace(place)
        row = {"digest": name, "kind": kind, "size": size, "created_at": datetime.now(UTC)}
        with self._database.writing() as session:
            session.execute(insert(AssetRow).values(row).on_conflict_do_nothing())
            kept = session.get_one(AssetRow, name)
        return Asset(name, place, kept.size, kept.kind)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _missing(digest: str) -> InvalidMedia:
    return InvalidMedia(
        f"The asset {digest} is not in the store.",
        cause="It was never kept here, or its file was removed.",
        hints=["Give the original file again."],
    )


@contextmanager
def _writing_to(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise write_failure(error, path) from error


@contextmanager
def _reading_from(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InvalidMedia(
            f"{path} cannot be read.",
            cause=(error.strerror if isinstance(error, OSError) else None) or str(error),
            hints=["Check the path and that you may read the file."],
        ) from error
