"""How is work done in another process, so that whatever happens there ends only that work?

`RenderProcess` keeps one child (`child.py`) and hands it commands. A crash, a kill, a hang, a
deadline and nonsense on the pipe each end the call with a named error and the child with it; the
next call starts a fresh one. This module loads neither numpy nor torch.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from kinoloom.config import Settings
from kinoloom.errors import Cancelled, KinoloomError, TimedOut, WorkerUnavailable
from kinoloom.jobs.child_process import AGAIN, GRACE_SECONDS, ChildProcess
from kinoloom.jobs.messages import pack

SILENCE_SECONDS = 120.0
"""A child reports each second that it is alive; after so long without a word it hangs."""

_POLL_SECONDS = 0.1


class RenderProcess:
    """One child process and the calls to it, one at a time; threads may share it.

    A light child decodes what strangers sent: it never loads torch, has few threads, no secrets in
    its environment, and limits on memory and time where the system has them.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        threads: int | None = None,
        light: bool = False,
        silence: float = SILENCE_SECONDS,
    ) -> None:
        """`threads` limits those of each library; after `silence` seconds a child hangs."""
        self._settings = settings
        self._threads = 1 if light and threads is None else threads
        self._light = light
        self._silence = silence
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None
        self._closed = False

    @property
    def pid(self) -> int | None:
        """The child's process id, None while none runs."""
        child = self._child
        return child.pid if child is not None and child.running else None

    def start(self) -> None:
        """Start the child now, so that it loads its libraries while something else is done.

        Raises WorkerUnavailable when the system does not let it.
        """
        with self._lock:
            self._started()

    def call(
        self,
        command: str,
        arguments: Mapping[str, Any],
        *,
        on_message: Callable[[dict[str, Any]], None] = lambda _: None,
        should_stop: Callable[[], bool] = lambda: False,
        timeout: float | None = None,
    ) -> dict[str, Any]:
        """Have the child do something (`commands.Commands`); its answer.

        `on_message` is called here with what the child tells meanwhile, `should_stop` ten times a
        second. When that is true, or when one of them raises, the child is to stop at its next
        step, and is killed after 5 seconds. `timeout` in seconds kills it at once.

        Raises Cancelled, TimedOut, the child's own KinoloomError, MissingPackage when it cannot
        start for lack of one, WorkerUnavailable when it died, hung or spoke nonsense, ValueError
        when the arguments are too large.
        """
        number = next(self._numbers)
        request = pack(
            {"do": command, "number": number, "arguments": dict(arguments), "timeout": timeout}
        )
        with self._lock:
            deadline = None if timeout is None else time.monotonic() + timeout
            child = self._started()
            try:
                child.send(request, self._silence)
                return self._follow(child, number, on_message, should_stop, deadline)
            except _Ended as ended:
                if self._closed:
                    raise _closed() from None
                raise ended.error from None
            except BaseException:
                child.send(pack({"do": "stop", "number": number}), GRACE_SECONDS)
                child.await_end_of(number)
                raise

    @contextmanager
    def another(self) -> Iterator[RenderProcess]:
        """One like it within the block, with a child of its own: nobody else waits for it."""
        with RenderProcess(
            self._settings, threads=self._threads, light=self._light, silence=self._silence
        ) as made:
            yield made

    def close(self) -> None:
        """End the child, and with WorkerUnavailable a call that waits for it."""
        self._closed = True
        if (child := self._child) is not None:
            child.end()
        # A call that was just about to start a child may have done so.
        if self._lock.acquire(timeout=GRACE_SECONDS):
            try:
                if (child := self._child) is not None:
                    child.end()
            finally:
                self._lock.release()

    def __enter__(self) -> RenderProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _started(self) -> ChildProcess:
        """The child that runs, or a fresh one."""
        if self._closed:
            raise _closed()
        if self._child is None or not self._child.running:
            if self._child is not None:
                self._child.kill()
            self._child = ChildProcess(self._settings, light=self._light, threads=self._threads)
            told = {"do": "set up", "settings": _plain(self._settings, self._light)}
            self._child.send(pack(told), self._silence)
        return self._child

    def _follow(
        self,
        child: ChildProcess,
        number: int,
        on_message: Callable[[dict[str, Any]], None],
        should_stop: Callable[[], bool],
        deadline: float | None,
    ) -> dict[str, Any]:
        """Listen until the child has answered. Raises _Ended when it need not be stopped."""
        silent, beats, asked = 0.0, child.beats, -_POLL_SECONDS
        while True:
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                child.kill()
                raise _Ended(_too_late())
            if now - asked >= _POLL_SECONDS:
                asked = now
                if should_stop():
                    raise Cancelled("The work was stopped.")
            try:
                message = child.heard.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                # Counted, not measured: after this process itself was stopped for a while, what
                # the child said meanwhile is still to be read.
                silent = silent + _POLL_SECONDS if child.beats == beats else 0.0
                beats = child.beats
                if silent >= self._silence:
                    child.kill()
                    raise _Ended(child.silent(self._silence)) from None
                continue
            silent = 0.0
            if message is None:
                raise _Ended(child.died())
            if isinstance(message, KinoloomError):
                raise _Ended(message)
            if message.pop("number", None) != number:
                continue  # what was left of a call before
            if message.get("type") in ("result", "error"):
                return _answer(child, message)
            on_message(message)


class _Ended(Exception):
    """The call ends with an error, and the child is idle or gone."""

    def __init__(self, error: KinoloomError) -> None:
        super().__init__(error)
        self.error = error


def _answer(child: ChildProcess, message: Mapping[str, Any]) -> dict[str, Any]:
    """The result of a call, or its error as _Ended."""
    try:
        if message["type"] == "error":
            raise _Ended(child.told(message["error"]))
        return dict(message["result"])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        child.kill()
        raise _Ended(child.nonsense("an answer without its parts")) from error


def _too_late() -> TimedOut:
    return TimedOut(
        "The work took longer than its deadline.",
        hints=("Allow more time, or make a smaller or shorter clip.",),
    )


def _closed() -> WorkerUnavailable:
    return WorkerUnavailable("The process that renders was ended.", hints=AGAIN)


def _plain(settings: Settings, light: bool) -> dict[str, Any]:
    """The settings as JSON; secrets only those that rendering needs to reach its services."""
    secret = ("cache_url", "database_url", "webhook_secret")
    data = settings.model_dump(mode="json", exclude=set(secret))
    if light:
        return data
    for name in ("cache_url", "database_url"):
        value = getattr(settings, name)
        data[name] = None if value is None else value.get_secret_value()
    return data
