"""How is one heard how far a server is, without asking it again and again?

A `Listener` is a thread with a websocket to one server under one client id: a server sends the
events of a prompt only to the id that came with it. The thread lives while there are prompts to
follow, connects again when the connection drops, and what it heard is looked at from outside. It
never decides that a prompt has ended: events may be lost, and a second connection under the same id
takes them all, so silence means only that one has to ask.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Mapping
from urllib.parse import quote

from kinoloom.backends.base import RemoteStatus
from kinoloom.backends.comfyui.events import HELLO, Reader, Watch

QUIET_SECONDS = 5.0
"""How long nothing may be heard of a prompt before the server is asked about it."""
MAX_MESSAGE = 8 * 2**20
"""Bytes of a message; the errors of nodes bring their inputs along. A larger one ends the
connection."""
MAX_WATCHED = 200
_FORGET_SECONDS = 900.0
"""A prompt that nobody has asked about for so long is another worker's by now."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 10.0
_OPEN_SECONDS = 3.0
_LOOK_SECONDS = 0.5


class Listener:
    """What is heard from a server about the prompts of one client id. Threads may share it."""

    def __init__(
        self, url: str, client_id: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._url = f"ws{url.removeprefix('http')}/ws?clientId={quote(client_id, safe='')}"
        self._clock = clock
        self._lock = threading.Lock()
        self._watches: dict[str, Watch] = {}
        self._asked: dict[str, float] = {}
        self._thread: threading.Thread | None = None
        self._tried, self._connected = threading.Event(), threading.Event()
        self._wake = threading.Event()

    def follow(self, prompt_id: str, planned: Mapping[str, int]) -> Watch:
        """Listen for a prompt, from now on if it is a new one; `planned`: its samplers' steps."""
        with self._lock:
            watch = self._watches.get(prompt_id)
            if watch is None:
                if len(self._watches) >= MAX_WATCHED:
                    self._drop(min(self._asked, key=self._asked.__getitem__))
                watch = self._watches[prompt_id] = Watch(planned)
            self._asked[prompt_id] = self._clock()
            # The thread may have been told to end and be at it still: then it goes on, and pauses.
            self._wake.clear()
            if self._thread is None:
                self._tried.clear()
                self._thread = threading.Thread(
                    target=self._run, name="kinoloom-comfyui", daemon=True
                )
                self._thread.start()
            return watch

    def forget(self, prompt_id: str) -> None:
        """Listen no more for a prompt; the connection is closed with the last one."""
        with self._lock:
            self._drop(prompt_id)
            if not self._watches:
                self._wake.set()

    @property
    def idle(self) -> bool:
        """Whether there is nothing to follow and no thread."""
        with self._lock:
            return self._thread is None

    def ready(self, seconds: float) -> bool:
        """Whether there is a connection, waiting so long for the first attempt to make one."""
        self._tried.wait(seconds)
        return self._connected.is_set()

    def fresh(self, watch: Watch) -> bool:
        """Whether what was heard of a prompt is all there is to know for now."""
        return (
            self._connected.is_set()
            and not watch.ended
            and watch.heard is not None
            and self._clock() - watch.heard < QUIET_SECONDS
        )

    def asked(self, watch: Watch, waits: RemoteStatus | None) -> None:
        """Take what the server said of a prompt as heard; `waits` where it has not begun."""
        if self._connected.is_set():
            watch.waits, watch.heard = waits, self._clock()

    def _drop(self, prompt_id: str) -> None:
        self._watches.pop(prompt_id, None)
        self._asked.pop(prompt_id, None)

    def _done(self) -> bool:
        """Whether there is nothing to follow any more; the thread is then no longer the one."""
        with self._lock:
            late = self._clock() - _FORGET_SECONDS
            for prompt_id in [p for p, asked in self._asked.items() if asked < late]:
                self._drop(prompt_id)
            if not self._watches:
                self._thread = None
            return self._thread is None

    def _run(self) -> None:
        from websockets.exceptions import InvalidHandshake, WebSocketException

        pause = _FIRST_PAUSE
        while not self._done():
            try:
                self._listen()
            except (OSError, InvalidHandshake, WebSocketException):
                pass  # whoever asks how far a prompt is asks the server itself then
            self._tried.set()
            was_connected = self._connected.is_set()
            self._connected.clear()
            with self._lock:
                for watch in self._watches.values():
                    watch.heard = None
            pause = _FIRST_PAUSE if was_connected else min(2 * pause, _LONGEST_PAUSE)
            self._wake.wait(pause * random.uniform(0.5, 1))

    def _listen(self) -> None:
        """Connect, and read until the connection drops or nothing is followed any more."""
        from websockets.sync.client import connect

        with connect(
            self._url,
            open_timeout=_OPEN_SECONDS,
            close_timeout=1,
            ping_timeout=60,
            max_size=MAX_MESSAGE,
            proxy=None,
        ) as connection:
            connection.send(HELLO)
            reader = Reader(self._watches.get, self._clock)
            self._connected.set()
            self._tried.set()
            while self._watches:
                try:
                    message = connection.recv(timeout=_LOOK_SECONDS)
                except TimeoutError:
                    if self._forgotten():
                        return
                    continue
                reader.read(message)

    def _forgotten(self) -> bool:
        late = self._clock() - _FORGET_SECONDS
        with self._lock:
            return all(asked < late for asked in self._asked.values())
