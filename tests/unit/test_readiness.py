from __future__ import annotations

import datetime
import threading
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kinoloom import models
from kinoloom.backends import registry
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.remote import Price
from kinoloom.config import Settings
from kinoloom.doctor import examine
from kinoloom.errors import InvalidRequest
from kinoloom.jobs import planning
from kinoloom.jobs.planning import load_catalog
from kinoloom.readiness import list_backends, prices_words
from other_backends import Add, added

HANGS = """
    import threading
    name, asked, go = 'hangs', [], threading.Event()
    def readiness(self, card):
        self.asked.append(card.id)
        self.go.wait(60)
        return Readiness(True)
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for names in registry.KEY_VARIABLES.values():
        for name in names:
            monkeypatch.delenv(name, raising=False)
    return Settings(home=tmp_path / "home")


@pytest.fixture
def add(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    with added(tmp_path / "site", monkeypatch) as add:
        yield add


def listed(settings: Settings, **options: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in list_backends(settings, **options)}


def test_every_backend_is_listed(settings: Settings) -> None:
    rows = listed(settings)
    assert tuple(rows) == registry.names()
    local, runway = rows["local"], rows["runway"]
    assert "spark" in local["models"]
    assert (local["set_up"], local["remote"], local["prices"]) == (True, False, "free")
    assert local["memory_total"] > 0
    assert (runway["set_up"], runway["ready"], runway["models"]) == (False, False, [])
    assert any("RUNWAYML_API_SECRET" in hint for hint in runway["hints"])
    assert all(row["reasons"] and row["hints"] for row in rows.values() if not row["ready"])


def test_one_that_raises_or_hangs_hides_no_other(add: Add, settings: Settings) -> None:
    add(
        good="    name = 'good'",
        raises="    name = 'raises'\n    def readiness(self, card): raise ZeroDivisionError('oh')",
        broken="# broken\nraise RuntimeError('at import')\n",
        hangs=HANGS,
    )
    hangs = registry._class("hangs")
    try:
        rows = listed(settings, patience=0.5)
        assert rows["good"]["ready"]
        assert rows["good"]["models"] == ["good-one"]
        assert "ZeroDivisionError: oh" in rows["raises"]["reasons"][0]
        assert "at import" in rows["broken"]["reasons"][0]
        assert "did not answer" in rows["hangs"]["reasons"][0]
        # It is asked again only once it has answered: its threads do not pile up.
        listed(settings, patience=0.5)
        listed(settings, patience=0.5)
        assert hangs.asked == ["hangs-one"]  # type: ignore[attr-defined]
    finally:
        hangs.go.set()  # type: ignore[attr-defined]


def test_the_same_for_models(add: Add, settings: Settings) -> None:
    add(
        good="    name = 'good'",
        raises="    name = 'raises'\n    def readiness(self, card): raise ZeroDivisionError('oh')",
    )
    rows, _ = models.list_models(settings)
    found = {row["id"]: row for row in rows}
    assert found["good-one"]["state"] == "ready"
    assert found["good-one"]["price"] == "free"
    assert found["raises-one"]["state"] == "unavailable"
    assert "oh" in found["raises-one"]["reasons"][0]
    assert found["spark"]["state"] == "ready"


def test_one_that_raises_hides_no_model_from_the_planner(add: Add, settings: Settings) -> None:
    add(raises="    name = 'raises'\n    def readiness(self, card): raise ZeroDivisionError('oh')")
    ready = planning.readiness_of(load_catalog(settings).get("raises-one"), settings)
    assert not ready.ready
    assert "ZeroDivisionError: oh" in ready.reasons[0]


def test_what_is_retired_names_its_successor(add: Add, settings: Settings) -> None:
    add(
        old="""
    name = 'old'
    def cards(self, known):
        return [
            card("old-one", "old", retirement="2026-01-01", successor="old-two", price="free"),
            card("old-two", "old", retirement="2999-01-01"),
        ]
