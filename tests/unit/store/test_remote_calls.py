"""Does each call of a service go its one way, and is it ordered only once?"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from kinoloom.errors import Conflict, NotFound
from kinoloom.store import Store
from kinoloom.store.job_record import ACTIVE
from kinoloom.store.remote_calls import OPEN, CallState, RemoteCall
from unit.store.ordering import D, accepted, job, now, paid, reserve
from unit.store.together import at_once


def test_a_call_from_first_to_last(store: Store) -> None:
    calls, job_id = store.remote_calls, job(store)
    assert calls.current(job_id, 0) is None
    call = reserve(store, job_id, "0.6", owner="key", film="film")
    assert (call.state, call.attempt, call.reserved, call.charged) == ("new", 1, D("0.6"), None)
    assert (call.owner, call.film, call.currency, call.open) == ("key", "film", "USD", True)
    assert call.id == call.id.lower()
    assert calls.get(call.id) == calls.current(job_id, 0) == call
    assert calls.get("nothing") is None

    assert calls.nudge(call.id) is False  # nobody knows of it yet
    assert calls.send(call.id) is True
    assert calls.send(call.id) is False
    assert calls.accept(call.id, remote_id="r", endpoint="eu", data={"url": "u"}) is True
    assert calls.accept(call.id, remote_id="other") is False
    found = now(store, call)
    assert (found.state, found.remote_id, found.endpoint) == ("accepted", "r", "eu")
    assert found.data == {"url": "u"}
    assert found.sent_at is not None
    assert found.accepted_at is not None
    assert call.created_at <= found.sent_at <= found.accepted_at
    assert (found.finished_at, found.nudged_at) == (None, None)
    assert calls.nudge(call.id) is True
    assert now(store, call).nudged_at is not None

    assert calls.settle(call.id, "succeeded", charged=D("0.55")) is True
    assert calls.settle(call.id, "failed", charged=D(0)) is False
    done = now(store, call)
    assert (done.state, done.charged, done.open) == ("succeeded", D("0.55"), False)
    assert done.finished_at is not None
    for late in (calls.send, calls.unsend, calls.nudge):
        assert late(call.id) is False
    assert calls.doubt(call.id, {}) is False
    assert now(store, call) == done
    told = json.loads(json.dumps(done.as_dict()))
    assert (told["reserved"], told["charged"], told["data"]) == ("0.6", "0.55", {"url": "u"})


@pytest.mark.parametrize(
    "change",
    [
        lambda calls, i: calls.send(i),
        lambda calls, i: calls.unsend(i),
        lambda calls, i: calls.accept(i, remote_id="r"),
        lambda calls, i: calls.doubt(i, {}),
        lambda calls, i: calls.settle(i, "failed", charged=None),
        lambda calls, i: calls.nudge(i),
    ],
)
def test_nothing_changes_in_no_call(
    sqlite_store: Store, change: Callable[[Any, str], bool]
) -> None:
    assert change(sqlite_store.remote_calls, "nothing") is False


def test_doubt_and_what_comes_of_it(store: Store) -> None:
    calls = store.remote_calls
    call = reserve(store)
    assert calls.doubt(call.id, {"kind": "uncertain"}) is False  # it was not even sent
    calls.send(call.id)
    assert calls.doubt(call.id, {"kind": "uncertain"}) is True
    found = now(store, call)
    assert (found.state, found.error, found.open) == ("uncertain", {"kind": "uncertain"}, True)
    assert calls.unsend(call.id) is True
    again = now(store, call)
    assert (again.state, again.error, again.sent_at) == ("new", None, None)
    assert calls.send(call.id) is True  # the same order under the same key
    calls.doubt(call.id, {"kind": "uncertain"})
    assert calls.accept(call.id, remote_id="found") is True
    assert (now(store, call).state, now(store, call).error) == ("accepted", None)


def test_what_never_arrived_is_not_sent_again_for_a_job_that_ended(store: Store) -> None:
    job_id = job(store)
    call = reserve(store, job_id)
    store.remote_calls.send(call.id)
    store.jobs.move(job_id, "cancelled", expect=ACTIVE)
    assert now(store, call).state == "sent"
    assert store.remote_calls.unsend(call.id) is True
    assert now(store, call).state == "released"
    gone = reserve(store, other := job(store))
    store.remote_calls.send(gone.id)
    store.jobs.move(other, "failed", expect=ACTIVE)
    assert store.jobs.delete(other)
    assert store.remote_calls.unsend(gone.id) is True
    assert now(store, gone).state == "released"


def test_one_open_call_of_a_take(store: Store) -> None:
    calls, job_id = store.remote_calls, job(store)
    first = reserve(store, job_id)
    reserve(store, job_id, take=1)  # another take is another order
    for step in (
        lambda: None,
        lambda: calls.send(first.id),
        lambda: calls.doubt(first.id, {}),
        lambda: calls.accept(first.id, remote_id="r"),
    ):
        step()
        with pytest.raises(Conflict, match="ordered already"):
            reserve(store, job_id)
    calls.settle(first.id, "failed", charged=D(0))
    second = reserve(store, job_id)
    assert second.attempt == 2
    assert calls.current(job_id, 0) == second
    assert [call.attempt for call in calls.of_job(job_id)] == [1, 1, 2]


def test_a_job_that_ended_or_never_was_orders_nothing(store: Store) -> None:
    job_id = job(store)
    store.jobs.move(job_id, "cancelled", expect=ACTIVE)
    with pytest.raises(Conflict, match="has ended"):
        reserve(store, job_id)
    with pytest.raises(NotFound):
        reserve(store, "nothing")
    assert store.remote_calls.list() == []


@pytest.mark.parametrize("end", ["succeeded", "failed", "cancelled", "dead"])
def test_the_end_of_a_job_frees_what_was_not_sent(sqlite_store: Store, end: Any) -> None:
    job_id = job(sqlite_store)
    unsent, sent = reserve(sqlite_store, job_id), reserve(sqlite_store, job_id, take=1)
    sqlite_store.remote_calls.send(sent.id)
    sqlite_store.jobs.move(job_id, "running", expect=["queued"])
    assert now(sqlite_store, unsent).state == "new"
    sqlite_store.jobs.move(job_id, end, expect=ACTIVE)
    released = now(sqlite_store, unsent)
    assert (released.state, released.charged) == ("released", None)
    assert released.finished_at is not None
    assert now(sqlite_store, sent).state == "sent"
    assert sqlite_store.remote_calls.spent() == 1


def test_release_is_of_one_job_and_of_what_was_not_sent(store: Store) -> None:
    job_id = job(store)
    mine, sent, other = reserve(store, job_id), reserve(store, job_id, take=1), reserve(store)
    store.remote_calls.send(sent.id)
    assert store.remote_calls.release(job_id) == 1
    assert store.remote_calls.release(job_id) == 0
    assert [now(store, call).state for call in (mine, sent, other)] == ["released", "sent", "new"]
    again = reserve(store, job_id)
    assert (again.attempt, again.state) == (2, "new")


def test_what_services_may_work_on_for_nobody(store: Store) -> None:
    jobs = [job(store) for _ in range(4)]
    calls = [accepted(store, jobs[0]), accepted(store, jobs[1]), accepted(store, jobs[2])]
    sent = reserve(store, jobs[3])
    store.remote_calls.send(sent.id)
    paid(store, jobs[3], take=1)
    assert store.remote_calls.left() == []
    store.jobs.move(jobs[0], "cancelled", expect=ACTIVE)
    store.jobs.move(jobs[1], "dead", expect=ACTIVE)
    store.jobs.move(jobs[3], "failed", expect=ACTIVE)
    store.jobs.delete(jobs[1])
    left = store.remote_calls.left()
    assert [call.id for call in left] == [calls[0].id, calls[1].id, sent.id]
    store.remote_calls.settle(calls[1].id, "cancelled", charged=D(0))
    assert [call.id for call in store.remote_calls.left()] == [calls[0].id, sent.id]


def test_lists_and_pages(store: Store) -> None:
    first, second = reserve(store), accepted(store, backend="google")
    third = accepted(store, first.job_id, take=1)
    found = store.remote_calls.list
    assert list(found()) == [third, second, first]
    assert list(found(limit=1)) == [third]
    assert list(found(before=third.id, limit=1)) == [second]
    assert list(found(states=["accepted"])) == [third, second]
    assert list(found(backend="google")) == [second]
    assert list(found(job_id=first.job_id)) == [third, first]
    assert list(found(limit=0)) == []


def test_how_long_they_took(store: Store, clock: Callable[[datetime], None]) -> None:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    for number, seconds in enumerate((5.5, 7, 9)):
        clock(start + timedelta(hours=number))
        call = accepted(store)
        clock(start + timedelta(hours=number, seconds=seconds))
        store.remote_calls.settle(call.id, "succeeded", charged=None)
    failed = accepted(store)
    store.remote_calls.settle(failed.id, "failed", charged=None)
    paid(store, model="other")
    assert list(store.remote_calls.seconds("runway", "gen")) == [9, 7, 5.5]
    assert list(store.remote_calls.seconds("runway", "gen", limit=2)) == [9, 7]
    assert list(store.remote_calls.seconds("google", "gen")) == []


def test_one_of_many_sends(store: Store) -> None:
    call = reserve(store)
    sent = at_once(*[lambda: store.remote_calls.send(call.id)] * 8)
    assert sorted(sent) == [False] * 7 + [True]


def test_one_of_many_gets_the_take(store: Store) -> None:
    job_id = job(store)
    results = at_once(*[lambda: reserve(store, job_id)] * 6)
    assert sum(isinstance(one, RemoteCall) for one in results) == 1
    assert sum(isinstance(one, Conflict) for one in results) == 5


def test_a_job_that_ends_while_it_reserves_keeps_nothing(store: Store) -> None:
    for _ in range(8):
        job_id = job(store)
        reserved, moved = at_once(
            lambda job_id=job_id: reserve(store, job_id),  # type: ignore[misc]
            lambda job_id=job_id: store.jobs.move(job_id, "cancelled", expect=ACTIVE),  # type: ignore[misc]
        )
        assert isinstance(reserved, RemoteCall | Conflict)
        assert moved is not None
        assert [call.state for call in store.remote_calls.of_job(job_id)] in ([], ["released"])
    assert store.remote_calls.spent() == 0


def test_the_open_states() -> None:
    ends: set[CallState] = {"succeeded", "failed", "cancelled", "released"}
    assert not ends & set(OPEN)
