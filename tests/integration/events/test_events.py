"""Does a client at a websocket hear of every event, once, in order, and whatever others do?"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from websockets.asyncio.client import connect as connect_async

from event_server import STREAM, Served, heard, how_it_ended, in_threads, said, serving, wait_for
from hearing import DEADLINE, new_job, numbers
from kinoloom.server import hub as hubs
from kinoloom.server import sse, websocket

OPENINGS = {
    "websocket": b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n",
    "sse": b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n",
}


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    options = {}
    if request.param == "postgresql":
        options["database_url"] = request.getfixturevalue("current_postgres")
    with serving(tmp_path / "home", **options) as served:
        yield served


def test_a_websocket_is_greeted_and_then_told_what_happens(server: Served) -> None:
    job = new_job(server.store)
    with server.websocket() as client:
        assert said(client) == {"type": "heartbeat", "last": numbers(server.store)[-1]}
        last = server.store.events.add(job, "progress", {"phase": "denoise", "step": 1})
        message = said(client)
    (event,) = message["events"]
    assert message["last"] == last
    assert {**event, "at": "then"} == {
        "number": last,
        "job": job,
        "type": "progress",
        "at": "then",
        "data": {"phase": "denoise", "step": 1},
    }


def test_batches_are_of_ten_at_most_and_keep_their_order(server: Served) -> None:
    job = new_job(server.store)
    for n in range(45):
        server.store.events.add(job, "log", {"n": n})
    with server.websocket("?after=0") as client:
        said(client)
        batches = [said(client) for _ in range(5)]
    assert [len(batch["events"]) for batch in batches] == [10, 10, 10, 10, 6]
    assert [event["number"] for batch in batches for event in batch["events"]] == numbers(
        server.store
    )


def test_a_client_that_comes_and_goes_hears_everything_once(either: Served) -> None:
    store = either.store
    jobs = [new_job(store) for _ in range(4)]
    turns = random.Random(20261121)

    def write(job: str) -> Callable[[], None]:
        def writing() -> None:
            for n in range(60):
                store.events.add(job, "log", {"n": n})

        return writing

    writers = in_threads(*(write(job) for job in jobs))
    got: list[int] = []
    last = 0

    def all_heard() -> bool:
        return not any(thread.is_alive() for thread in writers) and last >= numbers(store)[-1]

    while not all_heard():
        with either.websocket(f"?after={last}") as client:
            for _ in range(turns.randint(1, 6)):
                message = said(client)
                got += [event["number"] for event in message.get("events", [])]
                last = message["last"]
                if all_heard():
                    break
    assert got == numbers(store)
    assert len(got) == 4 * 61


def test_two_hundred_clients_hear_every_state(server: Served) -> None:
    store = server.store
    jobs = [new_job(store) for _ in range(5)]
    first = numbers(store)[-1]
    ready = threading.Event()

    def write() -> None:
        assert ready.wait(DEADLINE)
        for step in range(20):
            for job in jobs:
                store.events.add(job, "progress", {"step": step})
            store.events.add(jobs[step % 5], "state", {"state": "running", "step": step})

    async def client(greeted: asyncio.Semaphore) -> list[int]:
        states: list[int] = []
        async with connect_async(server.address, open_timeout=60) as websocket:
            json.loads(await websocket.recv())
            greeted.release()
            while len(states) < 20:
                message = json.loads(await websocket.recv())
                states += [e["number"] for e in message.get("events", []) if e["type"] == "state"]
        return states

    async def run() -> list[list[int]]:
        greeted = asyncio.Semaphore(0)
        async with asyncio.timeout(120), asyncio.TaskGroup() as tasks:
            clients = [tasks.create_task(client(greeted)) for _ in range(200)]
            for _ in clients:
                await greeted.acquire()
            assert server.app.state.hub.clients["websocket"] == 200
            ready.set()
        return [one.result() for one in clients]

    (writer,) = in_threads(write)
    told = asyncio.run(run())
    writer.join()
    states = [e.number for e in store.events.after(first, limit=1000) if e.type == "state"]
    assert len(states) == 20
    assert told == [states] * 200


@pytest.mark.parametrize("transport", ["websocket", "sse"])
def test_a_client_that_does_not_read_delays_nobody_and_is_let_go_of(
    server: Served, transport: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hubs, "_MOST_ENTRIES", 20)
    for module in (websocket, sse):
        monkeypatch.setattr(module, "BATCH_SECONDS", 0.0)
        monkeypatch.setattr(module, "SEND_SECONDS", 0.5)
    job = new_job(server.store)
    clients = server.app.state.hub.clients
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    with socket.socket() as stuck, server.websocket() as reader:
        said(reader)
        before = clients[transport]
        stuck.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        stuck.connect((host, int(port)))
        stuck.sendall(OPENINGS[transport])
        wait_for(lambda: clients[transport] == before + 1)
        for n in range(400):
            last = server.store.events.add(job, "log", {"n": n, "text": "x" * 20_000})
        assert [event["data"]["n"] for event in heard(reader, last)] == list(range(400))
        wait_for(lambda: clients[transport] == before)


def test_a_heartbeat_comes_when_nothing_happens_and_when_much_does(server: Served) -> None:
    server.app.state.hub.heartbeat = 0.2
    job = new_job(server.store)
    with server.websocket() as client:
        first, second = said(client), said(client)
        assert first == second == {"type": "heartbeat", "last": numbers(server.store)[-1]}
        ended = threading.Event()

        def write() -> None:
            while not ended.is_set():
                server.store.events.add(job, "log", {})

        (writer,) = in_threads(write)
        try:
            kinds = [said(client).get("type", "batch") for _ in range(20)]
        finally:
            ended.set()
            writer.join()
    assert "batch" in kinds
    assert kinds.count("heartbeat") >= 2


def test_a_client_may_change_its_subscription_and_ask_for_a_sign(server: Served) -> None:
    one, other = new_job(server.store), new_job(server.store)
    with server.websocket(f"?job={one}") as client:
        last = said(client)["last"]
        client.send('{"ping": true}')
        assert said(client) == {"type": "pong", "last": last}
        client.send(json.dumps({"subscribe": {"job": other, "after": 0}}))
        assert said(client) == {"type": "heartbeat", "last": 0}
        server.store.events.add(one, "log", {})
        number = server.store.events.add(other, "log", {})
        events = heard(client, number)
    assert [event["number"] for event in events] == numbers(server.store, job_id=other)


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ("hello", 1003),
        ("[]", 1003),
        ("{}", 1003),
        ('{"dance": true}', 1003),
        ('{"subscribe": {"after": -1}}', 1003),
        ('{"subscribe": {"job": "../x"}}', 1003),
        (b"\x00\x01", 1003),
        ('{"ping": true' + " " * 5000 + "}", 1009),
        ('{"subscribe": {"job": "nobody"}}', 1008),
    ],
)
def test_what_a_client_may_not_say_ends_it_with_a_code(
    server: Served, message: str | bytes, code: int
) -> None:
    with server.websocket() as client:
        said(client)
        client.send(message)
        assert how_it_ended(client)[0] == code


def test_a_client_is_told_what_it_said_wrong(server: Served) -> None:
    with server.websocket() as client:
        said(client)
        client.send('{"subscribe": {"after": "soon"}}')
        error = said(client)
    assert error["type"] == "error"
    assert error["kind"] == "invalid_params"
    assert [problem["field"] for problem in error["problems"]] == ["subscribe.after"]


@pytest.mark.parametrize(
    ("query", "kind"),
    [
        ("?job=nobody", "not_found"),
        ("?after=soon", "invalid_params"),
        ("?after=-1", "invalid_params"),
        ("?after=99999999999999999999", "invalid_params"),
        ("?since=3", "invalid_params"),
    ],
)
def test_a_wrong_address_is_explained(server: Served, query: str, kind: str) -> None:
    with server.websocket(query) as client:
        error = said(client)
        assert error["type"] == "error"
        assert error["kind"] == kind
        assert how_it_ended(client)[0] == 1008


def test_when_the_server_stops_clients_are_asked_to_come_back(server: Served) -> None:
    with ExitStack() as stack:
        client = stack.enter_context(server.websocket())
        said(client)
        stream = stack.enter_context(
            httpx.stream("GET", server.url + "/api/events", headers=STREAM, timeout=DEADLINE)
        )
        lines = stream.iter_lines()
        assert next(lines).startswith("retry:")
        server.app.state.hub.close()
        assert how_it_ended(client)[0] == 1012
        assert list(lines)[-1] == ""
