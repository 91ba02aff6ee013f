"""How are assets kept at an address: in a bucket, or on another machine?

fsspec and the package that it uses for the address do the talking. Options, credentials and the
number of retries are theirs: their environment variables and files, never a setting of Kinoloom.
"""

from __future__ import annotations

import hashlib
import importlib
import re
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from kinoloom.errors import KinoloomError, MissingPackage, NetworkFailed, OutputFailed
from kinoloom.store.asset_cache import AssetCache
from kinoloom.store.place import (
    PIECE,
    STALE_SECONDS,
    UNFINISHED,
    damaged,
    finish,
    missing,
    name_of,
    pieces,
    temporary,
    writing_to,
)

# One request for so many bytes: few requests for a long video, little memory for each reader.
_WINDOW = 4 << 20
# Whoever discards the same content may come between two attempts, though hardly twice.
_ATTEMPTS = 5
# Where an upload appears whole or not at all. Elsewhere it needs another name until it is finished.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_PACKAGES = {
    "s3": '"kinoloom[s3]"',
    "s3a": '"kinoloom[s3]"',
    "gs": "gcsfs",
    "gcs": "gcsfs",
    "abfs": "adlfs",
    "abfss": "adlfs",
    "az": "adlfs",
    "sftp": "fsspec paramiko",
    "ssh": "fsspec paramiko",
    "smb": "fsspec smbprotocol",
}
_USER = re.compile(r"(?<=://)[^\s\"']*@")
_QUERY = re.compile(r"(://[^\s\"'?]*)\?[^\s\"']*")


class Remote:
    """Assets below an fsspec URL, with a cache on this disk of those that were needed here.

    Nothing is imported or sent before the first asset is asked for. What does not answer, or does
    not let us in, is NetworkFailed when reading and OutputFailed when writing; every method may
    raise MissingPackage.
    """

    def __init__(self, url: str, cache: AssetCache) -> None:
        self.name = _without_secrets(url)
        self.folder = cache.folder
        self._url = url
        self._cache = cache
        self._lock = threading.Lock()
        self._swept = False
        self._opened: tuple[Any, str] | None = None

    def keep(
        self,
        file: Path,
        digest: str,
        size: int,
        recording: Callable[[], AbstractContextManager[None]],
    ) -> Path:
        """See `Place`. An upload is too slow for a transaction, so it comes before.

        Whoever discards the same content removes row and file in one transaction. If that was after
        we found or sent the file and before we wrote the row, the file is gone now: send it again.
        """
        for _ in range(_ATTEMPTS):
            with self._writing():
                if self._size(digest) != size:
                    self._send(file, digest, size)
            with recording():
                pass
            with self._writing():
                there = self._size(digest) == size
            if there:
                return self._cache.add(file, digest)
        raise OutputFailed(
            f"An asset cannot be kept at {self.name}.",
            cause=f"{self._at(digest)} disappears as soon as it was sent.",
            hints=["Check which program deletes files there."],
        )

    def path(self, digest: str) -> Path:
        """See `Place`. It is fetched, and compared with its name, when the cache has it not."""
        found = self._cache.find(digest)
        if found is not None:
            return found
        with temporary(self.folder) as (path, file):
            self._receive(digest, lambda data: _write(file, data, self.folder))
            finish(file, self.folder)
            return self._cache.add(path, digest)

    def size(self, digest: str) -> int | None:
        """See `Place`. Asks the place itself, not the cache."""
        with self._reading(digest):
            return self._size(digest)

    def read(self, digest: str, start: int, end: int) -> Iterator[bytes]:
        """See `Place`. Nothing but the range is fetched, and nothing that the cache has."""
        if (found := self._cache.find(digest)) is not None:
            return pieces(found, start, end)
        windows = self._windows(digest, start, end)
        first = next(windows, b"")  # so that what is missing is found here and now
        return _in_pieces(first, windows)

    def verify(self, digest: str) -> None:
        """See `Place`. Reads the place's own bytes, whatever the cache has."""
        self._receive(digest, lambda _: None)

    def remove(self, digest: str) -> None:
        """See `Place`."""
        with self._writing(), suppress(FileNotFoundError):
            fs, path = self._file(name_of(digest))
            fs.rm_file(path)
        self._cache.drop(digest)

    def _file(self, name: str) -> tuple[Any, str]:
        """fsspec's file system for the address, and the path of `name` in it."""
        with self._lock:
            if self._opened is None:
                self._opened = open_url(self._url)
            fs, folder = self._opened
        return fs, f"{folder.rstrip('/')}/{name}"

    def _at(self, digest: str) -> str:
        return f"{self.name}/{name_of(digest)}"

    def _size(self, digest: str) -> int | None:
        fs, path = self._file(name_of(digest))
        try:
            facts = fs.info(path)
        except FileNotFoundError:
            return None
        return int(facts["size"]) if facts["type"] == "file" else None

    def _send(self, file: Path, digest: str, size: int) -> None:
        """Upload a whole file under its name, which it has only once it is complete."""
        fs, target = self._file(name_of(digest))
        if _protocols(fs) & _OBJECT_STORES:
            fs.put_file(str(file), target)
        else:
            self._sweep()
            _, unfinished = self._file(UNFINISHED)
            part = f"{unfinished}/{int(time.time())}-{uuid.uuid4().hex}"
            fs.makedirs(unfinished, exist_ok=True)
            fs.makedirs(target.rpartition("/")[0], exist_ok=True)
            try:
                fs.put_file(str(file), part)
                if fs.exists(target):  # of the wrong size; not every file system renames over it
                    fs.rm_file(target)
                fs.mv(part, target)
            except BaseException:
                with suppress(Exception):
                    fs.rm_file(part)
                raise
        sent = self._size(digest)
        if sent != size:
            raise OutputFailed(
                f"An asset cannot be kept at {self.name}.",
                cause=f"{self._at(digest)} has {sent} bytes after {size} were sent.",
                hints=["Check that nothing there changes or deletes files."],
            )

    def _sweep(self) -> None:
        """Remove, once, what killed processes left unfinished more than a day ago."""
        if self._swept:
            return
        self._swept = True
        fs, unfinished = self._file(UNFINISHED)
        oldest = time.time() - STALE_SECONDS
        with suppress(Exception):  # only tidying; what is wrong with the place shows at once
            for path in fs.ls(unfinished, detail=False):
                started = str(path).rpartition("/")[2].partition("-")[0]
                if started.isdecimal() and int(started) < oldest:
                    fs.rm_file(path)

    def _windows(self, digest: str, start: int, end: int) -> Iterator[bytes]:
        """The bytes from `start` up to `end` in a few requests."""
        while start < end:
            with self._reading(digest):
                fs, path = self._file(name_of(digest))
                try:
                    data = fs.cat_file(path, start=start, end=min(end, start + _WINDOW))
                except OSError:
                    # Not every file system says clearly that it has no such range.
                    there = self._size(digest)
                    if there is not None and there < end:
                        raise damaged(self._at(digest)) from None
                    raise
            if len(data) != min(_WINDOW, end - start):
                raise damaged(self._at(digest))
            start += len(data)
            yield data

    def _receive(self, digest: str, take: Callable[[bytes], None]) -> None:
        """Give every byte to `take`. Raises InvalidMedia unless they are what the name says."""
        size = self.size(digest)
        if size is None:
            raise missing(digest, f"There is no {self._at(digest)}.")
        hashed = hashlib.sha256()
        for data in self._windows(digest, 0, size):
            hashed.update(data)
            take(data)
        if f"sha256:{hashed.hexdigest()}" != digest:
            raise damaged(self._at(digest))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except KinoloomError:
            raise
        except Exception as error:  # every package has its own
            # Without the library's error, whose text may hold more than may be logged.
            raise OutputFailed(
                f"Kinoloom's assets cannot be written to {self.name}.",
                cause=self._why(error),
                hints=_hints(error),
            ) from None

    @contextmanager
    def _reading(self, digest: str) -> Iterator[None]:
        try:
            yield
        except KinoloomError:
            raise
        except FileNotFoundError as error:
            raise missing(digest, f"{self._at(digest)}: {self._why(error)}") from None
        except Exception as error:
            raise NetworkFailed(
                f"The asset {self._at(digest)} cannot be read.",
                cause=self._why(error),
                hints=_hints(error),
            ) from None

    def _why(self, error: Exception) -> str:
        text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        text = next(iter(text.strip().splitlines()), "")[:300] or type(error).__name__
        for secret in _secrets(self._url):
            text = text.replace(secret, "***")
        return _without_secrets(text)


