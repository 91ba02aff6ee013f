from __future__ import annotations

import gzip
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kinoloom.config import Settings
from kinoloom.errors import InvalidMedia, KinoloomError, NetworkFailed, TooLarge
from kinoloom.net import guarded_client
from kinoloom.server import fetch
from kinoloom.server.fetch import fetch_image, fetch_with

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 100


class Pictures:
    """A real HTTP server on loopback, which counts who came; `answers` by path."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.headers: list[Any] = []
        pictures = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                pictures.asked.append(self.path)
                pictures.headers.append(self.headers)
                status, headers, body = pictures.answer(self.path)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                try:
                    for part in body:
                        self.wfile.write(part)
                except OSError:  # the client has had enough
                    pass

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def answer(self, path: str) -> tuple[int, dict[str, str], Any]:
        if path.startswith("/to?"):
            return 302, {"Location": path[4:]}, []
        if path.startswith("/loop"):
            return 307, {"Location": "/loop"}, []
        return {
            "/cat.png": (200, {}, [PNG]),
            "/page": (200, {"Content-Type": "image/png"}, [b"<html>"]),
            "/large": (200, {}, (b"x" * 65_536 for _ in range(10_000))),
            "/packed": (200, {"Content-Encoding": "gzip"}, [gzip.compress(PNG)]),
        }.get(path, (404, {}, [b"no"]))

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@pytest.fixture
def pictures() -> Iterator[Pictures]:
    server = Pictures()
    yield server
    server.close()


@pytest.fixture
def allowed(settings: Settings) -> Settings:
    return settings.model_copy(update={"image_urls": True})


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """Host name -> the addresses that our DNS gives for it, once each; the last one stays."""
    known: dict[str, list[str]] = {}
    really = socket.getaddrinfo

    def look_up(host: Any, port: Any, *rest: Any, **options: Any) -> Any:
        text = host.decode() if isinstance(host, bytes) else str(host)
        if text in known:
            answers = known[text]
            host = answers.pop(0) if len(answers) > 1 else answers[0]
        elif text.strip("0123456789.:abcdef"):
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return really(host, port, *rest, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    return known


def get(pictures: Pictures, url: str, *, limit: int = 10_000) -> bytes:
    """As `fetch_image` gets it, except that this machine and the server's port are allowed."""
    with guarded_client(timeout=10, loopback=True) as client:
        return fetch_with(client, url, limit=limit, ports=frozenset({80, 443, pictures.port}))


def test_a_picture_arrives(pictures: Pictures) -> None:
    assert get(pictures, f"{pictures.url}/cat.png#part") == PNG
    assert get(pictures, f"{pictures.url}/to?/to?/to?/cat.png") == PNG
    sent = pictures.headers[0]
    assert sent["Accept-Encoding"] == "identity"
    assert "Authorization" not in sent
    assert "Cookie" not in sent


def test_nothing_is_fetched_unless_the_settings_say_so(settings: Settings) -> None:
    with pytest.raises(InvalidMedia, match="fetches no pictures"):
        fetch_image("https://pictures.example/cat.png", settings)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://pictures.example/cat.png",
        "gopher://pictures.example/",
        "data:image/png;base64,AAAA",
        "//pictures.example/cat.png",
        "cat.png",
        "",
        "http://",
        "http:///cat.png",
        "http://user@pictures.example/",
        "http://user:password@pictures.example/",
        "http://@169.254.169.254\\@pictures.example/",
        "http://pictures.example:22/",
        "http://pictures.example:6379/",
        "https://pictures.example:8080/",
        "http://pictures.example:99999/",
        "http://[::1/",
        "http://pictures.example/\r\nHost: evil",
        "http://pictures.example/" + "x" * 3000,
    ],
)
def test_only_plain_urls_are_called(
    allowed: Settings, names: dict[str, list[str]], url: str
) -> None:
    names["pictures.example"] = ["127.0.0.1"]  # would be NetworkFailed if it were looked up
    with pytest.raises(InvalidMedia) as refused:
        fetch_image(url, allowed)
    assert "password" not in str(refused.value)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.1",
        "2130706433",
        "0x7f000001",
        "017700000001",
        "0.0.0.0",
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.64.0.1",
        "169.254.169.254",
        "192.0.2.1",
        "198.18.0.1",
        "224.0.0.1",
        "240.0.0.1",
        "255.255.255.255",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:10.0.0.1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b:1::a00:1]",
        "[2002:7f00:1::]",
        "[2002:a00:1::]",
        "[fe80::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "localhost",
    ],
)
def test_no_address_that_is_not_public_is_called(allowed: Settings, host: str) -> None:
    with pytest.raises(NetworkFailed):
        fetch_image(f"http://{host}/cat.png", allowed)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.1.2.3", "169.254.169.254", "::1", "fd00::1", "::ffff:127.0.0.1"]
)
def test_no_name_leads_inside(allowed: Settings, names: dict[str, list[str]], address: str) -> None:
    names["inside.example"] = [address]
    with pytest.raises(NetworkFailed, match="not one that this server may call"):
        fetch_image("http://inside.example/cat.png", allowed)


