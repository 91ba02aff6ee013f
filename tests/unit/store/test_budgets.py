"""Does any order of events spend more than a budget has?"""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinoloom.errors import BudgetExceeded, Conflict
from kinoloom.store import DATABASE_NAME, Store
from kinoloom.store.budgets import start_of_day, start_of_month
from kinoloom.store.job_record import ACTIVE, JobRecord
from kinoloom.store.remote_calls import OPEN, Limits, RemoteCall

MILLIONTH = Decimal("0.000001")
amounts = st.integers(0, 3_000_000).map(lambda n: n * MILLIONTH)
limits = st.none() | st.integers(0, 5_000_000).map(lambda n: n * MILLIONTH)
steps = st.tuples(
    st.sampled_from(["reserve", "send", "unsend", "accept", "doubt", "settle", "release", "end"]),
    st.integers(0, 3),  # which job
    st.integers(0, 1),  # which take
    st.none() | amounts,
    st.sampled_from(["succeeded", "failed", "cancelled"]),
)


def job(store: Store) -> str:
    given: dict[str, Any] = {"queue": "api", "origin": "api", "request": {}, "task": "t2v"}
    return store.jobs.add(JobRecord(**given, model="m", backend="b"))[0].id


def expected(calls: list[RemoteCall], which: Callable[[RemoteCall], bool]) -> Decimal:
    """What counts against a budget, added up from the rows one by one."""
    mine = [call for call in calls if which(call)]
    charged = sum((call.charged or Decimal(0) for call in mine), Decimal(0))
    held = (call.reserved or Decimal(0) for call in mine if call.state in OPEN)
    return charged + sum(held, Decimal(0))


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an empty, migrated database: copying it is faster than migrating."""
    home = tmp_path_factory.mktemp("fresh")
    with Store.open(home):
        pass
    with closing(sqlite3.connect(home / DATABASE_NAME)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return home


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    plan=st.lists(steps, max_size=40),
    clip=limits,
    film=limits,
    key=limits,
    day=limits,
    month=limits,
)
def test_no_order_of_events_reserves_more_than_a_budget_has(
    fresh: Path,
    tmp_path_factory: pytest.TempPathFactory,
    plan: list[tuple[str, int, int, Decimal | None, Any]],
    clip: Decimal | None,
    film: Decimal | None,
    key: Decimal | None,
    day: Decimal | None,
    month: Decimal | None,
) -> None:
    bounds = Limits(clip=clip, film=film, key=key, day=day, month=month)
    home = tmp_path_factory.mktemp("home")
    shutil.copy(fresh / DATABASE_NAME, home)
    with Store.open(home) as store:
        calls, jobs = store.remote_calls, [job(store) for _ in range(4)]
        for step, which, take, amount, end in plan:
            job_id = jobs[which]
            mine = calls.current(job_id, take)
            # Half of the jobs are of the film and half of the key, so that each budget differs.
            about = {"film": "f" if which % 2 else None, "owner": "k" if which // 2 else None}
            reach: dict[str, Callable[[RemoteCall], bool]] = {
                "clip": lambda call, job_id=job_id: call.job_id == job_id,  # type: ignore[misc]
                "film": lambda call: call.film == "f",
                "key": lambda call: call.owner == "k",
                "day": lambda call: True,
                "month": lambda call: True,
            }
            if step == "reserve":
                asked = amount or Decimal(0)
                before = list(calls.list(limit=1000))
                try:
                    made = calls.reserve(
                        *(job_id, take),
                        backend="b",
                        model="m",
                        amount=asked,
                        limits=bounds,
                        owner=about["owner"],
                        film=about["film"],
                    )
                except Conflict:
                    assert mine is None or mine.open or not_there(store, job_id)
                    assert list(calls.list(limit=1000)) == before
                except BudgetExceeded as error:
                    name = error.details["budget"]
                    spent = expected(before, reach[name])
                    assert spent + asked > getattr(bounds, name)
                    assert list(calls.list(limit=1000)) == before
                else:
                    after = list(calls.list(limit=1000))
                    assert {call.id for call in after} == {c.id for c in before} | {made.id}
                    for name, counts in reach.items():
                        limit = getattr(bounds, name)
                        holds = about.get({"key": "owner"}.get(name, name), True)
                        if limit is not None and holds and asked:
                            assert expected(after, counts) <= limit
            elif step == "release":
                calls.release(job_id)
            elif step == "end":
                store.jobs.move(job_id, "cancelled", expect=ACTIVE)
            elif mine is not None:
                if step == "send":
                    assert calls.send(mine.id) == (mine.state == "new")
                elif step == "unsend":
                    assert calls.unsend(mine.id) == (mine.state in ("sent", "uncertain"))
                elif step == "accept":
                    expects = mine.state in ("sent", "uncertain")
                    assert calls.accept(mine.id, remote_id="r") == expects
                elif step == "doubt":
                    assert calls.doubt(mine.id, {}) == (mine.state == "sent")
                else:
                    expects = mine.state in ("sent", "accepted", "uncertain")
                    assert calls.settle(mine.id, end, charged=amount) == expects
                    if expects and amount is not None:
                        settled = calls.get(mine.id)
                        assert settled is not None
                        assert (settled.charged, settled.state) == (amount, end)
            everything = list(calls.list(limit=1000))
            assert calls.spent() == expected(everything, lambda call: True)
            assert calls.spent(owner="k") == expected(everything, lambda c: c.owner == "k")
            assert calls.spent(film="f") == expected(everything, lambda c: c.film == "f")
            assert calls.spent(job_id=job_id) == expected(everything, reach["clip"])
            record = store.jobs.get(job_id)
            assert record is not None
            if record.finished_at is not None:
                assert all(call.state != "new" for call in calls.of_job(job_id))


def not_there(store: Store, job_id: str) -> bool:
    record = store.jobs.get(job_id)
    return record is None or record.finished_at is not None


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    asked=st.lists(amounts, min_size=4, max_size=16),
    limit=st.integers(0, 8_000_000).map(lambda n: n * MILLIONTH),
)
def test_threads_at_once_reserve_no_more_than_a_budget_has(
    store: Store, asked: list[Decimal], limit: Decimal
) -> None:
    # A film of its own for each example, as they share the database.
    film = job(store)
    jobs, bounds = [job(store) for _ in asked], Limits(film=limit)
    together, failures = threading.Barrier(4), list[BaseException]()

    def work(number: int) -> None:
        try:
            together.wait(60)
            for at in range(number, len(asked), 4):
                try:
                    call = store.remote_calls.reserve(
                        *(jobs[at], 0),
                        backend="b",
                        model="m",
                        amount=asked[at],
                        limits=bounds,
                        film=film,
                    )
                except BudgetExceeded:
                    continue
                if at % 3 == 0:  # as jobs end, others get what they had set aside
                    store.remote_calls.send(call.id)
                    store.remote_calls.settle(call.id, "failed", charged=Decimal(0))
                assert store.remote_calls.spent(film=film) <= limit
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert store.remote_calls.spent(film=film) <= limit


def test_where_days_and_months_begin() -> None:
    moment = datetime(2026, 2, 28, 13, 5, 6, 7, UTC)
    assert start_of_day(moment) == datetime(2026, 2, 28, tzinfo=UTC)
    assert start_of_month(moment) == datetime(2026, 2, 1, tzinfo=UTC)
    elsewhere = datetime(2026, 3, 1, 5, tzinfo=timezone(timedelta(hours=9)))  # still February
    assert start_of_day(elsewhere) == datetime(2026, 2, 28, tzinfo=UTC)
    assert start_of_month(elsewhere) == datetime(2026, 2, 1, tzinfo=UTC)


def test_two_machines_share_a_budget(current_postgres: str, tmp_path: Path) -> None:
    """Each with a store of its own on one database, as on two machines."""
    with (
        Store.open(tmp_path / "a", database_url=current_postgres) as a,
        Store.open(tmp_path / "b", database_url=current_postgres) as b,
    ):
        jobs = [job(a) for _ in range(16)]
        taken, together = list[str](), threading.Barrier(2)

        def work(store: Store, mine: list[str]) -> None:
            together.wait(60)
            for job_id in mine:
                try:
                    store.remote_calls.reserve(
                        *(job_id, 0),
                        backend="b",
                        model="m",
                        amount=Decimal("0.4"),
                        limits=Limits(day=Decimal(2)),
                    )
                    taken.append(job_id)
                except BudgetExceeded:
                    pass

        threads = [
            threading.Thread(target=work, args=pair) for pair in ((a, jobs[::2]), (b, jobs[1::2]))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert len(taken) == 5
        assert a.remote_calls.spent() == b.remote_calls.spent() == 2
