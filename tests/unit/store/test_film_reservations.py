"""Is what a film will cost set aside for it, counted once, and free when its job has ended?"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kinoloom.errors import BudgetExceeded, NotFound
from kinoloom.store import Store
from kinoloom.store.films import FilmRecord, waits
from kinoloom.store.job_record import FINISHED, JobRecord, JobState
from kinoloom.store.remote_calls import Limits, RemoteCall
from unit.store.together import at_once

D = Decimal
DAY = Limits(day=D(1))


def film(store: Store, **values: Any) -> str:
    return store.films.add(FilmRecord(title="F", mode="chaining", storyboard={}, **values)).id


def asked(film_id: str, **values: Any) -> JobRecord:
    given: dict[str, Any] = {"queue": "film", "origin": "api", "request": {}, "task": "film"}
    return JobRecord(**given | values, model="m", backend="b", kind="film", film=film_id)


def begin(
    store: Store, film_id: str, cost: str = "1", limits: Limits = DAY, **values: Any
) -> JobRecord:
    job = asked(film_id, **values)
    return store.films.begin(job, cost=D(cost), currency="USD", limits=limits)


def order(
    store: Store, amount: str | None, parent: JobRecord | None = None, limits: Limits = DAY
) -> RemoteCall:
    """A call for a clip: of a film's job, or of none."""
    given: dict[str, Any] = {"queue": "api", "origin": "api", "request": {}, "task": "t2v"}
    of = {} if parent is None else {"parent": parent.id, "film": parent.film}
    clip = store.jobs.add(JobRecord(**given, **of, model="m", backend="b"))[0]
    return store.remote_calls.reserve(
        *(clip.id, 0),
        backend="b",
        model="m",
        amount=None if amount is None else D(amount),
        limits=limits,
        film=clip.film,
        unknown_ok=True,
    )


def paid(store: Store, call: RemoteCall, charged: str) -> None:
    assert store.remote_calls.send(call.id)
    assert store.remote_calls.accept(call.id, remote_id="r")
    assert store.remote_calls.settle(call.id, "succeeded", charged=D(charged))


def test_what_a_film_has_set_aside_nobody_else_takes(store: Store) -> None:
    job = begin(store, film(store), "0.7")
    with pytest.raises(BudgetExceeded) as told:
        order(store, "0.4")
    assert told.value.details["reserved"] == "0.7"
    order(store, "0.3")
    call = order(store, "0.7", job)
    assert call.reservation == job.id
    assert store.remote_calls.spent() == 1


def test_the_calls_of_a_film_are_counted_once(store: Store) -> None:
    job = begin(store, film(store), "0.7")
    first = order(store, "0.2", job)
    assert store.remote_calls.spent() == D("0.7")
    paid(store, first, "0.3")  # dearer than it was said to be
    assert store.remote_calls.spent() == D("0.7")
    spending = store.remote_calls.spending(film=job.film)
    assert (spending.charged, spending.reserved) == (D("0.3"), D("0.4"))
    order(store, "0.6", job)  # takes all that is left, and 0.2 of the day
    assert store.remote_calls.spent() == D("0.9")
    with pytest.raises(BudgetExceeded):
        order(store, "0.2", job)
    order(store, "0.1", job)
    assert store.remote_calls.spent() == 1


def test_what_is_refunded_is_the_films_again(store: Store) -> None:
    job = begin(store, film(store), "1")
    call = order(store, "1", job)
    store.jobs.move(call.job_id, "cancelled", expect=["queued"])  # it was never sent
    with pytest.raises(BudgetExceeded):
        order(store, "0.1")
    order(store, "1", job)


@pytest.mark.parametrize("end", FINISHED)
def test_it_is_free_again_however_the_job_ends(store: Store, end: JobState) -> None:
    job = begin(store, film(store), "1")
    paid(store, order(store, "0.25", job), "0.25")
    # A job that is killed, handed back or held has not ended.
    for state in ("running", "queued", "held"):
        store.jobs.move(job.id, state, expect=["queued", "running"])  # type: ignore[arg-type]
        assert store.remote_calls.spent() == 1
    store.jobs.move(job.id, end, expect=["held"])
    assert store.remote_calls.spent() == D("0.25")
    order(store, "0.75")


def test_a_job_that_is_forgotten_holds_nothing(store: Store) -> None:
    job = begin(store, film(store), "1")
    store.jobs.move(job.id, "failed", expect=["queued"])
    assert store.jobs.delete(job.id)
    order(store, "1")


def test_a_job_that_runs_again_asks_again(store: Store) -> None:
    job = begin(store, film(store), "0.8")
    paid(store, order(store, "0.3", job), "0.3")
    store.jobs.move(job.id, "failed", expect=["queued"])
    other = order(store, "0.3")
    with pytest.raises(BudgetExceeded):  # 0.3 + 0.3 are spent, and 0.5 are still to come
        store.jobs.move(job.id, "queued", expect=["failed"], limits=DAY, finished_at=None)
    assert store.jobs.states([job.id])[job.id][0] == "failed"
    store.remote_calls.release(other.job_id)
    moved = store.jobs.move(job.id, "queued", expect=["failed"], limits=DAY, finished_at=None)
    assert moved is not None
    assert store.remote_calls.spent() == D("0.8")


