"""Does the server keep its promises over real connections?"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from kinoloom.config import Settings
from kinoloom.jobs.service import JobService
from kinoloom.server.app import create_app
from kinoloom.server.headers import HEADERS
from kinoloom.store.store import Store
from serving import raw_request, running

MIB = 1024**2
Start = Callable[..., str]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", max_upload=MIB, device="cpu")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.of(settings) as store:
        yield store


@pytest.fixture
def start(settings: Settings, store: Store) -> Iterator[Start]:
    """A function (settings that differ..., require_key=) -> the address of a running server."""
    with ExitStack() as stack:

        def start(*, require_key: bool = False, **changes: Any) -> str:
            changed = settings.model_copy(update=changes)
            service = JobService(changed, store)
            stack.callback(service.close)
            app: FastAPI = create_app(changed, store, service, require_key=require_key)
            return stack.enter_context(running(app))

        yield start


def head(method: str, path: str, url: str, *lines: str) -> bytes:
    host = url.removeprefix("http://")
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", "")).encode()


def test_nothing_of_the_server_is_named_and_every_answer_is_safe(start: Start) -> None:
    url = start()
    for path in ("/health", "/nowhere", "/api/jobs", "/api/jobs/%00", "/v1/videos?limit=x"):
        answer = httpx.get(f"{url}{path}")
        assert "server" not in answer.headers
        for name, value in HEADERS.items():
            assert answer.headers[name] == value


@pytest.mark.parametrize("declared", [str(100 * MIB), "9" * 15])
def test_a_length_that_is_too_large_is_refused_before_a_byte_is_sent(
    start: Start, declared: str
) -> None:
    url = start()
    answer = raw_request(
        url,
        head(
            "POST",
            "/api/plan",
            url,
            f"Content-Length: {declared}",
            "Content-Type: application/json",
            "Connection: close",
        ),
    )
    assert b" 413 " in answer.splitlines()[0]
    assert b'"kind":"too_large"' in answer


@pytest.mark.parametrize(
    ("kind", "limit"),
    [("application/json", MIB), ("multipart/form-data; boundary=x", 2 * MIB)],
)
def test_a_stream_without_an_end_is_cut_and_the_client_learns_why(
    start: Start, kind: str, limit: int
) -> None:
    url = start()
    port = int(url.rpartition(":")[2])
    begin = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    sent, answer = 0, b""
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        lines = (f"Content-Type: {kind}", "Transfer-Encoding: chunked")
        connection.sendall(head("POST", "/api/clips", url, *lines))
        if kind.startswith("multipart"):
            connection.sendall(b"%x\r\n%s\r\n" % (len(begin), begin))
        with contextlib.suppress(OSError):  # the server closes while we send
            while sent < 200 * MIB:
                connection.sendall(chunk)
                sent += 0x10000
        with contextlib.suppress(OSError):
            while data := connection.recv(65_536):
                answer += data
    # What was read is the limit, a little so that the answer gets through, and what the system
    # holds of a connection.
    assert limit < sent < limit + 40 * MIB
    assert b" 413 " in answer.splitlines()[0]
    assert b"connection: close" in answer.lower()


def test_a_stranger_uploads_nothing(start: Start) -> None:
    """The refusal is there before the body is: not a byte of it is sent here."""
    url = start(require_key=True)
    lines = ("Content-Type: multipart/form-data; boundary=x", f"Content-Length: {MIB}")
    answer = raw_request(url, head("POST", "/api/clips", url, *lines))
    assert b" 401 " in answer.splitlines()[0]


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "[::1].evil.example", "user@127.0.0.1"]
)
def test_a_name_that_dns_turned_to_this_machine_is_refused(start: Start, host: str) -> None:
    url = start()
    request = f"GET /api/jobs HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode()
    status = int(raw_request(url, request).split()[1])
    assert status in (400, 403)


def test_a_request_without_a_host_is_refused(start: Start) -> None:
    url = start()
    answer = raw_request(url, b"GET /api/jobs HTTP/1.0\r\n\r\n")
    assert int(answer.split()[1]) in (400, 403)


def test_what_a_proxy_would_add_is_not_believed(start: Start) -> None:
    url = start(rate_limit=2)
    statuses = [
        httpx.get(f"{url}/api/jobs", headers={"X-Forwarded-For": f"203.0.113.{n}"}).status_code
        for n in range(3)
    ]
    assert statuses == [200, 200, 429]


def test_a_page_of_another_site_reaches_nothing(start: Start) -> None:
    url = start()
    evil = {"Origin": "http://evil.example"}
    form = {"prompt": (None, "a cat")}  # a form is what pages can send without asking first
    assert httpx.post(f"{url}/api/clips", files=form, headers=evil).status_code == 403
    assert "access-control-allow-origin" not in httpx.get(f"{url}/api/jobs", headers=evil).headers
    with pytest.raises(InvalidStatus) as refused, connect_to(url, origin="http://evil.example"):
        pass
    assert refused.value.response.status_code == 403


def connect_to(url: str, **options: Any) -> Any:
    return connect(url.replace("http", "ws", 1) + "/api/events", proxy=None, **options)


def test_a_websocket_needs_the_key_and_never_repeats_it(start: Start, store: Store) -> None:
    url = start(require_key=True)
    _, secret = store.keys.create("a", ["read"])
    offered: Any = ["kinoloom", f"kinoloom.key.{secret}"]
    with connect_to(url, subprotocols=offered) as socket:
        assert socket.subprotocol == "kinoloom"
    with connect_to(url, additional_headers={"Authorization": f"Bearer {secret}"}):
        pass
    store.keys.revoke("a")
    for options in ({}, {"subprotocols": offered}, {"subprotocols": ["kinoloom"]}):
        with pytest.raises(InvalidStatus) as refused, connect_to(url, **options):
            pass
        assert refused.value.response.status_code == 401
        assert json.loads(refused.value.response.body)["kind"] == "authentication"


def test_a_key_sees_nothing_of_others(start: Start, store: Store) -> None:
    url = start(require_key=True)
    secrets = {name: store.keys.create(name, ["read", "write"])[1] for name in ("a", "b")}
    secrets["admin"] = store.keys.create("admin", ["admin"])[1]
    keys = {name: {"Authorization": f"Bearer {secret}"} for name, secret in secrets.items()}
    body = {"prompt": "a cat", "hold": True, "model": "spark"}
    made = httpx.post(f"{url}/api/clips", json=body, headers=keys["a"], timeout=60)
    assert made.status_code in (201, 202), made.text
    job = made.json()["id"]
    for name, status, count in (("a", 200, 1), ("b", 404, 0), ("admin", 200, 1)):
        assert httpx.get(f"{url}/api/jobs/{job}", headers=keys[name]).status_code == status
        listed = httpx.get(f"{url}/api/jobs", headers=keys[name]).json()
        assert len(listed["items"]) == count
    assert httpx.post(f"{url}/api/jobs/{job}/cancel", headers=keys["b"]).status_code == 404
    assert httpx.post(f"{url}/api/jobs/{job}/cancel", headers=keys["a"]).status_code == 200


@pytest.mark.parametrize("image_urls", [True, False])
def test_a_request_cannot_make_the_server_call_its_own_network(
    start: Start, image_urls: bool
) -> None:
    url = start(image_urls=image_urls)
    with socket.create_server(("127.0.0.1", 0)) as inside:
        inside.settimeout(0)
        port = inside.getsockname()[1]
        for target in (
            f"http://127.0.0.1:{port}/a.png",
            f"https://localhost:{port}/a.png",
            "http://169.254.169.254/latest/meta-data/",
            "https://10.0.0.1/a.png",
            "file:///etc/passwd",
            "/etc/passwd",
        ):
            for path, body in (
                ("/api/plan", {"prompt": "a cat", "image": target}),
                ("/v1/videos", {"prompt": "a cat", "input_reference": {"image_url": target}}),
            ):
                answer = httpx.post(f"{url}{path}", json=body, timeout=60)
                assert 400 <= answer.status_code < 500, answer.text
                assert "root:" not in answer.text
        with pytest.raises(BlockingIOError):  # nobody came
            inside.accept()


@pytest.mark.parametrize(
    "path",
    [
        "/api/clips/..%2f..%2f..%2fetc%2fpasswd/file",
        "/api/clips/%2e%2e/file",
        "/api/clips/..%5c..%5cwindows/file",
        "/api/jobs/%00/preview",
        "/v1/videos/video_..%2f..%2fkinoloom.db/content",
        "/../kinoloom.db",
    ],
)
def test_no_path_leads_to_a_file(start: Start, path: str) -> None:
    url = start()
    request = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode()
    answer = raw_request(url, request)
    assert int(answer.split()[1]) in (400, 404, 422)
    assert b"SQLite format" not in answer


def test_media_that_is_none_is_refused_by_its_content(start: Start) -> None:
    url = start()
    playlist = b"#EXTM3U\n#EXTINF:1,\nhttp://169.254.169.254/\n"
    for field in ("image", "video", "mask"):
        files = {field: ("cat.png", playlist, "image/png")}
        answer = httpx.post(f"{url}/api/plan", data={"prompt": "a cat"}, files=files, timeout=60)
        assert answer.status_code == 422, answer.text
        assert answer.json()["kind"] == "invalid_media"


_PROGRAM = """
import sys
from contextlib import contextmanager
from kinoloom.config import load_settings
from kinoloom.server.serve import serve

