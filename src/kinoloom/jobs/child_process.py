"""What does a parent know of its child process: what it says, whether it lives, how it ended?"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from pydantic import SecretStr

from kinoloom.config import Settings
from kinoloom.errors import KinoloomError, MissingPackage, TimedOut, WorkerUnavailable
from kinoloom.jobs.messages import MAX_LINE, error_from, unpack
from kinoloom.jobs.spawning import environment_of, is_secret, spawner

GRACE_SECONDS = 5.0
"""How long a child may take to its next step when it is asked to stop, or to end by itself."""

AGAIN = ("Run it again; a fresh process is started.",)

_REAPED_SECONDS = 10.0
_WAITING_MESSAGES = 1000
_KEPT_LINES, _KEPT_LENGTH, _SHOWN_LINES = 40, 500, 5
_SHORTEST_SECRET = 6
"""Characters; shorter values occur in ordinary text."""
_CRASHES_FROM = 256
"""Windows tells a crash by a larger exit code, which is known by its hexadecimal form."""
_OUT_OF_MEMORY = (
    "Close other programs, or make a smaller or shorter clip.",
    "Limit what models may hold: KINOLOOM_MEMORY_BUDGET.",
)


class ChildProcess:
    """A running child, with threads that read what it says.

    `heard` holds its messages, then None when its pipe was closed, or the error when it spoke
    nonsense, after which it is gone. `beats` counts its signs of life.
    """

    def __init__(self, settings: Settings, *, light: bool, threads: int | None) -> None:
        """Start it. Raises WorkerUnavailable when the system does not let us."""
        self._secrets = _secrets(settings)
        self._what = f"The process that {'reads media' if light else 'renders'}"
        # -P: what lies in the current folder is not taken for one of our modules.
        command = [sys.executable, "-P", "-m", "kinoloom.jobs.child"]
        command += ["light" if light else "full", str(os.getpid())]
        try:
            self._process = spawner.start(command, environment_of(light, threads))
        except OSError as error:
            raise WorkerUnavailable(
                f"{self._what} cannot be started.",
                cause=error.strerror or str(error),
                hints=("Close other programs, then run it again.",),
            ) from error
        self.pid = self._process.pid
        self.beats = 0
        self.heard: queue.Queue[dict[str, Any] | KinoloomError | None] = queue.Queue(
            _WAITING_MESSAGES
        )
        self._unheard = False
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)
        self._sending = threading.Lock()
        self._listener = self._thread(self._listen, "messages")
        self._keeper = self._thread(self._keep_errors, "errors")

    @property
    def running(self) -> bool:
        """Whether the process is there and its pipe is in order."""
        return self._process.poll() is None and self._listener.is_alive()

    def send(self, line: bytes, patience: float) -> None:
        """Send a packed message; a child that does not read it within `patience` seconds is killed.

        A broken pipe is no error here: whoever listens learns why.
        """
        watch = threading.Timer(patience, self.kill)
        watch.daemon = True
        watch.start()
        try:
            with self._sending, suppress(OSError, ValueError):  # ValueError: already closed
                _pipe(self._process.stdin).write(line)
                _pipe(self._process.stdin).flush()
        finally:
            watch.cancel()

    def await_end_of(self, number: int) -> None:
        """Wait until a call that was asked to stop has ended; kill the child if it takes long."""
        until = time.monotonic() + GRACE_SECONDS
        while (left := until - time.monotonic()) > 0:
            try:
                message = self.heard.get(timeout=left)
            except queue.Empty:
                break
            if message is None or isinstance(message, KinoloomError):
                break
            if message.get("number") == number and message.get("type") in ("result", "error"):
                return
        self.kill()

    def end(self) -> None:
        """Let the child end by itself, or kill it."""
        with suppress(OSError, ValueError):
            _pipe(self._process.stdin).close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_SECONDS)
        self.kill()

    def kill(self) -> None:
        """End the process and those that it started, and wait until it is gone."""
        self._unheard = True
        if sys.platform == "win32":
            self._process.kill()
        elif self._process.poll() is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):  # one that waits for a broken disk stays
            self._process.wait(_REAPED_SECONDS)
            # Not before: who is writing holds it until the other end is gone.
            with suppress(OSError, ValueError):
                _pipe(self._process.stdin).close()

    def told(self, data: Any) -> KinoloomError:
        """The error that the child told of. Raises AttributeError, KeyError, TypeError: none."""
        found = error_from(data)
        found.message, found.cause = self._redacted(found.message), self._redacted(found.cause)
        found.args = (found.message,)
        return found

    def silent(self, seconds: float) -> WorkerUnavailable:
        """The error of a child that did not say for so long that it is alive."""
        return WorkerUnavailable(
            f"{self._what} hung.",
            cause=self._with_last_lines(f"It gave no sign of life for {seconds:g} seconds."),
            hints=AGAIN,
        )

    def nonsense(self, what: object) -> WorkerUnavailable:
        """The error of a child that sent `what`, which is no message."""
        return WorkerUnavailable(
            f"{self._what} spoke nonsense, and was ended.",
            cause=self._with_last_lines(f"It sent {what}."),
            hints=AGAIN,
        )

    def died(self) -> KinoloomError:
        """The error of a child whose pipe is closed."""
        try:
            code = self._process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            code = None
        self._keeper.join(1.0)
        last = self._lines[-1] if self._lines else ""
        if code == 1 and last.startswith(("ModuleNotFoundError", "ImportError")):
            return MissingPackage(
                f"{self._what} cannot start.",
                cause=self._redacted(last),
                hints=["Install kinoloom again.", "kinoloom doctor"],
            )
        if sys.platform != "win32" and code == -signal.SIGXCPU:
            return TimedOut("The work computed for longer than its deadline.")
        cause, hints = _ending(code)
        return WorkerUnavailable(
            f"{self._what} died.", cause=self._with_last_lines(cause), hints=hints
        )

    def _with_last_lines(self, cause: str) -> str:
        said = self._redacted("\n".join(list(self._lines)[-_SHOWN_LINES:]))
        return f"{cause} Its last words:\n{said}" if said else cause

    def _redacted(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def _listen(self) -> None:
        out = _pipe(self._process.stdout)
        try:
            while line := out.readline(MAX_LINE + 1):
                try:
                    message = unpack(line)
                except ValueError:
                    if self.beats or not line.endswith(b"\n"):
                        raise
                    self._remember(line)  # what something printed before the child took over
                    continue
                self.beats += 1
                if message.get("type") != "alive":
                    self._hand_on(message)
        except (OSError, ValueError) as error:
            self.kill()  # before anybody can take it for one that works
            self._hand_on(self.nonsense(error))
        else:
            self._hand_on(None)
        finally:
            out.close()

    def _hand_on(self, heard: dict[str, Any] | KinoloomError | None) -> None:
        """Wait for room in `heard`, unless nobody will ever look there again."""
        while True:
            try:
                return self.heard.put(heard, timeout=1.0)
            except queue.Full:
                if self._unheard:
                    return None

    def _keep_errors(self) -> None:
        """Remember the last lines of standard error."""
        err = _pipe(self._process.stderr)
        with suppress(OSError, ValueError), err:
            while line := err.readline(MAX_LINE):
                self._remember(line)

    def _remember(self, line: bytes) -> None:
        # Bars draw themselves anew after each carriage return.
        text = line.decode("utf-8", "replace").rstrip().rpartition("\r")[2]
        if text:
            self._lines.append(text[:_KEPT_LENGTH])

    def _thread(self, work: Callable[[], None], name: str) -> threading.Thread:
        thread = threading.Thread(target=work, name=f"kinoloom-{name} of {self.pid}", daemon=True)
        thread.start()
        return thread


def _secrets(settings: Settings) -> list[str]:
    """What must not be shown of what a child says, the longest first."""
    values = {value for name, value in os.environ.items() if is_secret(name)}
    values |= set(_secrets_in(settings))
    return sorted((v for v in values if len(v) >= _SHORTEST_SECRET), key=len, reverse=True)


def _secrets_in(settings: Settings) -> Iterator[str]:
    for name in type(settings).model_fields:
        value = getattr(settings, name)
        if isinstance(value, SecretStr):
            text = value.get_secret_value()
            yield text
            if "://" in text and (password := urlsplit(text).password):
                yield password
                yield unquote(password)


def _ending(code: int | None) -> tuple[str, tuple[str, ...]]:
    """How a process ended, in words, and what to do about it."""
    if code is None:
        return "It closed its pipe and did not end.", AGAIN
    if code >= 0:
        return f"It ended with code {code if code < _CRASHES_FROM else hex(code)}.", AGAIN
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    if name == "SIGKILL":
        why = "It was killed (SIGKILL): by somebody, or by the system because memory ran out."
        return why, _OUT_OF_MEMORY
    return f"It was ended by {name}.", AGAIN


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("a process without pipes")
    return stream
