"""The cache of embeddings against a real redis-server."""

from __future__ import annotations

import logging
import os
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

from kinoloom.config import Settings
from kinoloom.store.cache import bytes as bytes_module
from kinoloom.store.cache.bytes import ByteCache
from kinoloom.store.cache.seal import seal
from kinoloom.store.cache.server import PREFIX, ServerCache, ServerLost

if TYPE_CHECKING:
    from services import RedisServer

SEAL = 36
TTL = 3600


def key(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def server(start_redis: Callable[..., RedisServer]) -> RedisServer:
    return start_redis()


@pytest.fixture
def raw(server: RedisServer) -> Iterator[Any]:
    """A client that looks at the server beside the cache."""
    with redis.Redis(port=server.port, protocol=2) as client:
        yield client


@pytest.fixture
def make_cache(tmp_path: Path, server: RedisServer) -> Iterator[Callable[..., ByteCache]]:
    """A function (settings...) -> a cache with nothing in memory, as a new process has it."""
    made: list[ByteCache] = []

    def make(**changes: Any) -> ByteCache:
        values = {"home": tmp_path / "home", "cache_url": server.url} | changes
        made.append(ByteCache.open(Settings(**values)))
        return made[-1]

    yield make
    for cache in made:
        cache.close()


def on_disk(tmp_path: Path) -> list[str]:
    folder = tmp_path / "home" / "cache" / "embeddings"
    return sorted(file.name for file in folder.iterdir()) if folder.is_dir() else []


def test_what_one_process_puts_another_gets(
    make_cache: Callable[..., ByteCache], raw: Any, tmp_path: Path
) -> None:
    value = os.urandom(3_000_000)
    assert make_cache().get(key(1)) is None
    make_cache().put(key(1), value)
    other = make_cache()
    assert other.get(key(1)) == value
    stats = other.stats()
    assert (stats.place, stats.degraded, stats.hits) == ("redis", False, 1)
    assert (stats.entries, stats.bytes) == (1, len(value) + SEAL)
    assert all(name.startswith(PREFIX.encode()) for name in raw.keys("*"))
    assert on_disk(tmp_path) == []


def test_everything_expires_by_itself(make_cache: Callable[..., ByteCache], raw: Any) -> None:
    make_cache(cache_ttl=120).put(key(1), b"value")
    assert {name: 100 < raw.ttl(name) <= 120 for name in raw.keys("*")} == {
        (PREFIX + rest).encode(): True for rest in (key(1), "used", "sizes")
    }
    raw.expire(PREFIX + key(1), 50)
    assert make_cache(cache_ttl=120).get(key(1)) == b"value"
    assert raw.ttl(PREFIX + key(1)) > 100  # used again, so its time begins anew


def test_an_expired_value_is_a_miss(make_cache: Callable[..., ByteCache], raw: Any) -> None:
    make_cache().put(key(1), b"value")
    raw.expire(PREFIX + key(1), 0)
    assert make_cache().get(key(1)) is None
    make_cache().put(key(1), b"again")
    assert make_cache().get(key(1)) == b"again"


def test_the_least_recently_used_go_first(make_cache: Callable[..., ByteCache], raw: Any) -> None:
    size = {"cache_size": 3 * (100 + SEAL)}
    for number in range(3):
        make_cache(**size).put(key(number), bytes(100))
        raw.zadd(PREFIX + "used", {key(number): time.time() - 1000 + number})
    assert make_cache(**size).get(key(0)) is not None
    make_cache(**size).put(key(3), bytes(100))
    kept = [n for n in range(4) if raw.exists(PREFIX + key(n))]
    assert kept == [0, 2, 3]
    assert make_cache(**size).stats().bytes == 3 * (100 + SEAL)
    assert raw.zcard(PREFIX + "used") == raw.hlen(PREFIX + "sizes") == 3
    make_cache(**size).put(key(4), bytes(1000))  # larger than the whole cache
    assert not raw.exists(PREFIX + key(4))


def test_the_lists_forget_what_has_expired(make_cache: Callable[..., ByteCache], raw: Any) -> None:
    make_cache().put(key(1), bytes(100))
    raw.expire(PREFIX + key(1), 0)
    raw.zadd(PREFIX + "used", {key(1): time.time() - TTL - 10})
    raw.hset(PREFIX + "sizes", key(7), "55")  # of a process that died between two commands
    assert make_cache().stats().entries == 0
    make_cache().put(key(2), bytes(100))
    assert raw.zrange(PREFIX + "used", 0, -1) == [key(2).encode()]
    assert raw.hkeys(PREFIX + "sizes") == [key(2).encode()]


@pytest.mark.parametrize(
    "junk",
    [b"", b"\x80\x04]q\x00.", bytes(200), seal(key(2), b"of another key")],
    ids=["nothing", "pickle", "zeros", "another key"],
)
def test_junk_under_our_key_is_a_miss(
    make_cache: Callable[..., ByteCache], raw: Any, junk: bytes
) -> None:
    raw.set(PREFIX + key(1), junk)
    cache = make_cache()
    assert cache.get(key(1)) is None
    assert not raw.exists(PREFIX + key(1))
    cache.put(key(1), b"value")
    assert make_cache().get(key(1)) == b"value"
    assert not cache.stats().degraded


def test_other_types_in_the_place_of_ours(make_cache: Callable[..., ByteCache], raw: Any) -> None:
    raw.rpush(PREFIX + key(1), "a list")
    raw.set(PREFIX + "used", "no sorted set")
    raw.sadd(PREFIX + "sizes", "no hash")
    cache = make_cache()
    assert cache.get(key(1)) is None
    cache.put(key(1), b"value")
    assert make_cache().get(key(1)) == b"value"
    assert not cache.stats().degraded
    cache.put(key(2), b"value")
    assert cache.stats().entries == 2
    raw.hset(PREFIX + "sizes", key(2), "no number")
    cache.put(key(3), b"value")
    assert make_cache().get(key(3)) == b"value"


def test_a_killed_server_costs_one_warning_and_comes_back(
    make_cache: Callable[..., ByteCache],
    server: RedisServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "kinoloom")
    cache = make_cache()
    cache.put(key(1), b"on the server")
    server.kill()
    assert make_cache().get(key(1)) is None
    caplog.clear()
    for number in (2, 3):
        cache.put(key(number), b"on the disk")
    assert cache.get(key(4)) is None
    assert cache.get(key(1)) == b"on the server"  # in memory
    assert on_disk(tmp_path) == [key(2), key(3)]
    stats = cache.stats()
    assert (stats.place, stats.degraded, stats.entries) == ("disk", True, 2)
    # Time to try again, but it is still dead: no second warning.
    monkeypatch.setattr(bytes_module, "RETRY_SECONDS", 0.0)
    cache._retry_at = 0.0
    assert cache.get(key(5)) is None
    [warning] = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert warning.name == "kinoloom.store.cache.bytes"
    assert server.url in warning.getMessage()
    server.start()
    cache.put(key(6), b"on the server again")
    assert not cache.stats().degraded
    assert make_cache().get(key(6)) == b"on the server again"
    assert on_disk(tmp_path) == [key(2), key(3)]
    assert "is back" in caplog.records[-1].getMessage()


def test_a_server_that_failed_is_left_alone_for_a_while(
    make_cache: Callable[..., ByteCache], server: RedisServer, tmp_path: Path
) -> None:
    cache = make_cache()
    server.kill()
    cache.put(key(1), b"value")
    server.start()
    cache.put(key(2), b"value")
    assert on_disk(tmp_path) == [key(1), key(2)]


def test_a_restart_between_two_questions_is_not_noticed(
    make_cache: Callable[..., ByteCache], server: RedisServer
) -> None:
    cache = make_cache()
    cache.put(key(1), b"value")
    server.kill()
    server.start()
    cache.put(key(2), b"value")
    assert not cache.stats().degraded


def test_a_server_that_never_answers(
    make_cache: Callable[..., ByteCache], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinoloom.store.cache.server._ANSWER_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        cache = make_cache(cache_url=f"redis://127.0.0.1:{silent.getsockname()[1]}")
        cache.put(key(1), b"value")
    assert cache.stats().degraded
    assert on_disk(tmp_path) == [key(1)]


def test_the_right_and_the_wrong_password(
    make_cache: Callable[..., ByteCache],
    start_redis: Callable[..., RedisServer],
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed = start_redis("--requirepass", "p@ss:w/rd")
    right = f"redis://:p%40ss%3Aw%2Frd@127.0.0.1:{closed.port}/0"
    make_cache(cache_url=right).put(key(1), b"value")
    reader = make_cache(cache_url=right)
    assert reader.get(key(1)) == b"value"
    assert reader.stats().place == "redis"
    with caplog.at_level(logging.DEBUG):
        wrong = make_cache(cache_url=f"redis://:s3cr3t@127.0.0.1:{closed.port}")
        wrong.put(key(2), b"value")
        without = make_cache(cache_url=closed.url)
        assert without.get(key(2)) == b"value"  # from the disk
    assert (wrong.stats().degraded, without.stats().degraded) == (True, True)
    assert len([r for r in caplog.records if r.levelno >= logging.WARNING]) == 2
    assert "s3cr3t" not in caplog.text
    assert str(closed.port) in caplog.text


def test_a_full_server_degrades(
    make_cache: Callable[..., ByteCache],
    start_redis: Callable[..., RedisServer],
    tmp_path: Path,
) -> None:
    full = start_redis("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    cache = make_cache(cache_url=full.url)
    cache.put(key(1), os.urandom(4_000_000))
    cache.put(key(2), os.urandom(1_000_000))
    assert cache.stats().degraded
    assert key(2) in on_disk(tmp_path)


def test_no_text_of_an_error_holds_the_password() -> None:
    for url in (
        "redis://user:s3cr3t@127.0.0.1:1/0",
        "redis://user:s3cr3t@no.such.host.invalid:1",
        "unix://user:s3cr3t@/no/such/socket",
        "unix:///no/such/socket?password=s3cr3t",
    ):
        cache = ServerCache(url, 1000, TTL)
        with pytest.raises(ServerLost) as caught:
            cache.get(key(1))
        assert "s3cr3t" not in f"{caught.value!r} {caught.value.__cause__!r} {cache!r} {cache.name}"
        assert caught.value.__suppress_context__


def test_a_socket_file(
    make_cache: Callable[..., ByteCache], start_redis: Callable[..., RedisServer], tmp_path: Path
) -> None:
    place = tmp_path / "redis.sock"
    start_redis("--unixsocket", str(place))
    make_cache(cache_url=f"unix://{place}").put(key(1), b"value")
    other = make_cache(cache_url=f"unix://{place}")
    assert other.get(key(1)) == b"value"
    assert other.stats().place == "redis"
