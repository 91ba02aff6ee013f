"""Who holds a name or a device of this machine, and which of its processes are over?

Locks of files in the system's temporary folder: they end with the process that holds them, however
it ends.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from tempfile import gettempdir
from typing import Any

from filelock import FileLock, Timeout

from kinoloom.config import Settings

_BOOT = Path("/proc/sys/kernel/random/boot_id")
"""Names one run of one machine's kernel, whose processes alone see each other's locks."""
_OLD_MARKS = 86_400.0
"""Seconds after which a mark of a process that is over is of no use to anybody."""

_marking = threading.Lock()


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


def process_mark() -> Mapping[str, Any]:
    """What tells this process from every other one, for `has_ended`; JSON-ready.

    Empty where the system has nothing that could prove it.
    """
    with _marking:  # two marks at once would be one too many: the other's lock is given back
        return _own_mark()[1]


def has_ended(mark: Mapping[str, Any]) -> bool:
    """Whether the process of a mark is certainly over; False also where that cannot be said.

    A worker's lock would not do: a worker that stops gives it back, and its last calls may still be
    under way. That of a mark is never given back, so only the end of the process frees it. The file
    must be the very one that was locked, whatever has been put in its place.
    """
    if not mark or mark.get("boot") != _boot():
        return False
    file = _folder() / Path(str(mark.get("file"))).name
    if not file.is_file() or is_locked(file):
        return False
    return _identity(file) == (mark.get("device"), mark.get("inode"))


@cache
def _own_mark() -> tuple[FileLock, dict[str, Any]]:
    """A lock that is held as long as this process lives, and what it says to others."""
    _sweep_marks()
    name = f"process-{os.getpid()}-{secrets.token_hex(8)}.lock"
    lock = FileLock(_folder() / name)
    boot = _boot()
    if not boot:
        return lock, {}
    lock.acquire(timeout=0)
    device, inode = _identity(_folder() / name)
    return lock, {"boot": boot, "file": name, "device": device, "inode": inode}


def _sweep_marks() -> None:
    for file in _folder().glob("process-*.lock"):
        with suppress(OSError):
            if time.time() - file.stat().st_mtime > _OLD_MARKS and not is_locked(file):
                file.unlink()


def _identity(file: Path) -> tuple[int, int]:
    try:
        found = file.stat()
    except OSError:
        return 0, 0
    return found.st_dev, found.st_ino


def _boot() -> str:
    try:
        return _BOOT.read_text(encoding="ascii").strip()
    except OSError:
        return ""


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
