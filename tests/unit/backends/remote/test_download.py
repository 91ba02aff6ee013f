from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from kinoloom.backends.remote import retries
from kinoloom.backends.remote.download import download
from kinoloom.errors import InvalidMedia, KinoloomError, NetworkFailed, NotFound, TooLarge

VIDEO = b"\0\0\0\x18ftypisom" + bytes(range(256)) * 400


class Host:
    """A host of one file; `answers` are done one a request, then it is served as it should."""

    def __init__(self) -> None:
        self.answers: list[Callable[[Any], None]] = []
        self.asked: list[tuple[str, str | None, str | None]] = []
        self.body = VIDEO
        host = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                asked = self.headers.get("Range"), self.headers.get("X-Key")
                host.asked.append((self.path, *asked))
                if host.answers:
                    host.answers.pop(0)(self)
                else:
                    host.serve(self)

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def serve(self, request: Any, *, cut: int | None = None, ranges: bool = True) -> None:
        """The file, or what was asked of it; only `cut` bytes of what is announced."""
        asked = request.headers.get("Range")
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked and ranges else 0
        body = self.body[start:]
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body[:cut])
        if cut is not None:
            request.close_connection = True

    def status(self, number: int, **headers: str) -> Callable[[Any], None]:
        """An answer without a body."""

        def answer(request: Any) -> None:
            request.send_response(number)
            request.send_header("Content-Length", "0")
            for name, value in headers.items():
                request.send_header(name, value)
            request.end_headers()

        return answer

    def cut(self, after: int, *, ranges: bool = True) -> Callable[[Any], None]:
        """An answer that breaks off."""
        return lambda request: self.serve(request, cut=after, ranges=ranges)


@pytest.fixture(autouse=True)
def _at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_SECONDS", 0.001)


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.server.shutdown()
    host.server.server_close()


@pytest.fixture
def fetch(host: Host, tmp_path: Path) -> Callable[..., Path]:
    def fetch(path: str = "/clip.mp4", **options: Any) -> Path:
        return download(host.url + path, tmp_path / "clip.mp4", **({"here": True} | options))

    return fetch


Fetch = Callable[..., Path]


def test_a_file_arrives_whole(fetch: Fetch) -> None:
    assert fetch().read_bytes() == VIDEO


def test_what_breaks_off_goes_on_where_it_did(host: Host, fetch: Fetch) -> None:
    host.answers = [host.cut(1000), host.cut(500)]
    assert fetch().read_bytes() == VIDEO
    assert [asked for _, asked, _ in host.asked] == [None, "bytes=1000-", "bytes=1500-"]


def test_a_host_that_cannot_go_on_begins_anew(host: Host, fetch: Fetch) -> None:
    host.answers = [host.cut(1000), lambda request: host.serve(request, ranges=False)]
    assert fetch().read_bytes() == VIDEO


def test_a_file_that_has_become_shorter_begins_anew(host: Host, fetch: Fetch) -> None:
    host.answers = [host.cut(1000), host.status(416)]
    assert fetch().read_bytes() == VIDEO
    assert host.asked[-1][1] is None


def test_an_address_that_expired_is_asked_for_anew(host: Host, fetch: Fetch) -> None:
    host.answers = [host.status(403)]
    assert fetch(refresh=lambda: f"{host.url}/new.mp4").read_bytes() == VIDEO
    assert [path for path, _, _ in host.asked] == ["/clip.mp4", "/new.mp4"]


def test_what_is_gone_for_good_says_so(host: Host, fetch: Fetch, tmp_path: Path) -> None:
    host.answers = [host.status(404)]
    with pytest.raises(NotFound, match="not have the finished video any more"):
        fetch()
    assert list(tmp_path.iterdir()) == []


def test_a_host_that_stays_broken_is_given_up(host: Host, fetch: Fetch) -> None:
    host.answers = [host.status(503)] * 9
    with pytest.raises(NetworkFailed) as caught:
        fetch()
    assert "503" in caught.value.cause
    assert len(host.asked) == retries.ATTEMPTS


def test_too_much_is_refused_announced_or_not(host: Host, fetch: Fetch, tmp_path: Path) -> None:
    with pytest.raises(TooLarge):
        fetch(limit=1000)

    def endless(request: Any) -> None:
        request.send_response(200)
        request.end_headers()
        request.wfile.write(VIDEO)
        request.close_connection = True

    host.answers = [endless]
    with pytest.raises(TooLarge, match="more than 1000"):
        fetch(limit=1000)
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.parametrize("body", [b"", b"<html>no</html>", b"\0" * 100])
def test_what_is_no_video_is_refused(host: Host, fetch: Fetch, body: bytes) -> None:
    host.body = body
    with pytest.raises(InvalidMedia, match="no video"):
        fetch()


def test_a_redirect_is_followed_without_the_key(host: Host, fetch: Fetch) -> None:
    other = host.url.replace("127.0.0.1", "localhost")
    host.answers = [host.status(302, Location=f"{other}/file.mp4")]
    assert fetch(headers={"X-Key": "secret"}).read_bytes() == VIDEO
    assert [(path, key) for path, _, key in host.asked] == [
        ("/clip.mp4", "secret"),
        ("/file.mp4", None),
    ]


def test_a_server_of_the_users_own_sends_nobody_elsewhere(host: Host, fetch: Fetch) -> None:
    other = host.url.replace("127.0.0.1", "localhost")
    host.answers = [host.status(302, Location=f"{other}/file.mp4")] * 9
    with pytest.raises(NetworkFailed, match="on to another one"):
        fetch(trusted=True)
    host.answers = []
    assert fetch(trusted=True).read_bytes() == VIDEO


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9/x", "http://10.0.0.1/x", "http://[::1]/x", "http://169.254.169.254/x"],
)
def test_no_service_sends_us_into_our_own_network(address: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkFailed, match="may call"):
        download(address, tmp_path / "clip.mp4")


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://example.org/x", "/etc/passwd"])
def test_only_the_web_is_downloaded_from(address: str, tmp_path: Path) -> None:
    with pytest.raises(KinoloomError):
        download(address, tmp_path / "clip.mp4", here=True)
    assert not (tmp_path / "clip.mp4").exists()


def test_an_endless_chain_of_redirects_ends(host: Host, fetch: Fetch) -> None:
    host.answers = [host.status(302, Location="/again")] * 99
    with pytest.raises(NetworkFailed):
        fetch()
