from __future__ import annotations

import asyncio
import json
import random
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from hearing import DEADLINE, new_job, numbers
from kinoloom.config import Settings
from kinoloom.jobs.service import JobService
from kinoloom.server import hub as hubs
from kinoloom.server import sse, websocket
from kinoloom.server.app import create_app
from kinoloom.store.keys import ApiKey
from kinoloom.store.store import Store
from serving import running

Message = dict[str, Any]

OPENINGS = {
    "websocket": b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n",
    "sse": b"GET /api/events HTTP/1.1\r\nHost: 127.0.0.1\r\nAccept: text/event-stream\r\n\r\n",
}


class Served:
    """A server of its own, the store behind it, and how to hear from it."""

    def __init__(self, app: FastAPI, store: Store, url: str) -> None:
        self.app, self.store, self.url = app, store, url
        self.address = url.replace("http", "ws", 1) + "/api/events"

    def websocket(
        self, query: str = "", **options: Any
    ) -> AbstractContextManager[ClientConnection]:
        return connect(self.address + query, open_timeout=DEADLINE, **options)


@contextmanager
def serving(home: Path, *, require_key: bool = False, **options: Any) -> Iterator[Served]:
    settings = Settings(home=home, rate_limit=0, **options)
    with Store.of(settings) as store:
        service = JobService(settings, store)
        try:
            app = create_app(settings, store, service, require_key=require_key)
            with running(app) as url:
                served = Served(app, store, url)
                try:
                    yield served
                finally:
                    app.state.hub.close()
        finally:
            service.close()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "home") as served:
        yield served


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Served]:
    """A server that wants a key."""
    with serving(tmp_path / "home", require_key=True) as served:
        yield served


