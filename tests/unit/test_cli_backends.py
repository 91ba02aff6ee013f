from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kinoloom import cli
from kinoloom.backends import registry
from other_backends import Add, added

Kinoloom = Callable[..., Result]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for names in registry.KEY_VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("KINOLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(tmp_path / "conf"))


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    with added(tmp_path / "site", monkeypatch) as add:
        yield add


@pytest.fixture
def kinoloom() -> Kinoloom:
    """Run a command; an exception that is no exit fails the test."""

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(cli.app, [str(a) for a in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


OFFERS = """
    name = 'offers'
    def cards(self, known):
        rate = {"amount": "0.12", "per": "second"}
        price = {"rates": [rate], "source": "https://x.example/prices", "date": "2026-11-01"}
        return [
            card("offers-new", "offers", price=price | {"verified": False}),
            card("offers-old", "offers", retirement="2026-01-01", successor="offers-new"),
        ]
    def servers(self):
        from types import SimpleNamespace as S
        return [S(url="http://one", reachable=True, version="0.3", vram_free=5_000_000_000,
                  vram_total=8_000_000_000, queue=2, reason=""),
                S(url="http://two", reachable=False, reason="refused")]
    def verify(self): return Readiness(True)
"""


def test_people_see_what_can_be_used_and_what_is_missing(kinoloom: Kinoloom, add: Add) -> None:
    add(offers=OFFERS, broken="# broken\nraise RuntimeError('at import')\n")
    text = kinoloom("backends").stdout
    for words in (
        "local      ready",
        "1 of 2",
        "0.12 USD/s, unknown",
        "http://one: version 0.3, 5.0 of 8.0 GB free, 2 jobs in its queue",
        "http://two: refused",
        "- broken: ",
        "at import",
        "RUNWAYML_API_SECRET",
    ):
        assert words in text
    assert "the key is taken" not in text
    assert "offers: the key is taken" in kinoloom("backends", "--check").stdout


def test_programs_get_all_of_it(kinoloom: Kinoloom, add: Add) -> None:
    add(offers=OFFERS)
    rows = json.loads(kinoloom("backends", "--json", "--check").stdout)["backends"]
    offers = next(row for row in rows if row["name"] == "offers")
    assert (offers["models"], offers["verified"]) == (["offers-new"], True)
    assert len(offers["servers"]) == 2


def test_models_elsewhere_say_their_price_and_successor(kinoloom: Kinoloom, add: Add) -> None:
    add(offers=OFFERS)
    rows = {
        row["id"]: row for row in json.loads(kinoloom("models", "list", "--json").stdout)["models"]
    }
    assert rows["offers-new"]["price"] == "0.12 USD/s"
    assert (rows["offers-old"]["state"], rows["offers-old"]["price"]) == ("unavailable", "unknown")
    text = kinoloom("models", "list").stdout
    assert (
        "offers-old on offers: It was retired on 2026-01-01; Use its successor: offers-new" in text
    )
    shown = kinoloom("models", "show", "offers-new").stdout
    assert "0.12 USD/s, by https://x.example/prices on 2026-11-01, which" in shown
    assert "2026-01-01; then offers-new" in kinoloom("models", "show", "offers-old").stdout


def test_a_model_elsewhere_is_checked_without_files(kinoloom: Kinoloom, add: Add) -> None:
    add(offers=OFFERS)
    ready = kinoloom("models", "check", "offers-new")
    assert ready.exit_code == 0
    assert "runs on offers" in ready.stdout
    gone = kinoloom("models", "check", "offers-old", "--json")
    assert gone.exit_code == 1
    assert "offers-new" in json.loads(gone.stdout)["hints"][0]
    unready = kinoloom("models", "check", "runway-gen4.5")
    assert unready.exit_code == 1
    assert "RUNWAYML_API_SECRET" in unready.stdout


def test_nothing_is_pulled_of_a_model_elsewhere(kinoloom: Kinoloom, add: Add) -> None:
    add(offers=OFFERS)
    done = kinoloom("models", "pull", "offers-new")
    assert done.exit_code == 0
    assert "there is nothing to download" in done.stdout
    assert json.loads(kinoloom("models", "pull", "offers-new", "--json").stdout)["files"] == 0
    assert kinoloom("models", "remove", "offers-new", "--yes").exit_code == 2
