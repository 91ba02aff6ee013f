from __future__ import annotations

import pytest

from kinoloom.backends.remote.retries import ATTEMPTS, read_again
from kinoloom.errors import KinoloomError, NetworkFailed, NotAuthenticated, RateLimited


class Call:
    """Something that fails with these errors, one a call, and then works."""

    def __init__(self, *errors: KinoloomError) -> None:
        self.errors = list(errors)
        self.calls = 0
        self.pauses: list[float] = []

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "read"

    def again(self, **options: int) -> str:
        return read_again(self, sleep=self.pauses.append, **options)


def test_what_may_pass_is_tried_again() -> None:
    call = Call(NetworkFailed("gone"), NetworkFailed("gone"))
    assert call.again() == "read"
    assert call.calls == 3
    assert len(call.pauses) == 2
    assert 0 <= call.pauses[0] <= 0.5
    assert 0 <= call.pauses[1] <= 1.0


def test_what_stays_wrong_is_not() -> None:
    call = Call(NotAuthenticated("no key"))
    with pytest.raises(NotAuthenticated):
        call.again()
    assert call.calls == 1


def test_a_service_says_how_long_to_wait() -> None:
    call = Call(RateLimited("slow down", retry_after=90))
    assert call.again() == "read"
    assert call.pauses == [90]
    endless = Call(RateLimited("slow down", retry_after=86_400))
    assert endless.again() == "read"
    assert endless.pauses == [120]


def test_it_gives_up() -> None:
    call = Call(*[NetworkFailed(f"number {i}") for i in range(99)])
    with pytest.raises(NetworkFailed, match=f"number {ATTEMPTS - 1}"):
        call.again()
    assert call.calls == ATTEMPTS
    assert max(call.pauses) <= 20
