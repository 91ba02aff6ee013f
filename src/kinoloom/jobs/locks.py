"""Who holds a name or a device of this machine?

Locks of files in the system's temporary folder: they end with the process that holds them, however
it ends.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import gettempdir

from filelock import FileLock, Timeout

from kinoloom.config import Settings


@contextmanager
def device_lock(device: str, give_up: Callable[[], bool]) -> Iterator[bool]:
    """Hold a GPU of this machine, whichever process asks: one render at a time on each.

    Gives False when `give_up` says so while it waits. A processor is shared by the system.
    """
    if device.startswith("cpu"):
        yield True
        return
    name = re.sub(r"\W+", "-", device.split(maxsplit=1)[0])
    lock = FileLock(_folder() / f"device-{name}.lock")
    while True:
        try:
            lock.acquire(timeout=0.2)
            break
        except Timeout:
            if give_up():
                yield False
                return
    try:
        yield True
    finally:
        lock.release()


def lock_file(settings: Settings, worker: str) -> Path:
    """The same for every process of this machine that uses the same database."""
    database = settings.database_url
    place = str(settings.home) if database is None else database.get_secret_value()
    name = hashlib.sha256(f"{place} {worker}".encode()).hexdigest()[:24]
    return _folder() / f"worker-{name}.lock"


def _folder() -> Path:
    user = str(os.getuid()) if hasattr(os, "getuid") else os.environ.get("USERNAME", "user")
    folder = Path(gettempdir()) / f"kinoloom-{user}"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def is_locked(file: Path) -> bool:
    """Whether a process holds the lock of a file."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False
