"""Who may hear of what, and with which key?"""

from __future__ import annotations

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from event_server import STREAM, Served, heard, how_it_ended, said
from hearing import new_job, numbers
from kinoloom.store.keys import ApiKey


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