def test_a_redirect_does_not_lead_inside(pictures: Pictures, names: dict[str, list[str]]) -> None:
    """Loopback stands for the internet here; what is inside is inside still."""
    names["inside.example"] = ["10.0.0.1"]
    for target in (
        "http://10.0.0.1/",
        "http://169.254.169.254/latest/meta-data/",
        "http://[fd00::1]/",
        "http://inside.example/",
    ):
        with pytest.raises(NetworkFailed, match="not one that this server may call"):
            get(pictures, f"{pictures.url}/to?{target}")
    for target in ("file:///etc/passwd", "http://127.0.0.1:1/", "http://u:p@127.0.0.1/"):
        with pytest.raises(InvalidMedia):
            get(pictures, f"{pictures.url}/to?{target}")
    assert len(pictures.asked) == 7  # each was asked for the redirect, and for nothing else


def test_loopback_is_never_reached_by_a_redirect(
    pictures: Pictures, allowed: Settings, names: dict[str, list[str]]
) -> None:
    names["inside.example"] = ["127.0.0.1"]
    with guarded_client(timeout=10) as client, pytest.raises(NetworkFailed):
        fetch_with(
            client,
            f"http://inside.example:{pictures.port}/cat.png",
            limit=1000,
            ports=frozenset({pictures.port}),
        )
    assert pictures.asked == []


def test_a_name_that_changes_its_address_leads_nowhere_else(
    pictures: Pictures, names: dict[str, list[str]]
) -> None:
    """The connection goes to the address that was checked, whatever DNS says a moment later."""
    names["two-faced.example"] = ["127.0.0.1", "10.0.0.1"]
    assert get(pictures, f"http://two-faced.example:{pictures.port}/cat.png") == PNG
    assert pictures.headers[0]["Host"] == f"two-faced.example:{pictures.port}"
    with pytest.raises(NetworkFailed, match="not one that this server may call"):
        get(pictures, f"http://two-faced.example:{pictures.port}/cat.png")
    assert len(pictures.asked) == 1


def test_it_does_not_redirect_for_ever(pictures: Pictures) -> None:
    with pytest.raises(NetworkFailed) as failed:
        get(pictures, f"{pictures.url}/loop")
    assert "more than 3 times" in failed.value.cause
    assert len(pictures.asked) == 4


@pytest.mark.parametrize(
    ("path", "kind", "words"),
    [
        ("/large", TooLarge, "too large"),
        ("/packed", NetworkFailed, "packed"),
        ("/nothing", NetworkFailed, "404"),
    ],
)
def test_what_is_no_picture_of_a_sensible_size_is_refused(
    pictures: Pictures, path: str, kind: type[KinoloomError], words: str
) -> None:
    with pytest.raises(kind) as refused:
        get(pictures, f"{pictures.url}{path}")
    assert words in f"{refused.value.message} {refused.value.cause}"


def test_a_server_that_dribbles_is_left(
    pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch, "_ALL_SECONDS", 0.0)
    with pytest.raises(NetworkFailed) as failed:
        get(pictures, f"{pictures.url}/cat.png")
    assert "longer than" in failed.value.cause


def test_a_server_that_is_not_there_is_named(pictures: Pictures) -> None:
    with socket.socket() as nobody:  # bound, so that nobody else listens there, but not listening
        nobody.bind(("127.0.0.1", 0))
        pictures.port = nobody.getsockname()[1]
        with pytest.raises(NetworkFailed, match=r"127\.0\.0\.1 cannot be fetched"):
            get(pictures, f"http://127.0.0.1:{pictures.port}/cat.png")


@pytest.mark.parametrize(("path", "words"), [("/page", "none of these"), ("/cat.png", None)])
def test_the_content_decides_whether_it_is_a_picture(
    pictures: Pictures,
    allowed: Settings,
    monkeypatch: pytest.MonkeyPatch,
    path: str,
    words: str | None,
) -> None:
    through: Callable[..., bytes] = fetch_with
    monkeypatch.setattr(fetch, "guarded_client", lambda **o: guarded_client(loopback=True, **o))
    monkeypatch.setattr(
        fetch, "fetch_with", lambda *a, **o: through(*a, **o, ports=frozenset({pictures.port}))
    )
    if words is None:
        assert fetch_image(f"{pictures.url}{path}", allowed) == PNG
    else:
        with pytest.raises(InvalidMedia) as refused:
            fetch_image(f"{pictures.url}{path}", allowed)
        assert words in refused.value.cause
