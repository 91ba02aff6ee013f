"""Which of the last used values still fit into a little memory?"""

from __future__ import annotations

import threading
from collections import OrderedDict


class MemoryCache:
    """Values in this process, at most `size` bytes of them: the least recently used goes first."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._values: OrderedDict[str, bytes] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes | None:
        """The value, from now on the most recently used one."""
        with self._lock:
            data = self._values.get(key)
            if data is not None:
                self._values.move_to_end(key)
            return data

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`; one that is larger than the whole cache is not kept."""
        with self._lock:
            self._bytes -= len(self._values.pop(key, b""))
            if len(data) > self.size:
                return
            self._values[key] = data
            self._bytes += len(data)
            while self._bytes > self.size:
                _, oldest = self._values.popitem(last=False)
                self._bytes -= len(oldest)

    def usage(self) -> tuple[int, int]:
        """How many values there are, and their bytes."""
        with self._lock:
            return len(self._values), self._bytes

    def clear(self) -> None:
        """Forget all."""
        with self._lock:
            self._values.clear()
            self._bytes = 0
