from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from api_client import Api, api
from kinoloom.config import Settings
from kinoloom.config_sections import BudgetSettings
from kinoloom.store.job_record import JobRecord
from paying import pay


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", budgets=BudgetSettings(day=Decimal(5)))


def paid(found: Api, charged: str, **values: Any) -> None:
    given: dict[str, Any] = {"queue": "api", "origin": "api", "request": {}, "task": "t2v"}
    job, _ = found.store.jobs.add(JobRecord(**given, model="m", backend="veo"))
    pay(found.store, job.id, charged, **values)


def test_costs_and_budgets(settings: Settings) -> None:
    with api(settings) as found:
        assert found.client.get("/api/costs").json()["rows"] == []
        paid(found, "0.60")
        paid(found, "3.5", backend="runway")
        answer = found.client.get("/api/costs", params={"by": "backend"}).json()
        assert [(row["name"], row["charged"]) for row in answer["rows"]] == [
            ("runway", "3.5"),
            ("veo", "0.6"),
        ]
        (total,) = answer["totals"]
        assert (total["calls"], total["charged"], total["currency"]) == (2, "4.1", "USD")
        (day,) = answer["budgets"]
        assert (day["name"], day["left"], day["share"], day["warn"]) == ("day", "0.9", 0.82, True)
        nothing = found.client.get("/api/costs", params={"until": "2026-01-01"}).json()
        assert (nothing["rows"], nothing["until"]) == ([], "2026-01-01")


def test_a_key_sees_its_own(settings: Settings) -> None:
    with api(settings, require_key=True) as found:
        _, admin = found.key("admin", "admin")
        mine, headers = found.key("mine", "read")
        _, writer = found.key("writer", "write")
        paid(found, "1", owner=mine.id)
        paid(found, "2")
        for by in ("day", "backend", "model", "film", "key"):
            answer = found.client.get("/api/costs", params={"by": by}, headers=headers).json()
            assert [row["charged"] for row in answer["totals"]] == ["1"]
            assert answer["budgets"] == []
        everything = found.client.get("/api/costs", headers=admin).json()
        assert [row["charged"] for row in everything["totals"]] == ["3"]
        assert [budget["name"] for budget in everything["budgets"]] == ["day"]
        assert found.client.get("/api/costs", headers=writer).status_code == 403
        assert found.client.get("/api/costs").status_code == 401


@pytest.mark.parametrize(
    "wrong",
    [
        {"by": "colour"},
        {"since": "yesterday"},
        {"until": "2026-02-30"},
        {"since": "\0"},
        {"until": "0"},
    ],
)
def test_what_is_wrong_is_told(settings: Settings, wrong: dict[str, str]) -> None:
    with api(settings) as found:
        answer = found.client.get("/api/costs", params=wrong)
        assert answer.json()["kind"] == "invalid_params"
        assert answer.status_code in (400, 422)
        (field,) = wrong
        assert field in str(answer.json()["problems"])
