from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fastapi import FastAPI, WebSocket
from starlette.testclient import TestClient, WebSocketDenialResponse

from kinoloom.errors import NotAuthenticated
from kinoloom.server.auth import accepted_subprotocol, caller_of
from kinoloom.server.deps import Reader, owner_of
from kinoloom.store.store import Store
from serving import local_client

SOCKET = "ws://127.0.0.1/test/socket"
Make = Callable[..., FastAPI]


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def test_on_this_machine_no_key_is_needed_and_everything_is_seen(shell: Make) -> None:
    client = local_client(shell())
    assert client.get("/test/read").json() == {"key": None, "owner": None}
    assert client.post("/test/write", json={}).status_code == 200
    assert client.get("/test/admin").status_code == 200


@pytest.mark.parametrize("path", ["/test/read", "/nowhere", "/api/openapi.json"])
def test_where_keys_are_needed_nothing_goes_without(shell: Make, path: str) -> None:
    answer = local_client(shell(require_key=True)).get(path)
    assert answer.status_code == 401
    assert answer.json()["kind"] == "authentication"
    assert "kinoloom keys create" in answer.json()["hints"][0]
    assert answer.headers["www-authenticate"].startswith("Bearer")


def test_a_server_with_keys_answers_under_any_name(shell: Make, store: Store) -> None:
    _, secret = store.keys.create("a", ["read"])
    far: dict[str, Any] = {"base_url": "https://studio.example", "client": ("203.0.113.9", 1)}
    client = local_client(shell(require_key=True), **far)
    assert client.get("/test/read", headers=bearer(secret)).json()["key"] == "a"


def test_probes_need_no_key(shell: Make) -> None:
    app = shell(require_key=True)
    assert local_client(app).get("/health").status_code == 200


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (["read"], {"/test/read"}),
        (["write"], {"/test/write"}),
        (["read", "write"], {"/test/read", "/test/write"}),
        (["admin"], {"/test/read", "/test/write", "/test/admin"}),
    ],
)
def test_a_key_may_what_its_scopes_say(
    shell: Make, store: Store, scopes: list[str], allowed: set[str]
) -> None:
    _, secret = store.keys.create("a", scopes)
    client = local_client(shell(require_key=True), headers=bearer(secret))
    statuses = {
        "/test/read": client.get("/test/read").status_code,
        "/test/write": client.post("/test/write", json={}).status_code,
        "/test/admin": client.get("/test/admin").status_code,
    }
    assert statuses == {path: 200 if path in allowed else 403 for path in statuses}


def test_a_key_sees_its_own_and_an_admin_all(shell: Make, store: Store) -> None:
    app = shell()  # a key that is given counts on this machine too
    key, secret = store.keys.create("a", ["read"])
    _, admin = store.keys.create("b", ["admin"])
    client = local_client(app)
    assert client.get("/test/read", headers=bearer(secret)).json()["owner"] == key.id
    assert client.get("/test/read", headers=bearer(admin)).json()["owner"] is None
    assert owner_of(None) is None


@pytest.mark.parametrize("require_key", [True, False])
@pytest.mark.parametrize("sent", ["kl_wrong", "", "kl_" + "x" * 100_000, "\xff", "a b"])
def test_a_wrong_key_is_refused_even_where_none_is_needed(
    shell: Make, require_key: bool, sent: str
) -> None:
    client = local_client(shell(require_key=require_key))
    answer = client.get("/test/read", headers={"Authorization": f"Bearer {sent}".encode("latin-1")})
    assert answer.status_code == 401


def test_what_openais_clients_must_send_is_no_key_where_none_is_needed(
    shell: Make, store: Store
) -> None:
    """They refuse to start without one, so people write anything."""
    _, secret = store.keys.create("a", ["read"])
    for require_key, sent, status in (
        (False, "sk-anything", 404),
        (False, "kl_wrong", 401),
        (False, secret, 404),
        (True, "sk-anything", 401),
        (True, secret, 404),
    ):
        client = local_client(shell(require_key=require_key))
        assert client.get("/v1/nowhere", headers=bearer(sent)).status_code == status


def test_a_revoked_key_ends_at_once(shell: Make, store: Store) -> None:
    key, secret = store.keys.create("a", ["read"])
    client = local_client(shell(require_key=True), headers=bearer(secret))
    assert client.get("/test/read").status_code == 200
    store.keys.revoke(key.id)
    assert client.get("/test/read").status_code == 401


def test_a_key_in_the_query_counts_for_nothing(shell: Make, store: Store) -> None:
    _, secret = store.keys.create("a", ["read"])
    client = local_client(shell(require_key=True))
    for name in ("key", "token", "api_key", "access_token"):
        assert client.get("/test/read", params={name: secret}).status_code == 401


