from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from fastapi import FastAPI
from starlette.requests import Request

from kinoloom.errors import RateLimited
from kinoloom.server.limits import MAX_JSON, RateLimit
from serving import local_client

MIB = 1024**2


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_caller_has_so_many_requests_and_gets_them_back_with_time() -> None:
    clock = Clock()
    rate = RateLimit(60, clock)
    for _ in range(60):
        rate.take("a")
    with pytest.raises(RateLimited) as refused:
        rate.take("a")
    assert refused.value.retry_after == pytest.approx(1.0)
    rate.take("b")  # another caller has its own
    clock.now += 2.5
    rate.take("a")
    rate.take("a")
    with pytest.raises(RateLimited) as refused:
        rate.take("a")
    assert refused.value.retry_after == pytest.approx(0.5)


def test_a_long_silence_gives_no_more_than_a_minute() -> None:
    clock = Clock()
    rate = RateLimit(2, clock)
    rate.take("a")
    clock.now += 3600
    rate.take("a")
    rate.take("a")
    with pytest.raises(RateLimited):
        rate.take("a")


def test_no_limit_is_none() -> None:
    rate = RateLimit(0, Clock())
    for _ in range(1000):
        rate.take("a")


def test_callers_are_remembered_in_bounded_memory() -> None:
    rate = RateLimit(1, Clock())
    for number in range(25_000):
        rate.take(str(number))
    assert len(rate._buckets) == 10_000
    with pytest.raises(RateLimited):  # the newest is remembered
        rate.take("24999")


def test_too_many_requests_are_answered_with_the_time_to_wait(
    shell: Callable[..., FastAPI],
) -> None:
    client = local_client(shell(rate_limit=3))
    statuses = [client.get("/test/read").status_code for _ in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    answer = client.get("/test/read")
    assert answer.json()["kind"] == "rate_limited"
    assert 1 <= int(answer.headers["retry-after"]) <= 20


def test_keys_are_limited_each_for_itself(shell: Callable[..., FastAPI]) -> None:
    app = shell(rate_limit=2, require_key=True)
    secrets = [app.state.store.keys.create(name, ["read"])[1] for name in ("a", "b")]
    client = local_client(app)
    statuses = [
        client.get("/test/read", headers={"Authorization": f"Bearer {secret}"}).status_code
        for secret in (*secrets, *secrets, *secrets)
    ]
    assert statuses == [200, 200, 200, 200, 429, 429]


def test_guessing_keys_is_limited_by_address(shell: Callable[..., FastAPI]) -> None:
    client = local_client(shell(rate_limit=2, require_key=True))
    wrong = {"Authorization": "Bearer kl_wrong"}
    statuses = [client.get("/test/read", headers=wrong).status_code for _ in range(3)]
    assert statuses == [401, 401, 429]


def test_a_body_of_json_is_bounded(shell: Callable[..., FastAPI]) -> None:
    client = local_client(shell())
    filler = "x" * (MAX_JSON - 20)
    assert client.post("/test/write", json={"a": filler}).status_code == 200
    answer = client.post("/test/write", json={"a": filler + "x" * 20})
    assert answer.status_code == 413
    assert answer.json()["kind"] == "too_large"


def test_a_length_that_is_not_said_is_counted(shell: Callable[..., FastAPI]) -> None:
    app = shell()
    reached = []

    @app.post("/test/raw")
    async def raw(request: Request) -> int:
        reached.append(len(await request.body()))
        return 0

    def parts() -> Iterator[bytes]:
        for _ in range(20):
            yield b"x" * 64 * 1024

    answer = local_client(app).post("/test/raw", content=parts())
    assert answer.status_code == 413
    assert reached == []


@pytest.mark.parametrize("chunked", [True, False])
def test_an_upload_is_bounded_as_a_whole(shell: Callable[..., FastAPI], chunked: bool) -> None:
    client = local_client(shell(max_upload=2 * MIB))
    files = {"a": b"x" * (3 * MIB // 2), "b": b"x" * (3 * MIB // 2 + 1000)}
    request = client.build_request("POST", "/test/form", files=files)
    if chunked:
        request.read()
        headers = {"content-type": request.headers["content-type"], "transfer-encoding": "chunked"}
        answer = client.post("/test/form", content=iter([request.content]), headers=headers)
    else:
        answer = client.send(request)
    assert answer.status_code == 413
    small = client.post("/test/form", files={"a": b"x" * 2 * MIB})
    assert small.status_code == 200
    assert small.json() == {"names": ["a"]}
