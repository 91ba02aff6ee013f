from __future__ import annotations

import ipaddress
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from kinoloom.errors import NetworkFailed
from kinoloom.net import checked_addresses, guarded_client, is_loopback, is_public

PUBLIC = (
    "8.8.8.8",
    "1.1.1.1",
    "2606:4700:4700::1111",
    "64:ff9b::8.8.8.8",
    "2002:808:808::1",
)
CLOSED = (
    "0.0.0.0",
    "10.1.2.3",
    "100.64.0.1",
    "127.0.0.1",
    "127.255.255.254",
    "169.254.169.254",
    "172.16.0.1",
    "192.0.0.8",
    "192.168.1.1",
    "198.18.0.1",
    "203.0.113.7",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "::127.0.0.1",
    "::ffff:127.0.0.1",
    "::ffff:10.0.0.1",
    "64:ff9b::10.0.0.1",
    "64:ff9b:1::1",
    "2001:db8::1",
    "2002:a00:1::1",
    "2002:7f00:1::1",
    "fc00::1",
    "fe80::1",
    "ff02::1",
)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_internet_are_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", CLOSED)
def test_all_others_are_not(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


def test_this_machine_is_known_in_every_spelling() -> None:
    for address in ("127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"):
        assert is_loopback(ipaddress.ip_address(address))
    for address in ("10.0.0.1", "8.8.8.8", "::ffff:8.8.8.8", "::"):
        assert not is_loopback(ipaddress.ip_address(address))


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost", "::1"])
def test_this_machine_is_refused_in_every_spelling(host: str) -> None:
    with pytest.raises(NetworkFailed, match="not one that this server may call"):
        checked_addresses(host, 80)
    assert checked_addresses(host, 80, loopback=True)


@pytest.mark.parametrize("host", ["a..b", "x" * 70 + ".example", "\udc80"])
def test_what_is_no_name_is_a_known_error(host: str) -> None:
    with pytest.raises(NetworkFailed, match="cannot be found"):
        checked_addresses(host, 80)


class Resolver:
    """The names of the tests, each with its addresses at the first and at later questions."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.answers: dict[str, list[list[str]]] = {}
        self.asked: list[str] = []
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self)

    def __call__(self, host: Any, port: Any, *args: Any, **kwargs: Any) -> Any:
        name = host.decode() if isinstance(host, bytes) else host
        self.asked.append(name)
        answers = self.answers.get(name)
        if answers is None:
            return self._real(host, port, *args, **kwargs)
        if not answers:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        addresses = answers.pop(0) if len(answers) > 1 else answers[0]
        return [
            entry for address in addresses for entry in self._real(address, port, *args, **kwargs)
        ]


@pytest.fixture
def resolver(monkeypatch: pytest.MonkeyPatch) -> Resolver:
    return Resolver(monkeypatch)


@pytest.fixture
def server() -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """The port of a server on 127.0.0.1, and the hosts and paths that it was asked for."""
    asked: list[tuple[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append((self.headers["Host"], self.path))
            self.send_response(302 if self.path.startswith("/to/") else 200)
            self.send_header("Location", self.path.removeprefix("/to/"))
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
    thread.start()
    yield listener.server_port, asked
    listener.shutdown()
    listener.server_close()
    thread.join()


def test_the_connection_goes_to_the_address_that_was_checked(
    resolver: Resolver, server: tuple[int, list[tuple[str, str]]]
) -> None:
    port, asked = server
    # Asked a second time, the name would lead into the network.
    resolver.answers["rebound.example"] = [["127.0.0.1"], ["10.0.0.1"]]
    with guarded_client(timeout=5, loopback=True) as client:
        assert client.get(f"http://rebound.example:{port}/clip").status_code == 200
    assert resolver.asked.count("rebound.example") == 1
    assert asked == [(f"rebound.example:{port}", "/clip")]


def test_a_name_without_an_address_is_a_known_error(resolver: Resolver) -> None:
    resolver.answers["gone.example"] = []
    with pytest.raises(NetworkFailed, match="cannot be found") as caught:
        checked_addresses("gone.example", 80)
    assert caught.value.cause == "Name or service not known"


def test_one_address_inside_is_enough_to_refuse_a_name(resolver: Resolver) -> None:
    resolver.answers["both.example"] = [["8.8.8.8", "10.0.0.1"]]
    with pytest.raises(NetworkFailed, match="not one"):
        checked_addresses("both.example", 80)


def test_the_next_address_is_tried_when_one_takes_no_connection(
    resolver: Resolver, server: tuple[int, list[tuple[str, str]]]
) -> None:
    port, _ = server
    resolver.answers["two.example"] = [["127.0.0.2", "127.0.0.1"]]
    with guarded_client(timeout=5, loopback=True) as client:
        assert client.get(f"http://two.example:{port}/").status_code == 200


def test_a_redirect_is_checked_as_well(
    resolver: Resolver, server: tuple[int, list[tuple[str, str]]]
) -> None:
    port, asked = server
    resolver.answers["start.example"] = [["127.0.0.1"]]
    start = f"http://start.example:{port}"
    with guarded_client(timeout=5, loopback=True) as client:
        with pytest.raises(NetworkFailed, match=r"169\.254"):
            client.get(f"{start}/to/http://169.254.169.254/latest", follow_redirects=True)
        assert client.get(f"{start}/to//next", follow_redirects=True).status_code == 200
        assert asked[-1] == (f"start.example:{port}", "/next")  # still by its name


def test_no_proxy_of_the_environment_is_used(
    monkeypatch: pytest.MonkeyPatch, server: tuple[int, list[tuple[str, str]]]
) -> None:
    port, _ = server
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    with guarded_client(timeout=5, loopback=True) as client:
        assert client.get(f"http://127.0.0.1:{port}/").status_code == 200
