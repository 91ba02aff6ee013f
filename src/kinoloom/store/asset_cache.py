"""Which assets of a remote place lie on this disk, and which of them go when there are too many?

The files have the same names as in a folder of assets. Several processes may share one cache: a
file appears whole, and what one of them has just asked for, the others do not remove.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

from kinoloom.store.place import name_of, writing_to

CACHE_BYTES = 10 * 1024**3
# Whoever asked for a path opens it later (a model may be loaded first), so what was asked for
# within the last hour stays, even where that is more than the cache should hold.
_IN_USE_SECONDS = 3600


class AssetCache:
    """Copies of assets in `folder`, at most `limit` bytes; the longest unused go first."""

    def __init__(self, folder: Path, limit: int = CACHE_BYTES) -> None:
        self.folder = folder
        self.limit = limit

    def find(self, digest: str) -> Path | None:
        """The file with the asset's bytes, which counts as used now; None when it is not here."""
        path = self.folder / name_of(digest)
        try:
            status = path.stat()
        except FileNotFoundError:
            return None
        with suppress(OSError):
            # Only the time of access: file systems do not all keep it by themselves, and the time
            # of change may belong to a file that the user has as well (a hard link).
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
        return path

    def add(self, file: Path, digest: str) -> Path:
        """Take over a temporary file of this disk. Raises OutputFailed."""
        path = self.folder / name_of(digest)
        with writing_to(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            file.replace(path)
        self.find(digest)
        self._shrink()
        return path

    def drop(self, digest: str) -> None:
        """Remove the asset's copy, if there is one and nobody (on Windows) has it open."""
        with suppress(OSError):
            (self.folder / name_of(digest)).unlink()

    def _shrink(self) -> None:
        """Remove the longest unused copies until the rest fits."""
        found: list[tuple[float, int, Path]] = []
        for path in self.folder.glob("??/*"):
            with suppress(OSError):  # another process shrinks too
                status = path.stat()
                found.append((status.st_atime, status.st_size, path))
        total = sum(size for _, size, _ in found)
        oldest_in_use = time.time() - _IN_USE_SECONDS
        for used, size, path in sorted(found):
            if total <= self.limit or used > oldest_in_use:
                return
            with suppress(OSError):
                path.unlink()
                total -= size
