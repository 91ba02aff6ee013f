"""How is a child process started: with which environment, in which group, from which thread?"""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future

_SECRET_WORDS = ("KEY", "TOKEN", "SECRET", "PASSWORD")

_Started = Future[subprocess.Popen[bytes]]


class Spawner:
    """Starts processes from one thread that lives as long as this process.

    On Linux a child that asked to die with its parent dies with the thread that started it.
    """

    def __init__(self) -> None:
        self._wanted: queue.SimpleQueue[tuple[list[str], dict[str, str], _Started]]
        self._lock = threading.Lock()
        self._owner: int | None = None

    def start(self, command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """The process, with three pipes and a group of its own. Raises OSError."""
        with self._lock:
            if self._owner != os.getpid():  # a forked process has no such thread yet
                self._owner = os.getpid()
                self._wanted = queue.SimpleQueue()
                threading.Thread(target=self._work, name="kinoloom-spawner", daemon=True).start()
        started = _Started()
        self._wanted.put((command, environment, started))
        return started.result()

    def _work(self) -> None:
        while True:
            command, environment, started = self._wanted.get()
            try:
                started.set_result(_open(command, environment))
            except BaseException as error:
                started.set_exception(error)


spawner = Spawner()


def environment_of(light: bool, threads: int | None) -> dict[str, str]:
    """What a child finds in its environment; see `RenderProcess`."""
    # Its threads must not spin while they wait for each other: see `LocalBackend.render`.
    found = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ}
    if threads is not None:
        found |= dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads))
    if light:
        found = {name: value for name, value in found.items() if not is_secret(name)}
        # Each arena takes address space, of which a light child has little.
        found["MALLOC_ARENA_MAX"] = "2"
    return found


def is_secret(name: str) -> bool:
    """Whether an environment variable of this name holds what nobody may see."""
    return any(word in name.upper() for word in _SECRET_WORDS)


def _open(command: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    flags = 0
    if sys.platform == "win32":
        flags = subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW
    return subprocess.Popen(
        command,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=sys.platform != "win32",
        creationflags=flags,
    )