def test_each_budget_counts_the_films_that_are_its_own(store: Store) -> None:
    mine, other = film(store), film(store)
    begin(store, mine, "2", Limits(), owner="k")
    begin(store, other, "3", Limits())
    counted = store.remote_calls.spent
    assert (counted(owner="k"), counted(film=other), counted()) == (2, 3, 5)
    assert counted(job_id="j") == counted(currency="EUR") == 0
    assert counted(since=datetime.now(UTC) + timedelta(days=40)) == 5  # spent from then on too
    with pytest.raises(BudgetExceeded, match="budget of this film"):
        begin(store, film(store), "1", Limits(film=D("0.9")))
    with pytest.raises(BudgetExceeded, match="API key"):
        begin(store, film(store), "1", Limits(key=D("2.9")), owner="k")
    begin(store, film(store), "1", Limits(key=D(3), film=D(1)), owner="k")


def test_a_film_that_is_refused_leaves_nothing(store: Store) -> None:
    order(store, "0.5")
    film_id = film(store)
    with pytest.raises(BudgetExceeded):
        begin(store, film_id, "0.6")
    found = store.films.get(film_id)
    assert found is not None
    assert found.job_id is None
    assert [job.kind for job in store.jobs.list()] == ["clip"]
    assert store.remote_calls.spent() == D("0.5")
    with pytest.raises(NotFound):
        begin(store, "nothing")


def test_another_currency_than_the_budgets_is_refused(store: Store) -> None:
    with pytest.raises(BudgetExceeded, match="USD"):
        begin(store, film(store), "1", Limits(day=D(5), currency="EUR"))
    assert begin(store, film(store), "0", Limits(day=D(5), currency="EUR")).state == "queued"


def test_a_price_that_nobody_knows_fits_beside_what_is_known(store: Store) -> None:
    job = begin(store, film(store), "1")
    assert order(store, None, job).reserved is None
    with pytest.raises(BudgetExceeded):
        order(store, None)


def test_a_job_that_waits_goes_on_with_what_is_planned_now(store: Store) -> None:
    film_id = film(store)
    job = begin(store, film_id, "0.8")
    paid(store, order(store, "0.3", job), "0.3")
    sent = order(store, "0.1", job)
    store.remote_calls.send(sent.id)
    store.jobs.move(job.id, "held", expect=["queued"], error={"kind": "failed"}, run=job.run)
    found = store.jobs.get(job.id)
    assert found is not None
    assert waits(found)
    with pytest.raises(BudgetExceeded):
        begin(store, film_id, "0.9", request={"edited": True})
    again = begin(store, film_id, "0.5", request={"edited": True}, queue="own")
    assert (again.id, again.run, again.state, again.error) == (job.id, job.run + 1, "queued", None)
    assert (again.request, again.queue) == ({"edited": True}, "own")
    # Paid 0.3; of the 0.5 that are missing 0.1 is ordered already.
    assert store.remote_calls.spent() == D("0.8")
    order(store, "0.4", again)
    assert store.remote_calls.spent() == D("0.8")


def test_a_job_that_is_at_work_is_the_answer(store: Store) -> None:
    film_id = film(store)
    job = begin(store, film_id, "0.6")
    assert begin(store, film_id, "0.6").id == job.id
    assert store.remote_calls.spent() == D("0.6")


def test_costs_tell_what_is_set_aside(store: Store) -> None:
    film_id = film(store)
    job = begin(store, film_id, "0.7", owner="k")
    order(store, "0.2", job)
    costs = store.remote_calls.costs
    (by_film,) = costs("film")
    assert (by_film.name, by_film.calls, by_film.reserved) == (film_id, 1, D("0.7"))
    assert [(row.name, row.reserved) for row in costs("backend")] == [
        ("", D("0.5")),
        ("b", D("0.2")),
    ]
    assert [(row.name, row.reserved) for row in costs("key")] == [("", D("0.2")), ("k", D("0.5"))]
    (today,) = costs("day")
    assert today.reserved == D("0.7")
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert costs("day", since=tomorrow) == []
    assert [row.reserved for row in costs("film", owner="k")] == [D("0.5")]
    store.jobs.move(job.id, "cancelled", expect=["queued"])
    assert [row.reserved for row in costs("film")] == [D("0.2")]


def test_of_two_films_at_once_only_one_gets_the_day(store: Store) -> None:
    films = [film(store) for _ in range(4)]
    results = at_once(*[lambda f=f: begin(store, f, "0.6") for f in films])  # type: ignore[misc]
    assert sum(isinstance(result, JobRecord) for result in results) == 1
    assert sum(isinstance(result, BudgetExceeded) for result in results) == 3
    assert store.remote_calls.spent() == D("0.6")


def test_of_two_who_begin_one_film_both_get_its_one_job(store: Store) -> None:
    film_id = film(store)
    first, second = at_once(*[lambda: begin(store, film_id, "0.6")] * 2)
    assert first.id == second.id
    assert store.remote_calls.spent() == D("0.6")


def test_two_machines_share_the_day(current_postgres: str, tmp_path: Path) -> None:
    with (
        Store.open(tmp_path / "a", database_url=current_postgres) as a,
        Store.open(tmp_path / "b", database_url=current_postgres) as b,
    ):
        films = [film(a), film(a)]
        results = at_once(
            lambda: begin(a, films[0], "0.6"),
            lambda: begin(b, films[1], "0.6"),
        )
        assert sorted(type(result).__name__ for result in results) == [
            "BudgetExceeded",
            "JobRecord",
        ]
        assert a.remote_calls.spent() == b.remote_calls.spent() == D("0.6")
