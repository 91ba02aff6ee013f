"""Do clients without a websocket, by stream or by polling, hear of the same events?"""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from event_server import STREAM, Served, in_threads, wait_for
from hearing import DEADLINE, new_job, numbers


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


# --- server-sent events -------------------------------------------------------------------------


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


# --- polling ------------------------------------------------------------------------------------


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
