from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy.orm import Session

from kinoloom.errors import BudgetExceeded, Conflict, NotFound
from kinoloom.store import Store
from kinoloom.store.database import Database
from kinoloom.store.jobs import ACTIVE, JobRecord
from kinoloom.store.remote_calls import OPEN, CallState, CostRow, Limits, RemoteCall
from unit.store.together import at_once

D = Decimal


def job(store: Store, **values: Any) -> str:
    given: dict[str, Any] = {"queue": "api", "origin": "api", "request": {}, "task": "t2v"}
    record = JobRecord(**given, model="gen", backend="runway", **values)
    return store.jobs.add(record)[0].id


def reserve(store: Store, job_id: str | None = None, amount: str | None = "1", **more: Any) -> Any:
    """A call of take 0 of that job, or of a new one."""
    given: dict[str, Any] = {"backend": "runway", "model": "gen", "limits": Limits(), "take": 0}
    asked = None if amount is None else D(amount)
    return store.remote_calls.reserve(job_id or job(store), amount=asked, **given | more)


def accepted(store: Store, job_id: str | None = None, **more: Any) -> RemoteCall:
    call = reserve(store, job_id, **more)
    assert store.remote_calls.send(call.id)
    assert store.remote_calls.accept(call.id, remote_id=f"r-{call.id}")
    return now(store, call)


def paid(store: Store, job_id: str | None = None, charged: str | None = "1", **more: Any) -> Any:
    """A call that succeeded."""
    call = accepted(store, job_id, **more)
    cost = None if charged is None else D(charged)
    assert store.remote_calls.settle(call.id, "succeeded", charged=cost)
    return now(store, call)


def now(store: Store, call: RemoteCall) -> RemoteCall:
    found = store.remote_calls.get(call.id)
    assert found is not None
    return found


def limited(name: str, amount: str) -> Limits:
    """No limit but one."""
    one: dict[str, Any] = {name: D(amount)}
    return Limits(**one)