"""
    )
    gone = models.check_model("old-one", settings)
    assert isinstance(gone, models.Elsewhere)
    assert not gone.ready
    assert "2026-01-01" in gone.reasons[0]
    assert "old-two" in gone.hints[0]
    kept = models.check_model("old-two", settings)
    assert isinstance(kept, models.Elsewhere)
    assert (kept.ready, kept.price, kept.retirement) == (True, "unknown", "2999-01-01")
    assert listed(settings)["old"]["models"] == ["old-two"]


def test_keys_are_tried_only_when_that_is_asked_for(add: Add, settings: Settings) -> None:
    add(
        keyed="""
    name, calls = 'keyed', []
    def verify(self):
        self.calls.append(1)
        return Readiness(False, ("the key is refused",), ("make a new one",))
""",
        plain="    name = 'plain'",
    )
    assert listed(settings)["keyed"]["ready"]
    assert registry._class("keyed").calls == []  # type: ignore[attr-defined]
    rows = listed(settings, verify=True)
    assert (rows["keyed"]["ready"], rows["keyed"]["verified"]) == (False, False)
    assert rows["keyed"]["reasons"] == ["the key is refused"]
    assert (rows["plain"]["ready"], rows["plain"]["verified"]) == (True, None)


def test_servers_are_told_of(add: Add, settings: Settings) -> None:
    add(
        pool="""
    name = 'pool'
    def servers(self):
        from types import SimpleNamespace as S
        return [S(url="http://one", reachable=True, version="1", vram_free=5, queue=2, reason=""),
                S(url="http://two", reachable=False, reason="refused")]
"""
    )
    one, two = listed(settings)["pool"]["servers"]
    assert (one["url"], one["queue"], one["vram_total"]) == ("http://one", 2, None)
    assert (two["reachable"], two["reason"]) == (False, "refused")
    found = {check.name: check for check in examine(settings)}["backend pool"]
    assert found.state == "warning"
    assert "http://two" in found.detail


def test_doctor_looks_at_what_is_set_up(add: Add, settings: Settings) -> None:
    add(good="    name = 'good'")
    keyed = Settings(home=settings.home, backends={"runway": {"api_key": "k"}})  # type: ignore[arg-type]
    names = {check.name: check.state for check in examine(keyed)}
    assert names["backend good"] == "ok"
    assert names["backend runway"] == "ok"
    assert "backend google" not in names
    assert not any(name.startswith("model runway") for name in names)


def test_nothing_is_downloaded_or_removed_of_a_model_elsewhere(settings: Settings) -> None:
    card = next(card for card in load_catalog(settings) if card.remote is not None)
    assert models.pull_model(card.id, settings).files == 0
    with pytest.raises(InvalidRequest, match="nothing here to remove"):
        models.remove_model(card.id, settings, yes=True)


def test_prices_in_words() -> None:
    spark = Catalog.load().get("spark")

    def priced(*amounts: str, per: str = "second") -> Any:
        rates = [{"amount": Decimal(a), "per": per} for a in amounts]
        price = Price.model_validate(
            {"rates": rates, "source": "https://x.example", "date": datetime.date(2026, 1, 1)}
        )
        elsewhere = Catalog.load().get("runway-gen4.5")
        return elsewhere.model_copy(update={"price": price})

    unknown = priced("1").model_copy(update={"price": None})
    assert prices_words([]) == ""
    assert prices_words([spark]) == "free"
    assert prices_words([priced("0.12")]) == "0.12 USD/s"
    assert prices_words([priced("0.05", "0.4")]) == "0.05 to 0.40 USD/s"
    assert prices_words([priced("0.28", per="clip"), spark, unknown]) == (
        "free, 0.28 USD/clip, unknown"
    )
    assert prices_words([unknown]) == "unknown"


def test_who_asks_at_once_shares_an_answer(add: Add, settings: Settings) -> None:
    add(hangs=HANGS)
    hangs = registry._class("hangs")
    results: list[bool] = []
    threads = [
        threading.Thread(target=lambda: results.append(listed(settings)["hangs"]["ready"]))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    hangs.go.set()  # type: ignore[attr-defined]
    for thread in threads:
        thread.join()
    assert results == [True] * 4
