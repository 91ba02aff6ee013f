"""How are values kept on the disk, within bounds, by several processes at once?

One file for each key. Its time of change is that of its last use; what was used longest ago goes
first. A file appears whole or not at all, and one that is damaged is as good as missing.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from kinoloom.store.cache.seal import seal, unseal

UNUSED_SECONDS = 30 * 86_400
"""How long a value stays that nobody asks for."""

_PART = ".part-"
# Unfinished files of a process that was killed go after a day; no put takes that long.
_STALE_SECONDS = 86_400


class DiskCache:
    """Values in `folder`, at most `size` bytes of them."""

    def __init__(self, folder: Path, size: int) -> None:
        self.folder = folder
        self.size = size

    def get(self, key: str) -> bytes | None:
        """The value; None when it is not there, too long unused, damaged or unreadable."""
        path = self.folder / key
        try:
            status = path.stat()
            expired = time.time() - status.st_mtime > UNUSED_SECONDS
            stored = None if expired or status.st_size > self.size else path.read_bytes()
        except OSError:
            return None
        data = unseal(key, stored)
        with suppress(OSError):  # another process may have removed it
            if data is None:
                path.unlink()
            else:
                os.utime(path)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` and remove what no longer fits. Raises OSError.

        A value that is larger than the whole cache is not kept.
        """
        stored = seal(key, data)
        if len(stored) > self.size:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        # No fsync: what a power cut spoils is noticed by its digest and made anew.
        handle, name = tempfile.mkstemp(prefix=_PART, dir=self.folder)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(stored)
            Path(name).replace(self.folder / key)
        finally:
            Path(name).unlink(missing_ok=True)
        self._trim(key)

    def usage(self) -> tuple[int, int]:
        """How many values there are, and their bytes on the disk."""
        sizes = [size for _, name, size in self._files() if not name.startswith(_PART)]
        return len(sizes), sum(sizes)

    def _trim(self, newest: str) -> None:
        """Remove what is too old, then the least recently used until the rest fits."""
        now = time.time()
        kept: list[tuple[float, str, int]] = []
        for used, name, size in self._files():
            limit = _STALE_SECONDS if name.startswith(_PART) else UNUSED_SECONDS
            if now - used > limit:
                self._remove(name)
            elif not name.startswith(_PART):
                kept.append((used, name, size))
        total = sum(size for _, _, size in kept)
        for _, name, size in sorted(kept):
            if total <= self.size:
                break
            # Clocks of network disks differ: the value just put may look like the oldest.
            if name != newest:
                self._remove(name)
                total -= size

    def _files(self) -> Iterator[tuple[float, str, int]]:
        """The time of the last use, the name and the size of each file."""
        with suppress(OSError), os.scandir(self.folder) as entries:
            for entry in entries:
                with suppress(OSError):  # another process may have removed it
                    status = entry.stat()
                    yield status.st_mtime, entry.name, status.st_size

    def _remove(self, name: str) -> None:
        with suppress(OSError):
            (self.folder / name).unlink()
