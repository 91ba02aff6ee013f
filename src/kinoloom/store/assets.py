"""How is a file kept exactly once, under a name that is its content?

A file with the SHA-256 ``abcdef...`` lies at ``ab/cdef...`` below the place of the assets, a folder
or an address. It appears there whole or not at all, is never changed, and the same content put
twice is one file.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

from sqlalchemy import exists, select

from kinoloom.errors import InvalidMedia
from kinoloom.store.database import Database
from kinoloom.store.place import (
    Folder,
    Place,
    finish,
    missing,
    name_of,
    reading_from,
    sweep,
    temporary,
    writing_to,
)
from kinoloom.store.tables import AssetRow, ClipAssetRow, FilmAssetRow, JobArtefactRow

UNUSED = timedelta(days=1)
"""How long an asset is kept that nothing refers to."""
_CHUNK = 1 << 20
_COLLECTED = 1000
"""So many of them are removed at once."""
_REFERRING = (ClipAssetRow, JobArtefactRow, FilmAssetRow)
"""The tables in which a row keeps the asset that it names."""


@dataclass(frozen=True)
class Asset:
    """A kept file: `digest` is ``sha256:`` and 64 hex digits, `size` is in bytes.

    `path` is a file on this machine. `kind` says what it is in a word ("image", "video", "poster"),
    as the first to put it called it.
    """

    digest: str
    path: Path
    size: int
    kind: str


class Assets:
    """The files of a store by their content.

    They lie in a folder or at an fsspec URL. `cache` is a folder of this machine for copies of what
    was read from a URL; it is not used without one. Every method may raise MissingPackage,
    NetworkFailed (reading) or OutputFailed (writing) when the place is a URL.
    """

    def __init__(self, place: str | Path, database: Database, *, cache: Path) -> None:
        self._place = _open(place, cache)
        self._database = database

    def put_bytes(self, data: bytes, kind: str) -> Asset:
        """Keep `data`. Raises OutputFailed when the disk does not take it."""
        return self.put_stream([data], kind)

    def put_stream(self, chunks: Iterable[bytes], kind: str) -> Asset:
        """Keep what comes in chunks, whole or, when the iterable raises, not at all.

        Raises OutputFailed when the disk does not take it.
        """
        digest, size = hashlib.sha256(), 0
        with temporary(self._place.folder) as (path, file):
            for chunk in chunks:
                digest.update(chunk)
                size += len(chunk)
                with writing_to(self._place.folder):
                    file.write(chunk)
            finish(file, self._place.folder)
            return self._keep(path, digest.hexdigest(), size, kind)

    def put_file(self, path: str | Path, kind: str, *, link: bool = False) -> Asset:
        """Keep a copy of the file at `path`.

        With `link` the asset may share the file's bytes on disk (a hard link) where the file system
        can; only for files that nobody changes in place, such as Kinoloom's own results. Changing
        such a file would change the asset; `verify` finds it.

        Raises InvalidMedia when the file cannot be read, OutputFailed when the disk does not take
        it.
        """
        path = Path(path)
        with reading_from(path):
            if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for ever
                raise InvalidMedia(f"{path} cannot be used.", cause="It is not a file.")
        if link and (asset := self._put_linked(path, kind)):
            return asset
        with temporary(self._place.folder) as (copy, target):
            digest, size = self._copy(path, target)
            finish(target, self._place.folder)
            return self._keep(copy, digest, size, kind)

    def get(self, digest: str) -> Asset:
        """The asset with that digest. Raises InvalidMedia when the store does not have it."""
        name_of(digest)
        row = self._row(digest)
        return Asset(digest, self._place.path(digest), row.size, row.kind)

    def path(self, digest: str) -> Path:
        """A file of this machine with the asset's bytes, to be read soon and never written to.

        From a URL it is fetched into the cache, where it stays for an hour at least. Raises
        InvalidMedia when the store does not have it, or what arrives is damaged.
        """
        return self._place.path(digest)

    def size(self, digest: str) -> int:
        """How many bytes the asset has. Raises InvalidMedia when the store does not have it."""
        name_of(digest)
        return self._row(digest).size

    def open_range(self, digest: str, start: int, end: int) -> Iterator[bytes]:
        """The asset's bytes from `start` up to and without `end`, in pieces of 64 KiB.

        From a URL nothing but the range is read. Raises InvalidMedia now, not at the first piece,
        when the asset is missing or has fewer bytes than `end`, and ValueError for no range.
        """
        if not 0 <= start <= end:
            raise ValueError(f"no range of bytes: {start} to {end}")
        return self._place.read(digest, start, end)

    def verify(self, digest: str) -> None:
        """Read the whole file and make sure that its content is still that of its name.

        Raises InvalidMedia when it is not, or when the store does not have the asset.
        """
        self._place.verify(digest)

    def discard(self, digest: str) -> bool:
        """Remove the asset when no clip, job or film refers to it; whether that was so.

        Row and file go in one transaction: who puts the same content at that moment waits for its
        end and finds that the file is gone, and who refers to the asset is refused by the database.
        Raises OutputFailed when the file cannot be removed; the asset is then still known.
        """
        # A place that does not answer is met here, and not while others wait for the database.
        self._place.size(digest)
        with self._database.writing() as session:
            row = session.get(AssetRow, digest, with_for_update=True)
            used = [
                session.scalar(select(exists().where(table.digest == digest)))
                for table in _REFERRING
            ]
            if row is None or any(used):
                return False
            session.delete(row)
            session.flush()
            self._place.remove(digest)
        return True

    def collect(self, older: timedelta = UNUSED) -> int:
        """Remove what nothing has referred to and that was kept so long ago; how many there were.

        Steps of jobs that were given up leave such assets, and uploads that nobody used.
        """
        unused = select(AssetRow.digest).where(AssetRow.created_at < datetime.now(UTC) - older)
        for table in _REFERRING:
            unused = unused.where(~exists().where(table.digest == AssetRow.digest))
        with self._database.reading() as session:
            digests = session.scalars(unused.limit(_COLLECTED)).all()
        return sum(self.discard(digest) for digest in digests)

    def sweep(self) -> None:
        """Remove what killed processes left unfinished on this disk more than a day ago."""
        sweep(self._place.folder)

    def _row(self, digest: str) -> AssetRow:
        with self._database.reading() as session:
            row = session.get(AssetRow, digest)
        if row is None:
            raise missing(digest)
        return row

    def _copy(self, source: Path, target: IO[bytes]) -> tuple[str, int]:
        """Copy and hash in one pass, so that the digest is that of the copy."""
        digest, size = hashlib.sha256(), 0
        with reading_from(source):
            file = source.open("rb")
        with file:
            while True:
                with reading_from(source):
                    chunk = file.read(_CHUNK)
                if not chunk:
                    return digest.hexdigest(), size
                digest.update(chunk)
                size += len(chunk)
                with writing_to(self._place.folder):
                    target.write(chunk)

    def _put_linked(self, source: Path, kind: str) -> Asset | None:
        """The asset as a hard link; None where the file system has none, or the file changes."""
        with reading_from(source), source.open("rb") as file:
            before = os.fstat(file.fileno())
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        with temporary(self._place.folder) as (unfinished, _):
            link = unfinished.with_name(unfinished.name + ".link")
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

    def _keep(self, path: Path, digest: str, size: int, kind: str) -> Asset:
        name = f"sha256:{digest}"

        @contextmanager
        def recording() -> Iterator[None]:
            nonlocal kind
            added = self._database.insert(AssetRow).values(
                digest=name, kind=kind, size=size, created_at=datetime.now(UTC)
            )
            # An update, though it changes nothing, locks the row that is there against `discard`.
            kept = added.on_conflict_do_update(
                index_elements=[AssetRow.digest], set_={"size": added.excluded.size}
            )
            with self._database.writing() as session:
                kind = session.scalars(kept.returning(AssetRow.kind)).one()
                yield

        return Asset(name, self._place.keep(path, name, size, recording), size, kind)


def _open(place: str | Path, cache: Path) -> Place:
    """The folder or address where assets lie; an address of a folder is that folder."""
    text = str(place)
    if "://" not in text:
        return Folder(Path(place))
    # Only who has assets at an address pays for what that needs.
    from kinoloom.store.asset_cache import AssetCache
    from kinoloom.store.remote import Remote, open_url

    if text.partition("://")[0] in ("file", "local"):
        return Folder(Path(open_url(text)[1]))
    return Remote(text, AssetCache(cache))


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