@pytest.fixture(params=["sqlite", "postgresql"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    options = {}
    if request.param == "postgresql":
        options["database_url"] = request.getfixturevalue("current_postgres")
    with serving(tmp_path / "home", **options) as served:
        yield served


def said(client: ClientConnection) -> Message:
    message: Message = json.loads(client.recv(timeout=DEADLINE))
    return message


def heard(client: ClientConnection, until: int) -> list[Message]:
    """The events that a client is sent until it has heard of that number."""
    events: list[Message] = []
    last = 0
    while last < until:
        message = said(client)
        last = message["last"]
        events += message.get("events", [])
    return events


def how_it_ended(client: ClientConnection) -> tuple[int, str]:
    with suppress(ConnectionClosed):
        while True:
            client.recv(timeout=DEADLINE)
    assert client.close_code is not None
    return client.close_code, client.close_reason or ""


def in_threads(*functions: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    return threads


# --- websockets -----------------------------------------------------------------------------


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


# --- who may hear ---------------------------------------------------------------------------


def test_a_page_of_another_site_cannot_listen(server: Served) -> None:
    origin = "https://elsewhere.example"
    with pytest.raises(InvalidStatus) as caught, server.websocket(origin=origin):
        pass
    assert caught.value.response.status_code == 403
    with server.websocket(origin=server.url) as client:  # its own pages may
        assert said(client)["type"] == "heartbeat"


def test_a_browser_sends_its_key_as_a_subprotocol(guarded: Served) -> None:
    with pytest.raises(InvalidStatus) as caught, guarded.websocket():
        pass
    assert caught.value.response.status_code == 401
    key, secret = guarded.store.keys.create("browser", {"read"})
    with guarded.websocket(subprotocols=["kinoloom", f"kinoloom.key.{secret}"]) as client:
        assert client.subprotocol == "kinoloom"
        last = said(client)["last"]
        own = new_job(guarded.store, key)
        new_job(guarded.store)
        assert {event["job"] for event in heard(client, last + 1)} == {own}


def test_an_admin_hears_of_all_and_others_of_their_own_jobs(guarded: Served) -> None:
    store = guarded.store
    keys: dict[str, tuple[ApiKey, str]] = {
        "admin": store.keys.create("admin", {"admin"}),
        "one": store.keys.create("one", {"read"}),
        "two": store.keys.create("two", {"read"}),
    }
    jobs = {name: new_job(store, key) for name, (key, _) in keys.items()}
    everything = numbers(store)
    for name, expected in {"admin": everything, "one": everything[1:2]}.items():
        headers = {"Authorization": f"Bearer {keys[name][1]}"}
        with guarded.websocket("?after=0", additional_headers=headers) as client:
            events = heard(client, everything[-1])
            assert [event["number"] for event in events] == expected
        polled = httpx.get(guarded.url + "/api/events", headers=headers).json()
        assert [event["number"] for event in polled["events"]] == expected
    headers = {"Authorization": f"Bearer {keys['one'][1]}"}
    with guarded.websocket(f"?job={jobs['two']}", additional_headers=headers) as client:
        assert said(client)["kind"] == "not_found"
    answer = httpx.get(
        guarded.url + "/api/events", params={"job": jobs["two"]}, headers=headers | STREAM
    )
    assert answer.status_code == 404


def test_a_key_without_the_scope_hears_nothing(guarded: Served) -> None:
    _, secret = guarded.store.keys.create("writer", {"write"})
    headers = {"Authorization": f"Bearer {secret}"}
    with guarded.websocket(additional_headers=headers) as client:
        assert said(client)["kind"] == "forbidden"
        assert how_it_ended(client)[0] == 1008
    assert httpx.get(guarded.url + "/api/events", headers=headers).status_code == 403


def test_a_revoked_key_hears_no_more(guarded: Served) -> None:
    guarded.app.state.hub.heartbeat = 0.1
    key, secret = guarded.store.keys.create("brief", {"read"})
    headers = {"Authorization": f"Bearer {secret}"}
    with guarded.websocket(additional_headers=headers) as client:
        assert said(client)["type"] == "heartbeat"
        guarded.store.keys.revoke(key.id)
        assert how_it_ended(client) == (1008, "authentication")


# --- server-sent events ---------------------------------------------------------------------

STREAM = {"Accept": "text/event-stream"}


def streamed(server: Served, count: int, **options: Any) -> list[dict[str, str]]:
    """The fields of the first events of a stream."""
    events: list[dict[str, str]] = []
    fields: dict[str, str] = {}
    headers = STREAM | options.pop("headers", {})
    url = server.url + "/api/events"
    with httpx.stream("GET", url, headers=headers, timeout=DEADLINE, **options) as answer:
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("text/event-stream")
        for line in answer.iter_lines():
            name, _, value = line.partition(": ")
            if line:
                fields[name] = value
                continue
            if "data" in fields:
                events.append(fields)
            fields = {}
            if len(events) == count:
                break
    return events


def test_a_stream_resumes_after_the_last_event(server: Served) -> None:
    job = new_job(server.store)
    for n in range(5):
        server.store.events.add(job, "log", {"n": n})
    rows = server.store.events.after(0)
    first = streamed(server, 2, params={"after": 0, "job": job})
    assert [int(event["id"]) for event in first] == [row.number for row in rows[:2]]
    assert [event["event"] for event in first] == ["state", "log"]
    assert json.loads(first[1]["data"])["data"] == {"n": 0}
    # A browser repeats the address and adds where it was.
    rest = streamed(
        server, 4, params={"after": 0, "job": job}, headers={"Last-Event-ID": first[-1]["id"]}
    )
    assert [int(event["id"]) for event in rest] == [row.number for row in rows[2:]]


def test_a_silent_stream_sends_comments_and_moves_on(server: Served) -> None:
    server.app.state.hub.heartbeat = 0.1
    job, other = new_job(server.store), new_job(server.store)
    url = server.url + "/api/events"
    with httpx.stream("GET", url, headers=STREAM, params={"job": job}, timeout=DEADLINE) as answer:
        lines = answer.iter_lines()
        assert next(lines) == "retry: 2000"
        assert next(lines) == f"id: {numbers(server.store)[-1]}"
        number = server.store.events.add(other, "log", {})
        for line in lines:
            if line == f"id: {number}":
                break
            assert line in ("", ": heartbeat") or line.startswith("id: ")


def test_a_stream_that_nobody_reads_any_more_ends(server: Served) -> None:
    server.app.state.hub.heartbeat = 0.1
    clients = server.app.state.hub.clients
    with httpx.stream("GET", server.url + "/api/events", headers=STREAM, timeout=DEADLINE):
        wait_for(lambda: clients["sse"] == 1)
    wait_for(lambda: clients["sse"] == 0)


# --- polling --------------------------------------------------------------------------------


def test_polling_gives_pages_in_order(server: Served) -> None:
    job = new_job(server.store)
    for n in range(5):
        server.store.events.add(job, "progress", {"n": n})
    got: list[int] = []
    last = 0
    with httpx.Client(base_url=server.url) as client:
        while page := client.get("/api/events", params={"after": last, "limit": 4}).json():
            if not page["events"]:
                break
            got += [event["number"] for event in page["events"]]
            last = page["last"]
    assert page == {"events": [], "last": last}
    assert got == numbers(server.store)


def test_a_poll_may_wait_for_the_next_event(server: Served) -> None:
    job, other = new_job(server.store), new_job(server.store)
    last = numbers(server.store)[-1]
    answers: list[httpx.Response] = []

    def ask() -> None:
        answers.append(
            httpx.get(
                server.url + "/api/events",
                params={"after": last, "wait": 30, "job": job},
                timeout=DEADLINE * 2,
            )
        )

    (asking,) = in_threads(ask)
    wait_for(lambda: server.app.state.hub.clients["poll"] == 1)
    server.store.events.add(other, "log", {})
    number = server.store.events.add(job, "log", {})
    asking.join()
    assert [event["number"] for event in answers[0].json()["events"]] == [number]
    assert answers[0].json()["last"] == number


def test_a_poll_that_waits_in_vain_answers_with_nothing(server: Served) -> None:
    answer = httpx.get(server.url + "/api/events", params={"after": 7, "wait": 0.05})
    assert answer.json() == {"events": [], "last": 7}
    assert server.app.state.hub.clients["poll"] == 0


@pytest.mark.parametrize(
    "params",
    [{"after": -1}, {"after": 2**63}, {"limit": 0}, {"limit": 501}, {"wait": 31}, {"job": "a/b"}],
)
def test_what_a_poll_asks_for_has_bounds(server: Served, params: dict[str, Any]) -> None:
    answer = httpx.get(server.url + "/api/events", params=params)
    assert answer.status_code == 422
    assert answer.json()["kind"] == "invalid_params"


def wait_for(condition: Callable[[], bool]) -> None:
    async def waiting() -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.01)

    asyncio.run(waiting())