def open_url(url: str) -> tuple[Any, str]:
    """fsspec's file system for a URL, and the path in it.

    Raises MissingPackage, and OutputFailed for an address that fsspec does not know.
    """
    protocol = url.partition("://")[0].rpartition("::")[2]
    try:
        # By name: fsspec has no types.
        fs, path = importlib.import_module("fsspec").url_to_fs(url)
    except ImportError as error:
        needed = _PACKAGES.get(protocol, "fsspec" if error.name == "fsspec" else None)
        raise MissingPackage(
            f"Assets at {protocol}:// need a package that is not installed.",
            cause=str(error),
            hints=[*([f"pip install {needed}"] if needed else []), "or set assets to a folder"],
        ) from error
    except Exception as error:
        raise OutputFailed(
            f"{_without_secrets(url)} is no place for assets.",
            cause=f"fsspec cannot open it ({type(error).__name__}).",
            hints=["Use a folder, or an address such as s3://bucket/folder."],
        ) from None
    return fs, str(path)


def _protocols(fs: Any) -> frozenset[str]:
    return frozenset((fs.protocol,) if isinstance(fs.protocol, str) else fs.protocol)


def _write(file: Any, data: bytes, folder: Path) -> None:
    with writing_to(folder):
        file.write(data)


def _in_pieces(first: bytes, others: Iterator[bytes]) -> Iterator[bytes]:
    data = first
    while data:
        for start in range(0, len(data), PIECE):
            yield data[start : start + PIECE]
        data = next(others, b"")


def _without_secrets(text: str) -> str:
    """Text whose addresses have neither user nor query, both of which may hold credentials."""
    return _QUERY.sub(r"\1", _USER.sub("", text))


def _secrets(url: str) -> set[str]:
    """What stands in a URL beside the place that it names."""
    with suppress(ValueError):
        parts = urlsplit(url)
        found = {parts.password or "", parts.query}
        return {secret for text in found if text for secret in (text, unquote(text))}
    return set()


def _hints(error: Exception) -> list[str]:
    if isinstance(error, PermissionError) or "redential" in type(error).__name__:
        return [
            "Check the credentials in the environment, and that they allow to list, read, write"
            " and delete.",
        ]
    if isinstance(error, FileNotFoundError):
        return ["Create the bucket or folder, or correct the setting assets."]
    return ["Check the address, the network, and that the server runs; then try again."]
