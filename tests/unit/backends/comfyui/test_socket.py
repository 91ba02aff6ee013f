"""A listener against a websocket server whose words the test says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from websockets.sync.server import Server, ServerConnection, serve

from kinoloom.backends.base import RemoteStatus
from kinoloom.backends.comfyui import socket
from kinoloom.backends.comfyui.socket import MAX_WATCHED, QUIET_SECONDS, Listener

DEADLINE = 20.0


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Speaker:
    """A server that keeps its connections and the first message of each."""

    def __init__(self) -> None:
        self.connections: list[ServerConnection] = []
        self.paths: list[str] = []
        self.hellos: list[object] = []
        self.gone = 0
        self._server: Server = serve(self._talk, "127.0.0.1", 0)
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/base"

    def _talk(self, connection: ServerConnection) -> None:
        assert connection.request is not None
        self.paths.append(connection.request.path)
        self.hellos.append(json.loads(connection.recv()))
        self.connections.append(connection)
        for _ in connection:
            pass
        self.gone += 1

    def say(self, event: str, **data: object) -> None:
        self.connections[-1].send(json.dumps({"type": event, "data": data}))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join(DEADLINE)


@pytest.fixture
def speaker() -> Iterator[Speaker]:
    server = Speaker()
    yield server
    server.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


def wait(good: Callable[[], object]) -> None:
    end = time.monotonic() + DEADLINE
    while not good():
        assert time.monotonic() < end
        time.sleep(0.005)


def test_it_says_who_it_is_and_what_it_understands(speaker: Speaker, clock: Clock) -> None:
    listener = Listener(speaker.url, "a client/1", clock=clock)
    listener.follow("p", {})
    assert listener.ready(DEADLINE)
    wait(lambda: speaker.hellos)
    assert speaker.paths == ["/base/ws?clientId=a%20client%2F1"]
    hello = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
    assert speaker.hellos == [hello]
    listener.forget("p")


def test_what_is_heard_is_fresh_for_a_while(speaker: Speaker, clock: Clock) -> None:
    listener = Listener(speaker.url, "c", clock=clock)
    watch = listener.follow("p", {"3": 4})
    assert not listener.fresh(watch)
    wait(lambda: speaker.connections)
    speaker.say("progress", prompt_id="p", node="3", value=1, max=4)
    wait(lambda: listener.fresh(watch))
    assert watch.steps == (1, 4)
    clock.now += QUIET_SECONDS
    assert not listener.fresh(watch)
    speaker.say("progress", prompt_id="p", node="3", value=2, max=4)
    wait(lambda: listener.fresh(watch))
    speaker.say("executing", prompt_id="p", node=None)
    wait(lambda: not listener.fresh(watch))  # over: now one has to ask
    listener.forget("p")


def test_nothing_is_fresh_after_the_connection_dropped(speaker: Speaker, clock: Clock) -> None:
    listener = Listener(speaker.url, "c", clock=clock)
    watch = listener.follow("p", {"3": 4})
    wait(lambda: speaker.connections)
    speaker.say("progress", prompt_id="p", node="3", value=1, max=4)
    wait(lambda: listener.fresh(watch))
    speaker.connections[0].close()
    wait(lambda: len(speaker.connections) == 2)
    assert not listener.fresh(watch)
    assert watch.steps == (1, 4)  # what is known stays known
    speaker.say("progress", prompt_id="p", node="3", value=3, max=4)
    wait(lambda: listener.fresh(watch))
    listener.forget("p")


def test_the_connection_is_closed_with_the_last_prompt(speaker: Speaker, clock: Clock) -> None:
    listener = Listener(speaker.url, "c", clock=clock)
    for prompt in ("p", "q"):
        listener.follow(prompt, {})
    wait(lambda: speaker.connections)
    listener.forget("p")
    assert not listener.idle
    listener.forget("q")
    wait(lambda: listener.idle and speaker.gone == 1)
    listener.follow("r", {})  # it begins anew
    wait(lambda: len(speaker.connections) == 2)
    listener.forget("r")


def test_a_prompt_that_nobody_asks_about_is_forgotten(
    speaker: Speaker, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "_LOOK_SECONDS", 0.01)
    listener = Listener(speaker.url, "c", clock=clock)
    listener.follow("p", {})
    wait(lambda: speaker.connections)
    clock.now += 3600
    wait(lambda: listener.idle)


def test_only_so_many_are_followed(speaker: Speaker, clock: Clock) -> None:
    listener = Listener(speaker.url, "c", clock=clock)
    for number in range(MAX_WATCHED + 5):
        clock.now += 0.001
        listener.follow(f"p{number}", {})
    assert len(listener._watches) == MAX_WATCHED
    assert "p4" not in listener._watches
    for number in range(MAX_WATCHED + 5):
        listener.forget(f"p{number}")


def test_a_server_without_sockets_is_tried_again(clock: Clock) -> None:
    listener = Listener("http://127.0.0.1:9", "c", clock=clock)
    watch = listener.follow("p", {})
    assert not listener.ready(DEADLINE)
    assert not listener.fresh(watch)
    assert not listener.idle
    listener.forget("p")
    wait(lambda: listener.idle)


def test_following_twice_is_following_once(speaker: Speaker, clock: Clock) -> None:
    listener = Listener(speaker.url, "c", clock=clock)
    assert listener.follow("p", {"3": 4}) is listener.follow("p", {})
    listener.forget("p")
    listener.forget("p")
    wait(lambda: listener.idle)


def test_what_was_asked_counts_as_heard_while_it_listens(speaker: Speaker, clock: Clock) -> None:
    listener = Listener(speaker.url, "c", clock=clock)
    watch = listener.follow("p", {"3": 4})
    assert listener.ready(DEADLINE)
    waits = RemoteStatus("queued", detail="2 before it")
    listener.asked(watch, waits)
    assert listener.fresh(watch)
    assert watch.waits == waits
    clock.now += QUIET_SECONDS
    assert not listener.fresh(watch)
    wait(lambda: speaker.connections)
    speaker.say("execution_start", prompt_id="p")
    wait(lambda: listener.fresh(watch))
    assert watch.waits is None  # it has begun
    listener.forget("p")


def test_without_a_connection_what_was_asked_is_not_kept(clock: Clock) -> None:
    listener = Listener("http://127.0.0.1:9", "c", clock=clock)
    watch = listener.follow("p", {})
    listener.ready(DEADLINE)
    listener.asked(watch, RemoteStatus("queued"))
    assert not listener.fresh(watch)
    listener.forget("p")


class Pauses(threading.Event):
    """Notes whether each pause was one, and ends it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.real: list[bool] = []

    def wait(self, timeout: float | None = None) -> bool:
        self.real.append(not self.is_set())
        return True


def test_it_pauses_between_two_tries_after_another_prompt_took_the_place_of_the_last(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    listener, pauses = Listener("http://127.0.0.1:9", "me", clock=clock), Pauses()
    began, drop = threading.Event(), threading.Event()

    def listen() -> None:
        began.set()
        drop.wait(DEADLINE)
        raise ConnectionRefusedError

    monkeypatch.setattr(listener, "_listen", listen)
    monkeypatch.setattr(listener, "_wake", pauses)
    listener.follow("ours", {})
    assert began.wait(DEADLINE)
    # As when a server gives an order a number of its own.
    listener.forget("ours")
    listener.follow("theirs", {})
    drop.set()
    wait(lambda: len(pauses.real) >= 3)
    listener.forget("theirs")
    wait(lambda: listener.idle)
    assert all(pauses.real[:3])
