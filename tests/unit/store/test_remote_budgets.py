"""What is spent on calls, and is nothing ordered that a budget has no room for?"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from kinoloom.errors import BudgetExceeded, Conflict
from kinoloom.store import Store
from kinoloom.store.job_record import ACTIVE
from kinoloom.store.remote_calls import CostRow, Limits, RemoteCall
from unit.store.ordering import D, accepted, job, now, paid, reserve
from unit.store.together import at_once


def limited(name: str, amount: str) -> Limits:
    """No limit but one."""
    one: dict[str, Any] = {name: D(amount)}
    return Limits(**one)


def refused(store: Store, *arguments: Any, **more: Any) -> BudgetExceeded:
    with pytest.raises(BudgetExceeded) as caught:
        reserve(store, *arguments, **more)
    return caught.value


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


def test_many_at_once_never_reserve_more_than_there_is(store: Store) -> None:
    jobs = [job(store) for _ in range(12)]
    limits = Limits(day=D("1"))
    results = at_once(*[lambda one=one: reserve(store, one, "0.3", limits=limits) for one in jobs])
    assert sum(isinstance(one, RemoteCall) for one in results) == 3
    assert sum(isinstance(one, BudgetExceeded) for one in results) == 9
    assert store.remote_calls.spent() == D("0.9")
