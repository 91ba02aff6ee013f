from __future__ import annotations

import threading
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from fakes.comfyui_cards import HIGH, two_experts
from fakes.comfyui_validation import definitions, without
from kinoloom.backends.comfyui.pool import (
    KEEP_SECONDS,
    NODES_SECONDS,
    Able,
    Pool,
    ServerState,
    reasons,
    shortage,
)
from kinoloom.backends.comfyui.server import Server, Stats
from kinoloom.errors import ModelNotFound, NetworkFailed

CARD = two_experts()
A, B = "http://a", "http://b"


class Machines:
    """What the servers answer, by address, and how often each was asked for its nodes."""

    def __init__(self) -> None:
        self.now = 100.0
        self.nodes: dict[str, Mapping[str, Any]] = {A: definitions(), B: definitions()}
        self.queue = {A: 0, B: 0}
        self.free = {A: 8 * 2**30, B: 8 * 2**30}
        self.version = "1.0"
        self.down: set[str] = set()
        self.asked = {A: 0, B: 0}
        self.looked = {A: 0, B: 0}

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Machines:
    known = Machines()

    def stats(server: Server) -> Stats:
        known.looked[server.url] += 1
        if server.url in known.down:
            raise NetworkFailed(f"{server.url} does not answer.", cause="refused")
        return Stats(known.version, vram_total=2**34, vram_free=known.free[server.url])

    def nodes(server: Server) -> Mapping[str, Any]:
        known.asked[server.url] += 1
        return known.nodes[server.url]

    monkeypatch.setattr(Server, "stats", stats)
    monkeypatch.setattr(Server, "waiting", lambda server: known.queue[server.url])
    monkeypatch.setattr(Server, "object_info", nodes)
    return known


@pytest.fixture
def pool(machines: Machines) -> Pool:
    return Pool([A, B, A], clock=machines)


def chosen(pool: Pool, able: list[Able] | None = None) -> str:
    with pool.least_busy(pool.able(CARD) if able is None else able) as one:
        return one.state.url


def test_a_server_that_is_named_twice_is_one(pool: Pool) -> None:
    assert [state.url for state in pool.states()] == [A, B]


def test_what_servers_say_is_kept_for_a_while(pool: Pool, machines: Machines) -> None:
    for _ in range(5):
        pool.lacks(CARD)
    assert machines.looked == {A: 1, B: 1}
    machines.now += KEEP_SECONDS
    pool.lacks(CARD)
    assert machines.looked == {A: 2, B: 2}
    assert machines.asked == {A: 1, B: 1}  # nodes and files change seldom
    machines.now += NODES_SECONDS
    pool.lacks(CARD)
    assert machines.asked == {A: 2, B: 2}


def test_a_new_version_is_asked_anew(pool: Pool, machines: Machines) -> None:
    pool.lacks(CARD)
    machines.now += KEEP_SECONDS
    machines.version = "2.0"
    pool.lacks(CARD)
    assert machines.asked[A] == 2


def test_a_file_that_was_put_there_is_seen_soon(pool: Pool, machines: Machines) -> None:
    machines.nodes[A] = without(definitions(), HIGH)
    assert pool.lacks(CARD)[A]
    machines.nodes[A] = definitions()
    assert pool.lacks(CARD)[A]
    machines.now += KEEP_SECONDS
    assert not pool.lacks(CARD)[A]


def test_threads_that_ask_at_once_share_one_answer(pool: Pool, machines: Machines) -> None:
    start = threading.Barrier(8)

    def look(_: int) -> object:
        start.wait()
        return pool.lacks(CARD)

    with ThreadPoolExecutor(8) as threads:
        assert len(list(threads.map(look, range(8)))) == 8
    assert machines.looked == {A: 1, B: 1}


def test_how_busy_they_are_is_asked_for_each_job(pool: Pool, machines: Machines) -> None:
    machines.queue[A] = 1
    assert chosen(pool) == B
    machines.queue[B] = 2
    assert chosen(pool) == A


def test_equally_busy_the_one_with_more_memory(pool: Pool, machines: Machines) -> None:
    machines.free[B] += 1
    assert chosen(pool) == B


def test_a_job_on_its_way_counts(pool: Pool) -> None:
    able = pool.able(CARD)
    with pool.least_busy(able) as first, pool.least_busy(able) as second:
        assert {first.state.url, second.state.url} == {A, B}
    with pytest.raises(RuntimeError), pool.least_busy(able) as first:
        raise RuntimeError
    assert chosen(pool, able) == A  # what failed is not on its way any more


def test_only_what_has_everything_is_able(pool: Pool, machines: Machines) -> None:
    machines.nodes[A] = without(definitions(), HIGH)
    assert [one.state.url for one in pool.able(CARD)] == [B]
    machines.nodes[B] = without(definitions(), "VAEDecode", "VAELoader", "UNETLoader")
    machines.now += NODES_SECONDS
    with pytest.raises(ModelNotFound) as caught:
        pool.able(CARD)
    assert {m["server"] for m in caught.value.details["missing"]} == {A, B}


def test_a_dead_server_is_left_out_and_comes_back(pool: Pool, machines: Machines) -> None:
    machines.down = {A}
    assert [one.state.url for one in pool.able(CARD)] == [B]
    assert pool.states()[0].reason == f"{A} does not answer. refused"
    machines.down = {A, B}
    with pytest.raises(NetworkFailed) as caught:
        pool.able(CARD)
    assert len(caught.value.cause.splitlines()) == 2
    machines.down = set()
    assert len(pool.able(CARD)) == 2


def test_of_dead_and_lacking_servers_what_lacks_is_said(pool: Pool, machines: Machines) -> None:
    machines.down = {A}
    machines.nodes[B] = without(definitions(), HIGH)
    with pytest.raises(ModelNotFound):
        pool.able(CARD)
    said = reasons(pool.lacks(CARD))
    assert len(said) == 2
    assert said[0].startswith(f"{A}: ")
    assert said[1].startswith(f"{B} lacks ")


def test_what_is_forgotten_is_asked_anew(pool: Pool, machines: Machines) -> None:
    pool.lacks(CARD)
    pool.forget(A)
    pool.lacks(CARD)
    assert machines.asked == {A: 2, B: 1}


def test_a_server_that_the_settings_do_not_name_is_known_by_its_ticket(pool: Pool) -> None:
    assert pool.server("http://c").url == "http://c"
    assert pool.server("http://c") is pool.server("http://c")
    assert [server.url for server in pool.named()] == [A, B]


@pytest.mark.parametrize(
    ("total", "free", "said"),
    [
        (24, 20, ""),
        (12, 11, "has 12.0 GiB"),
        (24, 3, "has free now 3.0 GiB"),
        (None, None, ""),
    ],
)
def test_a_shortage_of_memory(total: int | None, free: int | None, said: str) -> None:
    sizes = [None if x is None else x * 2**30 for x in (total, free)]
    state = ServerState(A, vram_total=sizes[0], vram_free=sizes[1])
    told = shortage(state, 16 * 2**30)
    assert said in told
    assert bool(told) is bool(said)
