from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.orm import Session

from kinoloom.config import Settings
from kinoloom.config_sections import BudgetSettings
from kinoloom.errors import InvalidRequest
from kinoloom.jobs import costs as module
from kinoloom.jobs.costs import (
    budget_state,
    checked_day,
    checked_group,
    cost_report,
    costs,
    key_state,
)
from kinoloom.store.database import Database
from kinoloom.store.job_record import JobRecord
from kinoloom.store.remote_calls import Limits
from kinoloom.store.store import Store
from paying import pay

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that sets the time, for the database and for us; it is NOW to begin with."""

    def set_to(moment: datetime) -> None:
        class Clock(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return moment

        def told(_database: Database, _session: Session) -> datetime:
            return moment

        monkeypatch.setattr(module, "datetime", Clock)
        monkeypatch.setattr(Database, "now", told)

    set_to(NOW)
    return set_to


def job(store: Store) -> str:
    given: dict[str, Any] = {"queue": "api", "origin": "api", "request": {}, "task": "t2v"}
    return store.jobs.add(JobRecord(**given, model="m", backend="veo"))[0].id


def paid(store: Store, charged: str | None, **values: Any) -> None:
    pay(store, job(store), charged, **values)


def set_aside(store: Store, amount: str, **values: Any) -> None:
    given: dict[str, Any] = {"take": 0, "backend": "veo", "model": "m", "limits": Limits()}
    store.remote_calls.reserve(job(store), amount=Decimal(amount), **given | values)


def with_budgets(tmp_path: Path, **amounts: Any) -> Settings:
    return Settings(home=tmp_path, budgets=BudgetSettings(**amounts))


def test_of_nothing(store: Store, tmp_path: Path) -> None:
    assert cost_report(Settings(home=tmp_path), store) == {
        "by": "day",
        "since": None,
        "until": None,
        "rows": [],
        "totals": [],
        "budgets": [],
    }


def test_rows_and_totals_are_exact_and_of_one_currency_each(store: Store, at: Any) -> None:
    for _ in range(3):
        paid(store, "0.1")
    set_aside(store, "0.25")
    paid(store, None)
    paid(store, "7", currency="EUR")
    found = costs(store)
    dollars = {
        "calls": 5,
        "charged": "0.3",
        "reserved": "0.25",
        "unknown": 1,
        "currency": "USD",
    }
    euros = {"calls": 1, "charged": "7", "reserved": "0", "unknown": 0, "currency": "EUR"}
    day = {"name": "2026-11-21", "id": "2026-11-21"}
    assert found["rows"] == [day | euros, day | dollars]
    assert found["totals"] == [euros, dollars]
    assert json.loads(json.dumps(found)) == found


def test_days_are_included(store: Store, at: Any) -> None:
    for day, charged in ((19, "1"), (20, "2"), (21, "4")):
        at(datetime(2026, 11, day, 23, 59, 59, 999_999, UTC))
        paid(store, charged)

    def charged_in(since: int | None, until: int | None) -> str:
        days = (None if day is None else date(2026, 11, day) for day in (since, until))
        (total,) = costs(store, "day", *days)["totals"]
        amount: str = total["charged"]
        return amount

    assert charged_in(None, None) == "7"
    assert charged_in(20, None) == "6"
    assert charged_in(None, 20) == "3"
    assert charged_in(20, 20) == "2"
    assert costs(store, since=date(2026, 11, 22))["rows"] == []
    assert costs(store, until=date.max)["totals"][0]["charged"] == "7"
    assert costs(store, since=date.min)["totals"][0]["charged"] == "7"


def test_by_key_and_what_is_of_none(store: Store, at: Any) -> None:
    key, _ = store.keys.create("studio", ["write"])
    paid(store, "1", owner=key.id)
    paid(store, "2", owner="a-key-that-is-gone")
    paid(store, "4")
    rows = costs(store, "key")["rows"]
    assert {(row["name"], row["id"], row["charged"]) for row in rows} == {
        ("studio", key.id, "1"),
        ("a-key-that-is-gone", "a-key-that-is-gone", "2"),
        (None, None, "4"),
    }
    assert [row["name"] for row in costs(store, "film")["rows"]] == [None]
    assert [row["charged"] for row in costs(store, "backend", owner=key.id)["rows"]] == ["1"]


def test_the_state_of_budgets(store: Store, tmp_path: Path, at: Any) -> None:
    settings = with_budgets(tmp_path, day="10", month="20", clip="1")
    at(datetime(2026, 10, 31, 23, tzinfo=UTC))
    paid(store, "99")
    at(datetime(2026, 11, 20, 23, tzinfo=UTC))
    paid(store, "10")
    at(NOW)
    paid(store, "4.5")
    set_aside(store, "1.5")
    paid(store, "50", currency="EUR")
    day, month = budget_state(settings, store)
    assert day.as_dict() == {
        "name": "day",
        "limit": "10",
        "spent": "4.5",
        "reserved": "1.5",
        "left": "4",
        "currency": "USD",
        "share": 0.6,
        "warn": False,
    }
    assert (month.name, month.share, month.warn) == ("month", 0.8, True)  # just at the threshold
    assert str(month) == "16.00 USD of the budget of 20.00 USD (month) are spent or reserved"


@pytest.mark.parametrize(
    ("limit", "paid_by_now", "left", "share", "warn"),
    [("1", "3", "0", 3.0, True), ("0", None, "0", 1.0, True), ("1", None, "1", 0.0, False)],
)
def test_the_ends_of_a_budget(
    store: Store,
    tmp_path: Path,
    limit: str,
    paid_by_now: str | None,
    left: str,
    share: float,
    warn: bool,
) -> None:
    if paid_by_now is not None:
        paid(store, paid_by_now)
    (found,) = budget_state(with_budgets(tmp_path, day=limit), store)
    told = found.as_dict()
    assert (told["left"], told["share"], told["warn"]) == (left, share, warn)


def test_a_key_and_its_budget(store: Store, tmp_path: Path) -> None:
    settings = with_budgets(tmp_path, day="5")
    rich, _ = store.keys.create("rich", ["read"])
    poor, _ = store.keys.create("poor", ["read"], Decimal("2"))
    store.keys.create("gone", ["read"], Decimal("2"))
    store.keys.revoke("gone")
    paid(store, "1", owner=poor.id)
    paid(store, "3", owner=rich.id)
    assert key_state(settings, store, rich) is None
    everyones = cost_report(settings, store, "key")
    assert [state["name"] for state in everyones["budgets"]] == ["day", "key poor"]
    mine = cost_report(settings, store, "key", only=poor)
    assert [(row["name"], row["charged"]) for row in mine["rows"]] == [("poor", "1")]
    (state,) = mine["budgets"]
    assert (state["name"], state["left"]) == ("key poor", "1")
    assert cost_report(settings, store, only=rich)["budgets"] == []


def test_what_a_user_wrote() -> None:
    assert checked_group("model") == "model"
    with pytest.raises(InvalidRequest) as caught:
        checked_group("modle")
    assert "nearest is model" in caught.value.cause
    assert checked_day("since", None) is None
    assert checked_day("since", "2026-11-21") == date(2026, 11, 21)
    for wrong in ("", "yesterday", "2026-13-01", "2026-02-30", "21.11.2026"):
        with pytest.raises(InvalidRequest) as caught:
            checked_day("--since", wrong)
        assert caught.value.problems[0].field == "--since"
