from __future__ import annotations

import datetime
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr

from kinoloom.backends.registry import backend as backend_of
from kinoloom.backends.replicate.backend import ReplicateBackend
from kinoloom.backends.replicate.paths import model_path, prediction_path
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.config_sections import BackendsSettings, ReplicateSettings
from kinoloom.errors import InvalidRequest
from kinoloom.planner.cost import cost_of

CARDS = [card for card in Catalog.load() if card.backend == "replicate"]
VEO = Catalog.load().get("replicate-veo-3.1")


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.delenv("REPLICATE_API_TOKEN", raising=False)
    return Settings(home=tmp_path / "home")


def test_the_registry_has_it(settings: Settings) -> None:
    found = backend_of("replicate", settings)
    assert isinstance(found, ReplicateBackend)
    assert (found.name, found.remote) == ("replicate", True)
    assert list(found.cards(Catalog.load())) == []


def test_without_a_token_it_is_not_ready_and_says_what_to_set(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = ReplicateBackend(settings)
    told = backend.readiness(VEO)
    assert not told.ready
    assert "REPLICATE_API_TOKEN" in told.hints[0]
    assert not backend.verify().ready
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_token_of_the_environment")
    assert backend.readiness(VEO).ready


def test_the_settings_token_counts_before_the_variable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_of_the_environment")
    own = ReplicateSettings(api_key=SecretStr("r8_of_the_settings"))
    backend = ReplicateBackend(Settings(home=tmp_path, backends=BackendsSettings(replicate=own)))
    assert backend.api().authorization == {"Authorization": "Bearer r8_of_the_settings"}
    assert backend.api().base_url == "https://api.replicate.com"


def test_a_variable_that_is_no_address_is_named(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPLICATE_API_TOKEN", "r8_token_of_the_environment")
    monkeypatch.setenv("REPLICATE_BASE_URL", "http://user:secret@[x")
    with pytest.raises(InvalidRequest, match="mistake") as refused:
        ReplicateBackend(settings).api()
    assert "REPLICATE_BASE_URL" in refused.value.cause
    assert "secret" not in refused.value.cause


def test_a_retired_model_is_not_ready_and_names_its_successor(settings: Settings) -> None:
    day = datetime.date(2026, 1, 1)
    old = VEO.model_copy(update={"retirement": day, "successor": "replicate-veo-4"})
    told = ReplicateBackend(settings).readiness(old)
    assert not told.ready
    assert "2026-01-01" in told.reasons[0]
    assert "replicate-veo-4" in told.hints[0]


def test_a_missing_package_is_named(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    told = ReplicateBackend(settings).readiness(VEO)
    assert told.hints == ("pip install 'kinoloom[replicate]'",)


@pytest.mark.parametrize("card", CARDS, ids=lambda c: c.id)
def test_every_card_says_where_its_price_is_from_or_has_none(card: object) -> None:
    from kinoloom.catalog.card import ModelCard

    assert isinstance(card, ModelCard)
    assert card.remote is not None
    assert card.id.startswith("replicate-")
    for size in card.sizes.native:
        for frames in (card.frames.minimum, card.frames.maximum):
            cost = cost_of(card, size=size, frames=frames, fps=card.fps.default, audio=False)
            assert (cost.amount is None) == (card.price is None)
            assert cost.amount != 0
            assert card.price is None or not cost.verified


def test_paths_hold_nothing_else() -> None:
    assert prediction_path("../models") == "/v1/predictions/..%2Fmodels"
    assert model_path("a/b:" + "0" * 64) == "/v1/models/a/b/versions/" + "0" * 64
    for bad in ("a", "a/b/c", "../b", "a/..", "a/b:latest", "a/b?x", "a/b\n"):
        with pytest.raises(ValueError, match="OWNER/NAME"):
            model_path(bad)