@pytest.mark.parametrize("require_key", [True, False])
def test_no_body_is_read_of_a_caller_who_may_not(shell: Make, require_key: bool) -> None:
    app = shell(require_key=require_key)
    read = []

    async def body() -> Any:
        read.append(1)
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def call() -> list[Any]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append((message, len(read)))

        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": "POST",
            "path": "/test/write",
            "raw_path": b"/test/write",
            "query_string": b"",
            "scheme": "http",
            "headers": [(b"content-length", b"2"), (b"host", b"evil.example")],
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 8000),
        }
        await app(scope, body, send)
        return sent

    import anyio

    messages = anyio.run(call)
    assert messages[0][0]["status"] == (401 if require_key else 403)
    assert messages[1][1] == 0  # the answer was there before a byte was read


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("localhost:8000", 200),
        ("LOCALHOST", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example:8000", 403),
        ("[::1].evil.example", 403),
        ("localhost@evil.example", 403),
        ("0.0.0.0:8000", 403),
        ("169.254.169.254", 403),
        ("", 403),
    ],
)
def test_without_keys_the_host_must_be_this_machine(shell: Make, host: str, status: int) -> None:
    """A page of evil.example whose DNS suddenly says 127.0.0.1 is still of that name."""
    answer = local_client(shell()).get("/test/read", headers={"Host": host})
    assert answer.status_code == status


def test_without_keys_only_this_machine_is_answered(shell: Make) -> None:
    app = shell()
    for address, status in (("192.0.2.7", 403), ("::1", 200), ("::ffff:127.0.0.1", 200)):
        client = TestClient(app, base_url="http://127.0.0.1", client=(address, 1))
        assert client.get("/test/read").status_code == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": "http://127.0.0.1"}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "http://127.0.0.1:3000"}, 403),  # another program's page on this machine
        ({"Origin": "null"}, 403),
        ({"Origin": "https://studio.example"}, 200),
        ({"Sec-Fetch-Site": "same-origin"}, 200),
        ({"Sec-Fetch-Site": "none"}, 200),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "https://studio.example"}, 200),
    ],
)
def test_without_keys_pages_of_other_sites_change_nothing(
    shell: Make, headers: dict[str, str], status: int
) -> None:
    app = shell(cors_origins=("https://studio.example",))
    answer = local_client(app).post("/test/write", json={}, headers=headers)
    assert answer.status_code == status


def with_websocket(app: FastAPI) -> FastAPI:
    @app.websocket("/test/socket")
    async def socket(websocket: WebSocket, key: Reader) -> None:
        await websocket.accept(accepted_subprotocol(websocket.scope))
        await websocket.send_json({"key": key and key.name})
        await websocket.close()

    return app


def test_a_browser_opens_a_websocket_with_the_key_in_its_subprotocols(
    shell: Make, store: Store
) -> None:
    _, secret = store.keys.create("a", ["read"])
    client = local_client(with_websocket(shell(require_key=True)))
    offered = ["kinoloom", f"kinoloom.key.{secret}"]
    with client.websocket_connect(SOCKET, subprotocols=offered) as socket:
        assert socket.accepted_subprotocol == "kinoloom"  # never the key itself
        assert socket.receive_json() == {"key": "a"}
    with client.websocket_connect(SOCKET, headers=bearer(secret)) as socket:
        assert socket.accepted_subprotocol is None
        assert socket.receive_json() == {"key": "a"}


@pytest.mark.parametrize("protocols", [[], ["kinoloom"], ["kinoloom", "kinoloom.key.kl_wrong"]])
def test_a_websocket_without_a_valid_key_is_not_opened(shell: Make, protocols: list[str]) -> None:
    client = local_client(with_websocket(shell(require_key=True)))
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect(SOCKET, subprotocols=protocols),
    ):
        pass
    assert refused.value.status_code == 401
    assert refused.value.json()["kind"] == "authentication"


def test_a_page_of_another_site_opens_no_websocket(shell: Make) -> None:
    client = local_client(with_websocket(shell()))
    with client.websocket_connect(SOCKET) as socket:
        assert socket.receive_json() == {"key": None}
    with (
        pytest.raises(WebSocketDenialResponse) as refused,
        client.websocket_connect(SOCKET, headers={"Origin": "http://evil.example"}),
    ):
        pass
    assert refused.value.status_code == 403


def test_a_route_cannot_be_reached_around_the_gate() -> None:
    with pytest.raises(NotAuthenticated):
        caller_of({"type": "http"})
    with pytest.raises(NotAuthenticated):
        caller_of({"type": "http", "state": {"kinoloom.caller": None}})
