"""Which store is open already? Opening one anew takes longer than finding a clip in it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from kinoloom.store import DATABASE_NAME
from kinoloom.store.store import Store

_lock = threading.Lock()
_held: tuple[tuple[Path, int, int, int], Store] | None = None


def held_store(home: Path) -> Store:
    """The store in `home`, open until another one is asked for or the process ends.

    It is opened anew when its database was replaced or removed, and in a forked process, which must
    not use its parent's connections. Raises as `Store.open` does.
    """
    global _held  # noqa: PLW0603 - one a process
    with _lock:
        if _held is not None:
            seen, store = _held
            if seen == _identity(home):
                return store
            if seen[1] == os.getpid():
                store.close()
            _held = None
        store = Store.open(home)
        mark = _identity(home)
        if mark is not None:
            _held = mark, store
        return store


def _identity(home: Path) -> tuple[Path, int, int, int] | None:
    """Which file the database is, seen from this process; None when there is none."""
    try:
        stat = (home / DATABASE_NAME).stat()
    except OSError:
        return None
    return home, os.getpid(), stat.st_dev, stat.st_ino