def refused(store: Store, *arguments: Any, **more: Any) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as caught:
        reserve(store, *arguments, **more)
    return caught.value


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Sets what time it is for the database."""

    def set_to(moment: datetime) -> None:
        def told(_database: Database, _session: Session) -> datetime:
            return moment

        monkeypatch.setattr(Database, "now", told)

    return set_to


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


@pytest.mark.parametrize(
    ("state", "accept", "charged", "booked"),
    [
        ("succeeded", True, None, "0.6"),
        ("succeeded", True, "0.9", "0.9"),  # more than was reserved is booked all the same
        ("succeeded", True, "0", "0"),
        ("cancelled", True, None, "0.6"),
        ("cancelled", True, "0.1", "0.1"),
        ("cancelled", False, None, "0"),
        ("failed", True, None, None),
        ("failed", True, "0.2", "0.2"),
        ("failed", False, None, "0"),
    ],
)
def test_what_is_booked_in_the_end(
    store: Store, state: Any, accept: bool, charged: str | None, booked: str | None
) -> None:
    call = reserve(store, amount="0.6")
    store.remote_calls.send(call.id)
    if accept:
        store.remote_calls.accept(call.id, remote_id="r")
    assert store.remote_calls.spent() == D("0.6")
    cost = None if charged is None else D(charged)
    assert store.remote_calls.settle(call.id, state, charged=cost, error={"kind": "unknown"})
    found = now(store, call)
    assert (found.state, found.error) == (state, {"kind": "unknown"})
    assert found.charged == (None if booked is None else D(booked))
    assert store.remote_calls.spent() == D(booked or 0)
    record = store.jobs.get(call.job_id)
    assert record is not None
    assert record.cost == found.charged
    assert record.currency == ("USD" if found.charged else None)
    assert (record.as_dict()["cost"], record.as_dict()["currency"]) == (booked, record.currency)


def test_what_the_service_says_takes_the_place_of_the_estimate(store: Store) -> None:
    call = reserve(store, amount="0.6")
    store.remote_calls.send(call.id)
    store.remote_calls.accept(call.id, remote_id="r", cost=D("0.75"))
    assert store.remote_calls.spent() == D("0.75")
    store.remote_calls.settle(call.id, "succeeded", charged=None)
    assert now(store, call).charged == D("0.75")


def test_money_is_exact_and_never_rounded_down(store: Store) -> None:
    job_id = job(store)
    for take in range(10):
        paid(store, job_id, "0.1", amount="0.1", take=take)
    assert store.remote_calls.spent(job_id=job_id) == 1
    odd = reserve(store, amount="0.0000001")
    assert odd.reserved == D("0.000001")
    assert now(store, odd) == odd
    store.remote_calls.send(odd.id)
    store.remote_calls.settle(odd.id, "succeeded", charged=D("12345678.0000011"))
    assert now(store, odd).charged == D("12345678.000002")


def test_an_unknown_price(store: Store) -> None:
    limits = Limits(day=D(5))
    assert reserve(store, amount=None).reserved is None  # no budget, nothing to exceed
    error = refused(store, amount=None, limits=limits)
    assert "not known" in error.message
    assert error.details == {
        "budget": "day",
        "limit": "5",
        "spent": "0",
        "reserved": "0",
        "asked": None,
        "currency": "USD",
    }
    call = reserve(store, amount=None, limits=limits, unknown_ok=True)
    store.remote_calls.send(call.id)
    store.remote_calls.accept(call.id, remote_id="r")
    store.remote_calls.settle(call.id, "succeeded", charged=None)
    assert now(store, call).charged is None  # never free
    assert [row.unknown for row in store.remote_calls.costs("backend")] == [2]
    paid(store, charged="5")
    error = refused(store, amount=None, limits=limits, unknown_ok=True)  # it is used up
    assert "exceed" in error.message
    assert refused(store, job(store), None, limits=Limits(key=D(1)), owner="k").details["budget"]
    assert reserve(store, amount=None, limits=Limits(key=D(1), film=D(1)))  # neither applies


def test_every_budget(store: Store) -> None:
    job_id = job(store)
    paid(store, job_id, "2", owner="key", film="film", take=1)
    reserve(store, job_id, "1", owner="key", film="film", take=2)
    more: dict[str, Any] = {"owner": "key", "film": "film", "take": 3}
    for name in ("clip", "film", "key", "day", "month"):
        tight, loose = limited(name, "3.5"), limited(name, "4")
        error = refused(store, job_id, "1", limits=tight, **more)
        assert error.details == {
            "budget": name,
            "limit": "3.5",
            "spent": "2",
            "reserved": "1",
            "asked": "1",
            "currency": "USD",
        }
        assert error.cause == "Spent: 2, reserved: 1, asked: 1, limit: 3.5 USD."
        assert error.hints
        more["take"] += 1
        for asked, fits in (("0", tight), ("1", loose)):
            call = reserve(store, job_id, asked, limits=fits, **more)
            if asked == "1":
                refused(store, job_id, "0.000001", limits=loose, **more | {"take": 99})
            store.remote_calls.send(call.id)
            assert store.remote_calls.settle(call.id, "failed", charged=None)  # frees it


def test_what_is_free_needs_no_budget(store: Store) -> None:
    paid(store, charged="9")
    assert reserve(store, amount="0", limits=Limits(day=D(1), clip=D(0)))
    assert reserve(store, amount="0", limits=Limits(day=D(1), currency="EUR"))
    refused(store, amount="0.000001", limits=Limits(clip=D(0)))


def test_whom_a_budget_holds_for(store: Store) -> None:
    paid(store, charged="3", owner="key", film="film")
    limits = Limits(clip=D(3), film=D(3), key=D(3))
    assert reserve(store, amount="3", limits=limits)
    assert reserve(store, amount="3", limits=limits, owner="other", film="other")
    assert refused(store, limits=limits, owner="key").details["budget"] == "key"
    assert refused(store, limits=limits, film="film").details["budget"] == "film"


def test_days_and_months_are_those_of_utc(store: Store, clock: Callable[[datetime], None]) -> None:
    limits = Limits(day=D(1), month=D(2))
    clock(datetime(2026, 10, 31, 23, 59, 59, 999_999, UTC))
    open_one = reserve(store, limits=limits)
    assert refused(store, limits=limits).details["budget"] == "day"
    clock(datetime(2026, 11, 1, tzinfo=UTC))
    reserve(store, limits=limits)
    clock(datetime(2026, 11, 1, 23, tzinfo=UTC).astimezone(timezone(timedelta(hours=9))))
    assert refused(store, limits=limits).details["budget"] == "day"
    clock(datetime(2026, 11, 2, tzinfo=UTC))
    reserve(store, limits=limits)
    clock(datetime(2026, 11, 30, tzinfo=UTC))
    assert refused(store, limits=limits).details["budget"] == "month"
    clock(datetime(2026, 12, 1, tzinfo=UTC))
    # It counts for the day that it was reserved on, whenever it is charged.
    store.remote_calls.send(open_one.id)
    store.remote_calls.settle(open_one.id, "succeeded", charged=D(9))
    reserve(store, limits=limits)
    assert [(row.name, row.charged) for row in store.remote_calls.costs("day")] == [
        ("2026-10-31", D(9)),
        ("2026-11-01", D(0)),
        ("2026-11-02", D(0)),
        ("2026-12-01", D(0)),
    ]


def test_currencies_are_never_mixed(store: Store) -> None:
    euros = Limits(day=D(5), currency="EUR")
    error = refused(store, amount="1", limits=euros)
    assert error.details == {"budget": "day", "currency": "USD"}
    paid(store, charged="9")  # dollars do not count against euros
    mine = job(store)
    paid(store, mine, "4", currency="EUR", limits=euros)
    assert refused(store, amount="2", currency="EUR", limits=euros).details["spent"] == "4"
    assert (store.remote_calls.spent(), store.remote_calls.spent(currency="EUR")) == (D(9), D(4))
    record = store.jobs.get(mine)
    assert record is not None
    assert (record.cost, record.currency) == (D(4), "EUR")
    with pytest.raises(Conflict, match="paid in EUR"):
        reserve(store, mine, take=1)
    free = job(store)
    call = reserve(store, free, "0")
    store.remote_calls.release(free)
    assert reserve(store, free, currency="EUR").attempt == call.attempt + 1


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


def test_costs_by_what_one_asks(store: Store, clock: Callable[[datetime], None]) -> None:
    clock(datetime(2026, 11, 1, 12, tzinfo=UTC))
    paid(store, charged="1", owner="a", film="f")
    accepted(store, amount="0.5", owner="a")
    paid(store, amount=None, charged=None, owner="b", model="other")
    released = reserve(store, amount="7")
    store.remote_calls.release(released.job_id)
    clock(datetime(2026, 11, 2, 12, tzinfo=UTC))
    paid(store, charged="2", backend="google", model="veo", owner="b")
    paid(store, charged="3", backend="google", model="veo", currency="EUR")
    costs = store.remote_calls.costs
    assert list(costs("day")) == [
        CostRow("2026-11-01", 3, D(1), D("0.5"), 1, "USD"),
        CostRow("2026-11-02", 1, D(3), D(0), 0, "EUR"),
        CostRow("2026-11-02", 1, D(2), D(0), 0, "USD"),
    ]
    assert list(costs("backend")) == [
        CostRow("google", 1, D(3), D(0), 0, "EUR"),
        CostRow("google", 1, D(2), D(0), 0, "USD"),
        CostRow("runway", 3, D(1), D("0.5"), 1, "USD"),
    ]
    assert [(row.name, row.currency) for row in costs("model")] == [
        ("gen", "USD"),
        ("other", "USD"),
        ("veo", "EUR"),
        ("veo", "USD"),
    ]
    assert {(row.name, row.calls) for row in costs("film")} == {("", 3), ("", 1), ("f", 1)}
    assert [row.name for row in costs("key")] == ["", "a", "b"]
    midnight = datetime(2026, 11, 2, tzinfo=UTC)
    assert [row.name for row in costs("backend", until=midnight)] == ["runway"]
    assert {row.name for row in costs("backend", since=midnight)} == {"google"}
    assert [row.charged for row in costs("backend", owner="b")] == [2, 0]


def test_the_books_outlive_the_job(store: Store) -> None:
    call = paid(store, charged="2", owner="key")
    store.jobs.move(call.job_id, "failed", expect=ACTIVE)
    assert store.jobs.delete(call.job_id)
    assert now(store, call) == call
    assert store.remote_calls.spent(owner="key") == 2


def test_the_cost_comes_with_every_way_to_read_a_job(store: Store) -> None:
    call = paid(store, charged="2", owner="key")
    reserve(store, call.job_id, take=1)
    moved = store.jobs.move(call.job_id, "running", expect=["queued"], worker_to="w")
    (listed,) = store.jobs.list()
    (there,) = store.jobs.running_on("w")
    for record in (moved, listed, there, store.jobs.get(call.job_id)):
        assert record is not None
        assert (record.cost, record.currency) == (D(2), "USD")


def test_one_of_many_sends(store: Store) -> None:
    call = reserve(store)
    sent = at_once(*[lambda: store.remote_calls.send(call.id)] * 8)
    assert sorted(sent) == [False] * 7 + [True]


def test_one_of_many_gets_the_take(store: Store) -> None:
    job_id = job(store)
    results = at_once(*[lambda: reserve(store, job_id)] * 6)
    assert sum(isinstance(one, RemoteCall) for one in results) == 1
    assert sum(isinstance(one, Conflict) for one in results) == 5


def test_many_at_once_never_reserve_more_than_there_is(store: Store) -> None:
    jobs = [job(store) for _ in range(12)]
    limits = Limits(day=D("1"))
    results = at_once(*[lambda one=one: reserve(store, one, "0.3", limits=limits) for one in jobs])
    assert sum(isinstance(one, RemoteCall) for one in results) == 3
    assert sum(isinstance(one, BudgetExceeded) for one in results) == 9
    assert store.remote_calls.spent() == D("0.9")


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