@contextmanager
def worker():
    print("worker started", flush=True)
    yield
    print("worker ended", flush=True)

serve(load_settings(), port=0, require_key=True, start_worker=worker,
      on_ready=lambda url: print("ready", url, flush=True))
heavy = {"torch", "numpy", "cv2", "av", "PIL"} & set(sys.modules)
print("heavy", sorted(heavy), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to wait for")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_and_its_log_holds_no_secret(
    settings: Settings, store: Store, tmp_path: Path, number: signal.Signals
) -> None:
    _, secret = store.keys.create("a", ["read", "write"])
    log = tmp_path / "log"
    environment = {**os.environ, "KINOLOOM_HOME": str(settings.home)}
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, "-c", _PROGRAM],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "worker started\n"
        found = re.fullmatch(r"ready (http://127\.0\.0\.1:\d+)\n", process.stdout.readline())
        assert found is not None, log.read_text()
        url = found[1]
        bearer = {"Authorization": f"Bearer {secret}"}
        assert httpx.get(f"{url}/api/jobs?q=in-query", headers=bearer).status_code == 200
        wrong = {"Authorization": f"Bearer {secret[:-1]}"}
        assert httpx.get(f"{url}/api/jobs", headers=wrong).status_code == 401
        offered: Any = ["kinoloom", f"kinoloom.key.{secret}"]
        stream = {"Accept": "text/event-stream", **bearer}
        with (
            httpx.stream("GET", f"{url}/api/events", headers=stream, timeout=30),
            connect_to(f"{url}", subprotocols=offered),
        ):
            process.send_signal(number)
            out, _ = process.communicate(timeout=60)
        assert out == "worker ended\nheavy []\n", log.read_text()
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
    lines = log.read_text()
    assert "GET /api/jobs 200" in lines
    assert secret[:-1] not in lines
    assert "in-query" not in lines
    assert "Traceback" not in lines
