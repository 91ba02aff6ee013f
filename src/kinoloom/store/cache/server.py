"""How are values shared through a Redis server, within bounds of our own?

Beside the values lie two keys: a sorted set with the time of each value's last use, and a hash with
its size. By these the least recently used go when a put exceeds the bound. Everything expires by
itself, so a server that is given back is empty after a while.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, TypeAlias
from urllib.parse import unquote, urlsplit

from kinoloom.errors import MissingPackage
from kinoloom.store.cache.seal import seal, unseal

PREFIX = "kinoloom:embeddings:1:"
"""All our keys on the server begin so; the number changes with the layout."""

_USED = PREFIX + "used"
_SIZES = PREFIX + "sizes"
_MAX_VALUE_BYTES = 512_000_000  # Redis takes no larger value
_WRONG_TYPE = object()
_CONNECT_SECONDS = 2.0
_ANSWER_SECONDS = 3.0

_Pipe: TypeAlias = Any  # redis types each answer as "this, or a coroutine of this"
_LISTS: tuple[Callable[[_Pipe], object], ...] = (
    lambda pipe: pipe.zrange(_USED, 0, -1, withscores=True),
    lambda pipe: pipe.hgetall(_SIZES),
)


class ServerLost(Exception):
    """The server cannot be used now; the text says why and holds no password."""


class ServerCache:
    """Values on the server at `url`, at most `size` bytes, each until `ttl` seconds unused.

    Nothing is sent before the first value is asked for. Every method raises ServerLost.
    """

    def __init__(self, url: str, size: int, ttl: int) -> None:
        """Raises MissingPackage."""
        try:
            import redis
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError as error:
            raise MissingPackage(
                "A cache on a Redis server needs a package that is not installed.",
                cause="not installed: redis",
                hints=['pip install "kinoloom[redis]"', "or unset cache_url"],
            ) from error
        self.name, self._secrets = _name_and_secrets(url)
        self._size, self._ttl = size, ttl
        self._failures = (redis.RedisError, OSError, ValueError)
        try:
            self._client = redis.Redis.from_url(
                url,
                protocol=2,  # which every version of the server speaks
                socket_connect_timeout=_CONNECT_SECONDS,
                socket_timeout=_ANSWER_SECONDS,
                # Once more, since the server may have closed a connection that was idle.
                retry=Retry(NoBackoff(), 1),
            )
        except (ValueError, TypeError):
            # Its own words could hold the password.
            raise ValueError(f"{self.name} is no address of a Redis server") from None

    def get(self, key: str) -> bytes | None:
        """The value; None when there is none, or something that we did not put."""
        name = PREFIX + key
        found, *rest = self._send(
            lambda pipe: pipe.get(name),
            lambda pipe: pipe.expire(name, self._ttl),
            lambda pipe: pipe.zadd(_USED, {key: time.time()}, xx=True),
            self._prolong,
        )
        self._repair(rest)
        if found is None:
            return None
        data = unseal(key, found)
        if data is None:
            self._remove(key)
        return data

    def put(self, key: str, data: bytes) -> None:
        """Keep `data`, and remove what no longer fits.

        A value that is larger than the whole cache is not kept.
        """
        stored = seal(key, data)
        if len(stored) > min(self._size, _MAX_VALUE_BYTES):
            return
        answers = self._send(
            lambda pipe: pipe.set(PREFIX + key, stored, ex=self._ttl),
            lambda pipe: pipe.zadd(_USED, {key: time.time()}),
            lambda pipe: pipe.hset(_SIZES, key, str(len(stored))),
            self._prolong,
            *_LISTS,
        )
        if not self._repair(answers):
            self._trim(key, _used(answers[-2]), _sizes(answers[-1]))

    def usage(self) -> tuple[int, int]:
        """How many values there are, and their bytes."""
        answers = self._send(*_LISTS)
        if self._repair(answers):
            return 0, 0
        sizes, oldest = _sizes(answers[1]), time.time() - self._ttl
        alive = [sizes.get(key, 0) for key, used in _used(answers[0]) if used >= oldest]
        return len(alive), sum(alive)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _trim(self, newest: str, used: list[tuple[str, float]], sizes: dict[str, int]) -> None:
        """Remove expired keys from the lists, and the least recently used values."""
        oldest = time.time() - self._ttl
        gone = set(sizes) - {key for key, _ in used}
        total = sum(sizes.get(key, 0) for key, moment in used if moment >= oldest)
        for key, moment in used:  # the least recently used first
            if moment < oldest:
                gone.add(key)
            elif total > self._size and key != newest:
                gone.add(key)
                total -= sizes.get(key, 0)
        if gone:
            self._remove(*gone)

    def _remove(self, *keys: str) -> None:
        self._send(
            lambda pipe: pipe.delete(*(PREFIX + key for key in keys)),
            lambda pipe: pipe.zrem(_USED, *keys),
            lambda pipe: pipe.hdel(_SIZES, *keys),
        )

    def _prolong(self, pipe: _Pipe) -> None:
        # At each use of a value, so that the lists outlive every value in them.
        pipe.expire(_USED, self._ttl)
        pipe.expire(_SIZES, self._ttl)

    def _repair(self, answers: list[Any]) -> bool:
        """Whether something else lay in the place of our lists, which are then begun anew."""
        wrong = any(answer is _WRONG_TYPE for answer in answers)
        if wrong:
            self._send(lambda pipe: pipe.delete(_USED, _SIZES))
        return wrong

    def _send(self, *steps: Callable[[_Pipe], object]) -> list[Any]:
        """The answers to the commands, sent in one go; _WRONG_TYPE where other data is there."""
        try:
            with self._client.pipeline(transaction=False) as pipe:
                for step in steps:
                    step(pipe)
                answers: list[Any] = pipe.execute(raise_on_error=False)
        except self._failures as error:
            raise ServerLost(self._words(error)) from None
        for index, answer in enumerate(answers):
            if isinstance(answer, Exception):
                if not str(answer).startswith("WRONGTYPE"):
                    raise ServerLost(self._words(answer)) from None
                answers[index] = _WRONG_TYPE
        return answers

    def _words(self, error: Exception) -> str:
        text = str(error).partition("\n")[0] or type(error).__name__
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text


def _used(answer: list[tuple[bytes, float]]) -> list[tuple[str, float]]:
    """Keys and the times of their last use, the least recent first."""
    return [(key.decode("ascii", "replace"), moment) for key, moment in answer]


def _sizes(answer: dict[bytes, bytes]) -> dict[str, int]:
    """Bytes by key; what is no number was not written by us and counts nothing."""
    return {
        key.decode("ascii", "replace"): int(size) if size.isdigit() else 0
        for key, size in answer.items()
    }


def _name_and_secrets(url: str) -> tuple[str, tuple[str, ...]]:
    """The address without user, password and options, and what must never be shown of it."""
    parts = urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    password = parts.netloc.rpartition("@")[0].partition(":")[2]
    secrets = {password, unquote(password)} - {""}
    return f"{parts.scheme}://{host}{parts.path}", tuple(secrets)
