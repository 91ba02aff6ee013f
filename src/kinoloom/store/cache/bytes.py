"""Is the value there already, and where?

Memory first, then the Redis server if the settings name one, else the disk. A server that cannot be
used is no failure: the disk serves in its place until the server is back.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import Literal, Self

from kinoloom.config import Settings
from kinoloom.store.cache.disk import DiskCache
from kinoloom.store.cache.memory import MemoryCache
from kinoloom.store.cache.seal import check_key
from kinoloom.store.cache.server import ServerCache, ServerLost

MEMORY_BYTES = 256_000_000
RETRY_SECONDS = 60.0
"""How long a server that failed is left alone."""

HITS, MISSES = "cache.hits", "cache.misses"
"""The names under which the counts are kept in the store's statistics."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class CacheStats:
    """What the cache did in this process, and what lies in it now.

    `bytes` and `entries` are those of `place`; `degraded` means that a server is set but the disk
    serves in its place.
    """

    hits: int
    misses: int
    bytes: int
    entries: int
    place: Literal["disk", "redis"]
    degraded: bool

    @property
    def hit_rate(self) -> float | None:
        """Hits among all questions, 0..1; None when nothing was asked."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else None


class ByteCache:
    """Bytes by key, where a key is a digest in hex. Threads and processes may share it.

    Neither a full disk nor a dead server raises: what cannot be kept is computed again.
    """

    def __init__(
        self, memory: MemoryCache, disk: DiskCache, server: ServerCache | None = None
    ) -> None:
        self._memory, self._disk, self._server = memory, disk, server
        self._lock = threading.Lock()
        self._counts = {HITS: 0, MISSES: 0}
        self._degraded = False
        self._retry_at = 0.0
        self._disk_failed = False

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """The cache that the settings describe; nothing is read or connected yet.

        Raises MissingPackage when a server is set and its client is not installed.
        """
        server = None
        if settings.cache_url is not None:
            url = settings.cache_url.get_secret_value()
            server = ServerCache(url, settings.cache_size, settings.cache_ttl)
        disk = DiskCache(settings.home / "cache" / "embeddings", settings.cache_size)
        return cls(MemoryCache(min(MEMORY_BYTES, settings.cache_size)), disk, server)

    def get(self, key: str) -> bytes | None:
        """The value of `key`, or None."""
        data = self._memory.get(check_key(key))
        if data is None:
            data = self._fetch(key)
            if data is not None:
                self._memory.put(key, data)
        with self._lock:
            self._counts[MISSES if data is None else HITS] += 1
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep `data` under `key`."""
        self._memory.put(check_key(key), data)
        if server := self._usable():
            try:
                server.put(key, data)
            except ServerLost as error:
                self._lost(server, error)
            else:
                self._back(server)
                return
        try:
            self._disk.put(key, data)
        except OSError as error:
            self._disk_full(error)

    def stats(self) -> CacheStats:
        """What was asked so far, and what there is."""
        place: Literal["disk", "redis"] = "disk"
        entries, size = 0, 0
        if server := self._usable():
            try:
                (entries, size), place = server.usage(), "redis"
                self._back(server)
            except ServerLost as error:
                self._lost(server, error)
        if place == "disk":
            entries, size = self._disk.usage()
        with self._lock:
            hits, misses = self._counts[HITS], self._counts[MISSES]
        return CacheStats(hits, misses, size, entries, place, self._degraded)

    def close(self) -> None:
        """Forget what is in memory and close the connections."""
        self._memory.clear()
        if self._server is not None:
            self._server.close()

    def _fetch(self, key: str) -> bytes | None:
        if server := self._usable():
            try:
                data = server.get(key)
            except ServerLost as error:
                self._lost(server, error)
            else:
                self._back(server)
                return data
        return self._disk.get(key)

    def _usable(self) -> ServerCache | None:
        """The server, unless it failed a moment ago."""
        with self._lock:
            waiting = self._degraded and time.monotonic() < self._retry_at
        return None if waiting else self._server

    def _lost(self, server: ServerCache, error: ServerLost) -> None:
        with self._lock:
            first, self._degraded = not self._degraded, True
            self._retry_at = time.monotonic() + RETRY_SECONDS
        if first:  # one warning for an outage, however long
            _log.warning(
                "The cache server %s cannot be used: %s The disk serves in its place.",
                server.name,
                str(error).rstrip(".") + ".",
            )

    def _back(self, server: ServerCache) -> None:
        with self._lock:
            was, self._degraded = self._degraded, False
        if was:
            _log.info("The cache server %s is back.", server.name)

    def _disk_full(self, error: OSError) -> None:
        with self._lock:
            first, self._disk_failed = not self._disk_failed, True
        if first:
            _log.warning(
                "The cache in %s cannot be written: %s.",
                self._disk.folder,
                error.strerror or type(error).__name__,
            )
