from __future__ import annotations

import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from kinoloom import cli
from kinoloom.config import load_settings
from kinoloom.store.held import held_store
from kinoloom.store.job_record import JobRecord
from kinoloom.store.remote_calls import Limits
from kinoloom.store.store import Store
from paying import pay


@pytest.fixture(autouse=True)
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(tmp_path / "conf"))
    monkeypatch.setenv("KINOLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")
    return held_store(load_settings())


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(cli.app, ["costs", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def job(store: Store) -> str:
    given: dict[str, Any] = {"queue": "api", "origin": "api", "request": {}, "task": "t2v"}
    return store.jobs.add(JobRecord(**given, model="m", backend="veo"))[0].id


def test_nothing_yet() -> None:
    assert run().stdout == "Nothing was ordered from a service.\n"
    told = run("--since", "2026-11-01", "--until", "2026-11-30").stdout
    assert told == "Nothing was ordered from a service since 2026-11-01 until 2026-11-30.\n"
    assert json.loads(run("--json").stdout)["rows"] == []


def test_rows_totals_and_budgets(store: Store, tmp_path: Path) -> None:
    Path("kinoloom.yaml").write_text("budgets: {day: 1.00, month: 100}\n", encoding="utf-8")
    key, _ = store.keys.create("studio", ["write"], Decimal(2))
    pay(store, job(store), "0.6", backend="runway", model="gen", owner=key.id)
    pay(store, job(store), None, backend="replicate", model="wan", film="intro")
    store.remote_calls.reserve(
        job(store), 0, backend="google", model="veo", amount=Decimal("0.3"), limits=Limits()
    )
    lines = run("--by", "backend").stdout.splitlines()
    assert [line.split() for line in lines] == [
        ["backend", "calls", "paid", "set", "aside", "of", "unknown", "cost"],
        ["google", "1", "0.00", "USD", "0.30", "USD", "-"],
        ["replicate", "1", "0.00", "USD", "0.00", "USD", "1"],
        ["runway", "1", "0.60", "USD", "0.00", "USD", "-"],
        ["in", "all", "3", "0.60", "USD", "0.30", "USD", "1"],
        *(
            line.split()
            for line in (
                "!! budget day: 90 % of 1.00 USD spent or set aside, 0.10 USD left",
                "ok budget month: 1 % of 100.00 USD spent or set aside, 99.10 USD left",
                "ok budget key studio: 30 % of 2.00 USD spent or set aside, 1.40 USD left",
            )
        ),
    ]
    assert datetime.now(UTC).date().isoformat() in run().stdout
    assert "studio" in run("--by", "key").stdout
    assert "intro" in run("--by", "film").stdout
    found = json.loads(run("--by", "model", "--json").stdout)
    assert [row["name"] for row in found["rows"]] == ["gen", "veo", "wan"]
    (total,) = found["totals"]
    assert (total["charged"], total["reserved"], total["unknown"]) == ("0.6", "0.3", 1)
    assert "Nothing" in run("--until", "2026-01-01").stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--by", "backends"), "nearest is backend"),
        (("--since", "yesterday"), "--since = 'yesterday': allowed is a day such as 2026-11-21"),
        (("--until", "2026-02-30"), "--until"),
    ],
)
def test_what_is_wrong_is_told(arguments: tuple[str, ...], words: str) -> None:
    result = run(*arguments)
    assert result.exit_code == 2
    assert words in result.stderr
