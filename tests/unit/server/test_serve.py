from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from kinoloom.config import Settings
from kinoloom.errors import Conflict, InvalidRequest, MissingPackage, NotAuthenticated
from kinoloom.server.serve import is_loopback, listening, serve, url_of
from kinoloom.store.store import Store


@pytest.mark.parametrize(
    ("host", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("", False),
        ("192.0.2.1", False),
    ],
)
def test_which_hosts_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("host", ["no such host", "a" * 300, "192.0.2.1"])
def test_a_host_that_is_not_this_machine_is_named(host: str) -> None:
    with pytest.raises(InvalidRequest, match="cannot listen there"), listening(host, 0):
        pass


def test_a_port_that_is_taken_is_named() -> None:
    with listening("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with (
            pytest.raises(Conflict, match=f"Port {port} of 127.0.0.1 is in use"),
            listening("127.0.0.1", port),
        ):
            pass


@pytest.mark.parametrize("port", [-1, 65_536])
def test_a_port_that_is_none_is_named(port: int) -> None:
    with pytest.raises(InvalidRequest), listening("127.0.0.1", port):
        pass


def test_the_address_is_one_that_a_browser_takes() -> None:
    with listening("0.0.0.0", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    if socket.has_ipv6:
        with listening("::1", 0) as listener:
            assert url_of(listener) == f"http://[::1]:{listener.getsockname()[1]}"


@pytest.mark.parametrize(("host", "require_key"), [("0.0.0.0", False), ("127.0.0.1", True)])
def test_nothing_listens_where_a_key_is_needed_and_there_is_none(
    settings: Settings, host: str, require_key: bool
) -> None:
    def never(url: str) -> None:
        pytest.fail(f"it listens at {url}")

    with Store.of(settings) as store:  # one that was revoked is none
        store.keys.create("a", ["read"])
        store.keys.revoke("a")
    with pytest.raises(NotAuthenticated) as refused:
        serve(settings, host=host, port=0, require_key=require_key, on_ready=never)
    assert "kinoloom keys create" in refused.value.hints[0]


def test_a_taken_port_starts_no_worker(settings: Settings) -> None:
    started = []

    @contextmanager
    def worker() -> Iterator[None]:
        started.append(1)
        yield

    with listening("127.0.0.1", 0) as listener, pytest.raises(Conflict):
        serve(settings, port=listener.getsockname()[1], start_worker=worker)
    assert not started


def test_without_its_packages_the_server_says_which_command_helps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from importlib import util

    for name in [n for n in sys.modules if n.split(".")[:2] == ["kinoloom", "server"]]:
        monkeypatch.delitem(sys.modules, name)
    found = util.find_spec
    monkeypatch.setattr(util, "find_spec", lambda name: None if name == "uvicorn" else found(name))
    with pytest.raises(MissingPackage) as missing:
        import kinoloom.server.app  # noqa: F401
    assert "uvicorn" in missing.value.cause
    assert missing.value.hints == ("pip install 'kinoloom[server]'",)
