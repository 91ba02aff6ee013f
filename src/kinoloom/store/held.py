"""Which store is open already? Opening one anew takes longer than finding a clip in it."""

from __future__ import annotations

import os
import threading

from kinoloom.config import Settings
from kinoloom.store import DATABASE_NAME
from kinoloom.store.store import Store

_lock = threading.Lock()
_held: tuple[object, Store] | None = None
_process = 0


def held_store(settings: Settings) -> Store:
    """The store of these settings, open until another one is asked for or the process ends.

    It is opened anew when its database was replaced or removed, and in a forked process, which must
    not use its parent's connections. Raises as `Store.open` does.
    """
    global _held, _process  # noqa: PLW0603 - one a process
    with _lock:
        if _process != os.getpid():
            _held, _process = None, os.getpid()
        if _held is not None:
            seen, store = _held
            if seen == _identity(settings):
                return store
            store.close()
            _held = None
        store = Store.of(settings)
        mark = _identity(settings)
        if mark is not None:
            _held = mark, store
        return store


def _identity(settings: Settings) -> object:
    """What tells this store from others; None when its file is not there."""
    which = settings.home, settings.assets, settings.database_url
    if settings.database_url is not None:
        return which
    try:
        stat = (settings.home / DATABASE_NAME).stat()
    except OSError:
        return None
    return which, stat.st_dev, stat.st_ino
