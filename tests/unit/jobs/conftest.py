from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fakes.plain import PlainService, offer, write_card
from kinoloom.backends.local.backend import LocalBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.jobs import job_run, remote_take
from kinoloom.jobs.clip import Made, make_clip
from kinoloom.jobs.progress import Listener
from kinoloom.planner import resolve
from kinoloom.planner.outlook import Machine
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest
from kinoloom.store.clips import ClipRecord
from kinoloom.store.store import Store
from unit.jobs.elsewhere import Agency


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def make_plan(tiny_cards: Path, tmp_path: Path) -> Callable[..., Plan]:
    """A plan for the tiny model, or for another card, from the fields of a request."""
    tiny = Catalog.load(tiny_cards).get("tiny")

    def make(measurements: object = None, card: ModelCard = tiny, **values: object) -> Plan:
        request = VideoRequest.checked(**({"prompt": "a red ball rolling", "seed": 7} | values))
        return resolve.plan(
            request,
            catalog=Catalog({"tiny": card}),
            settings=Settings(home=tmp_path / "home", default_model="tiny"),
            machine=Machine("cpu x1"),
            measurements=measurements,  # type: ignore[arg-type]
        )

    return make


@pytest.fixture(scope="session")
def backend(tmp_path_factory: pytest.TempPathFactory) -> LocalBackend:
    """A backend that keeps its pipeline from test to test."""
    return LocalBackend(Settings(home=tmp_path_factory.mktemp("home")))


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


@pytest.fixture
def run(
    backend: LocalBackend, tiny_card: ModelCard, store: Store, out: Path
) -> Callable[..., Made]:
    """Make the clip of a plan with the tiny model, or find it."""

    def making(plan: Plan, listener: Listener | None = None) -> Made:
        return make_clip(
            plan, tiny_card, backend=backend, store=store, outputs=out, listener=listener
        )

    return making


@pytest.fixture
def make(run: Callable[..., Made]) -> Callable[..., ClipRecord]:
    """Make the clip of a plan with the tiny model; its record."""
    return lambda plan, listener=None: run(plan, listener).record


@pytest.fixture
def agency(
    tmp_path: Path, tiny_cards: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Agency]:
    """A worker's place with one service, and nobody waits."""
    monkeypatch.setattr(job_run, "_PAUSE", 0.0)
    monkeypatch.setattr(remote_take, "_FIRST_PAUSE", 0.0)
    for name in ("ARRIVAL_SECONDS", "SENDING_SECONDS", "FIND_SECONDS"):
        monkeypatch.setattr(remote_take, name, 0.0)
    cards = tmp_path / "cards"
    cards.mkdir()
    write_card(cards)
    service = PlainService()
    offer(monkeypatch, plain=service)
    settings = Settings(
        home=tmp_path / "home", models=cards, device="cpu", outputs=tmp_path / "out"
    )
    opened = Agency(settings, store, {"plain": service})
    yield opened
    opened.service.close()
