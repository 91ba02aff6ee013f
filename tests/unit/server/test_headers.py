from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from pydantic import ValidationError
from starlette.responses import Response

from kinoloom.config import Settings
from kinoloom.server.headers import HEADERS
from kinoloom.store.store import Store
from serving import local_client

Make = Callable[..., FastAPI]
ORIGIN = "https://studio.example"
PREFLIGHT = {
    "Origin": ORIGIN,
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization, content-type, idempotency-key",
}


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/test/read"), ("GET", "/nowhere"), ("PUT", "/test/read")]
)
def test_every_answer_has_the_headers(shell: Make, method: str, path: str) -> None:
    answer = local_client(shell()).request(method, path)
    for name, value in HEADERS.items():
        assert answer.headers[name] == value
    assert "server" not in answer.headers
    assert "default-src 'none'" in answer.headers["content-security-policy"]


def test_refusals_have_them_too(shell: Make) -> None:
    for answer in (
        local_client(shell(require_key=True)).get("/test/read"),
        local_client(shell()).get("/test/read", headers={"Host": "evil.example"}),
        local_client(shell()).post("/test/write", json={"a": "x" * 2_000_000}),
    ):
        assert answer.status_code in (401, 403, 413)
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_a_route_may_say_otherwise_what_may_be_cached(shell: Make) -> None:
    app = shell()

    @app.get("/test/file")
    def file() -> Response:
        return Response(b"", headers={"Cache-Control": "private, no-cache"})

    answer = local_client(app).get("/test/file")
    assert answer.headers.get_list("cache-control") == ["private, no-cache"]


def test_no_other_origin_may_read_by_default(shell: Make) -> None:
    client = local_client(shell())
    answer = client.get("/test/read", headers={"Origin": ORIGIN})
    assert not [name for name in answer.headers if name.startswith("access-control")]
    answer = client.options("/test/write", headers=PREFLIGHT)
    assert answer.status_code == 405
    assert not [name for name in answer.headers if name.startswith("access-control")]


@pytest.mark.parametrize("require_key", [True, False])
def test_the_origins_of_the_settings_may_call(shell: Make, store: Store, require_key: bool) -> None:
    app = shell(cors_origins=(ORIGIN,), require_key=require_key)
    client = local_client(app)
    answer = client.options("/test/write", headers=PREFLIGHT)  # browsers send no key with it
    assert answer.status_code == 200
    assert answer.headers["access-control-allow-origin"] == ORIGIN
    assert "access-control-allow-credentials" not in answer.headers
    answer = client.options("/test/write", headers=PREFLIGHT | {"Origin": "http://evil.example"})
    assert answer.status_code == 400
    assert "access-control-allow-origin" not in answer.headers
    _, secret = store.keys.create("a", ["read"])
    headers = {"Authorization": f"Bearer {secret}", "Origin": ORIGIN}
    answer = client.get("/test/read", headers=headers)
    assert answer.headers["access-control-allow-origin"] == ORIGIN


@pytest.mark.parametrize(
    "origin", ["*", "null", "studio.example", "https://studio.example/path", "https://*.example"]
)
def test_only_whole_origins_can_be_named(tmp_path: Path, origin: str) -> None:
    """With ``*`` any page that a user opens could read what is on a server without keys."""
    with pytest.raises(ValidationError, match="cors_origins"):
        Settings(home=tmp_path, cors_origins=(origin,))
    named = Settings(home=tmp_path, cors_origins="https://Studio.example/ http://localhost:3000")
    assert named.cors_origins == ("https://studio.example", "http://localhost:3000")


def test_a_refusal_can_be_read_by_a_page_that_may_call(shell: Make) -> None:
    client = local_client(shell(cors_origins=(ORIGIN,), require_key=True))
    answer = client.get("/test/read", headers={"Origin": ORIGIN})
    assert answer.status_code == 401
    assert answer.headers["access-control-allow-origin"] == ORIGIN


def test_the_log_has_a_line_a_request_and_no_secret(
    shell: Make, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    _, secret = store.keys.create("a", ["read", "write"])
    client = local_client(shell(require_key=True))
    with caplog.at_level(logging.DEBUG):
        headers = {"Authorization": f"Bearer {secret}"}
        client.get("/test/read", params={"token": "in the query"}, headers=headers)
        client.get("/test/read", headers={"Authorization": f"Bearer {secret}x"})
        client.post("/test/write", json={"password": "in the body"}, headers=headers)
    lines = [r.getMessage() for r in caplog.records if r.name == "kinoloom.access"]
    assert [line.rsplit(" ", 2)[0] for line in lines] == [
        "GET /test/read 200",
        "GET /test/read 401",
        "POST /test/write 200",
    ]
    ours = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("kinoloom"))
    assert secret not in ours
    assert "in the" not in ours


def test_a_path_cannot_forge_a_line_of_the_log(
    shell: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "kinoloom.access"):
        local_client(shell()).get("/a%0AGET%20/forged%20200")
    lines = [r.getMessage() for r in caplog.records if r.name == "kinoloom.access"]
    assert len(lines) == 1
    assert "\n" not in lines[0]
