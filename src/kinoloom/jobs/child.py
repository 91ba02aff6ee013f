"""What does the process do that renders or decodes for another one?

It reads commands from its standard input and answers on a private copy of its standard output; the
number 1 itself becomes standard error, so that no library's print can end up between the answers.
It lives as long as its parent: it ends when its input does, and on Linux when the parent dies
whatever it is doing. `messages` is the language, `commands` what can be asked,
`render_process.RenderProcess` the other side.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from importlib import import_module
from typing import Any, BinaryIO

from kinoloom.config import Settings
from kinoloom.errors import InsufficientMemory, InvalidMedia, KinoloomError, MissingPackage
from kinoloom.jobs.messages import MAX_LINE, pack, unpack

_BEAT_SECONDS = 1.0
_LIGHT_BYTES = 4 * 2**30
"""Address space of a light child: an 8K video being decoded takes a quarter of it."""
_OOM_SCORE = "500"
"""Of 1000: when memory runs out, the kernel ends this process before any ordinary one."""
_CV_NO_MEMORY = -4
"""OpenCV's `StsNoMem`, the code of its errors for lack of memory."""
_LOST = 3
"""The exit code when the parent is gone or speaks nonsense."""


class _Wire:
    """The way to the parent; threads may share it."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, message: dict[str, Any]) -> None:
        """Send a message; without a parent the process ends. Raises ValueError: it is too long."""
        line = memoryview(pack(message))
        with self._lock:
            try:
                while line:
                    line = line[os.write(self._descriptor, line) :]
            except OSError:
                os._exit(_LOST)


class _Inbox:
    """What the parent sent: commands in their order, and which one is to stop."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._commands: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
        self._stopped = -1

    def next(self) -> dict[str, Any]:
        """The next command; waits for it."""
        return self._commands.get()

    def stopping(self, number: int) -> bool:
        """Whether the command of that number is to stop."""
        return self._stopped == number

    def listen(self) -> None:
        """Read until the parent is gone, and then end the process."""
        try:
            while line := self._stream.readline(MAX_LINE + 1):
                message = unpack(line)
                if message["do"] == "stop":
                    self._stopped = message["number"]
                else:
                    self._commands.put(message)
        except (OSError, ValueError, KeyError) as error:
            sys.stderr.write(f"The parent spoke nonsense: {error!r}\n")
            sys.stderr.flush()
        finally:
            os._exit(_LOST)  # whatever the other threads are in the middle of


def main() -> None:
    """Serve the parent whose process id is the second argument, as "light" or "full" the first."""
    light, parent = sys.argv[1] == "light", int(sys.argv[2])
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent decides
    _bind_to(parent)
    _limit(light)
    stream, wire = _pipes()
    inbox = _Inbox(stream)
    threading.Thread(target=inbox.listen, name="kinoloom-inbox", daemon=True).start()
    threading.Thread(target=_beat, args=(wire,), name="kinoloom-beat", daemon=True).start()
    settings = Settings(**inbox.next()["settings"])
    if not light:
        _import_ahead()
    _serve(settings, inbox, wire, light)


def _serve(settings: Settings, inbox: _Inbox, wire: _Wire, light: bool) -> None:
    """Carry out one command after the other."""
    from kinoloom.jobs.commands import Commands

    number = -1
    commands = Commands(
        settings,
        tell=lambda message: wire.send(message | {"number": number}),
        stopping=lambda: inbox.stopping(number),
    )
    while True:
        message = inbox.next()
        number = message["number"]
        if light:
            _allow_seconds(message["timeout"])
        try:
            answer = commands.run(message["do"], message["arguments"])
            wire.send({"type": "result", "number": number, "result": answer})
        except Exception as error:
            told = _explained(error, light).as_dict()
            wire.send({"type": "error", "number": number, "error": told})


def _explained(error: Exception, light: bool) -> KinoloomError:
    """The error as one with a kind; of an unknown one, standard error gets the traceback."""
    if isinstance(error, KinoloomError):
        return error
    if isinstance(error, MemoryError) or getattr(error, "code", None) == _CV_NO_MEMORY:
        if light:
            return InvalidMedia(
                "The picture or video takes more memory than one from outside may.",
                hints=["Use a smaller version."],
            )
        return InsufficientMemory(
            "The memory does not suffice.",
            cause=str(error),
            hints=["Close other programs, or make a smaller or shorter clip."],
        )
    traceback.print_exc()
    if isinstance(error, ImportError):
        return MissingPackage(
            "A package that this needs is not installed, or broken.",
            cause=str(error),
            hints=["kinoloom doctor"],
        )
    return KinoloomError(
        "Something went wrong that should not.", cause=f"{type(error).__name__}: {error}"
    )


def _pipes() -> tuple[BinaryIO, _Wire]:
    """Where commands come from and answers go, out of the reach of everything else here."""
    source, target = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return os.fdopen(source, "rb"), _Wire(target)


def _beat(wire: _Wire) -> None:
    while True:
        wire.send({"type": "alive"})
        time.sleep(_BEAT_SECONDS)


def _import_ahead() -> None:
    """Load what every render needs, while the parent still plans."""
    with suppress(Exception):  # the render says what is missing
        import_module("kinoloom.backends.local.loader")


if sys.platform == "linux":
    import ctypes
    import resource
    from pathlib import Path

    _PR_SET_PDEATHSIG = 1  # linux/prctl.h

    def _bind_to(parent: int) -> None:
        """Die with the parent, even in the middle of a call that holds Python's lock."""
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before the line above
            os._exit(_LOST)

    def _limit(light: bool) -> None:
        """Be the first to go when memory runs out, and as a light child never take much."""
        with suppress(OSError):
            Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if light:
            _, hard = resource.getrlimit(resource.RLIMIT_AS)
            most = _LIGHT_BYTES if hard == resource.RLIM_INFINITY else min(hard, _LIGHT_BYTES)
            resource.setrlimit(resource.RLIMIT_AS, (most, most))

    def _allow_seconds(seconds: float | None) -> None:
        """Have the kernel end this process when a call computes for longer on all cores."""
        _, hard = resource.getrlimit(resource.RLIMIT_CPU)
        if seconds is None:
            resource.setrlimit(resource.RLIMIT_CPU, (hard, hard))
            return
        used = sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
        most = int(used + seconds * len(os.sched_getaffinity(0))) + 1
        if hard == resource.RLIM_INFINITY or most < hard:
            resource.setrlimit(resource.RLIMIT_CPU, (most, hard))

else:

    def _bind_to(parent: int) -> None:
        """Only the end of the input tells here that the parent is gone."""

    def _limit(light: bool) -> None:
        """Nothing is limited here."""

    def _allow_seconds(seconds: float | None) -> None:
        """The parent alone watches the time here."""


if __name__ == "__main__":
    main()
