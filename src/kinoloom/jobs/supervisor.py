"""How does the server keep a worker running beside it?

The worker is a process of its own, so that nothing that happens in it ends the server. When it dies
it is started again under the same name, sooner or later by how often it died of late.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self

from kinoloom.config import Settings

_FIRST_PAUSE, _LONGEST_PAUSE = 0.5, 30.0
_STEADY_SECONDS = 60.0
"""A worker that lived so long did not die of how it was started."""
_END_SECONDS = 15.0

_log = logging.getLogger(__name__)


class WorkerSupervisor:
    """Runs `kinoloom worker` within a `with` block."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ending = threading.Event()
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name="kinoloom-supervisor", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the worker; what it was rendering waits for the next one."""
        with self._lock:
            self._ending.set()
            process = self._process
        if process is not None:
            process.terminate()
            try:
                process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
        self._thread.join(_END_SECONDS)

    def _keep(self) -> None:
        pause = _FIRST_PAUSE
        while not self._ending.is_set():
            with self._lock:
                if self._ending.is_set():
                    return
                process = self._process = self._start()
            try:
                process.wait(_STEADY_SECONDS)
            except subprocess.TimeoutExpired:
                pause = _FIRST_PAUSE
                process.wait()
            with suppress(OSError):
                process.stdin.close()  # type: ignore[union-attr]
            if self._ending.is_set():
                return
            _log.warning(
                "The worker ended with %s; it is started again in %.1f s.",
                process.returncode,
                pause,
            )
            self._ending.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _start(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "kinoloom", "worker", "--supervised"]
        command += ["--name", f"{socket.gethostname()}-serve"]
        return subprocess.Popen(
            command,
            # Its end tells the worker that this process is gone, on every system.
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env=os.environ | self._environment(),
            # A Ctrl-C in the terminal is for the server, which ends the worker in its own time.
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        """The settings that hold here, for those that a flag gave."""
        url = self._settings.database_url
        found = {"KINOLOOM_HOME": str(self._settings.home)}
        return found if url is None else found | {"KINOLOOM_DATABASE_URL": url.get_secret_value()}
