from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from kinoloom.backends.openai.backend import OpenAIBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.planner.cost import cost_of

KNOWN = Catalog.load()


def backend_of(**models: Any) -> OpenAIBackend:
    server = {"url": "http://127.0.0.1:9/v1", "models": models}
    return OpenAIBackend(Settings.model_validate({"backends": {"openai": {"box": server}}}))


def card_of(**model: Any) -> ModelCard:
    (card,) = backend_of(ours={"model": "theirs", **model}).cards(KNOWN)
    return card


def test_a_card_has_the_rules_of_the_model_that_it_is_like() -> None:
    like = KNOWN.get("wan-2.2-ti2v-5b")
    card = card_of(like=like.id)
    assert (card.id, card.backend, card.source.service) == ("ours", "openai", "theirs")
    shared = ("sizes", "frames", "fps", "steps", "guidance", "negative", "licence", "standing")
    for name in shared:
        assert getattr(card, name) == getattr(like, name)
    assert card.same_as == like.id
    assert set(card.tasks) == {"t2v", "i2v"} & set(like.tasks)
    assert card.pipelines["i2v"].inputs == {"image": "input_reference"}
    assert card.presets == {}
    assert "box" in card.title


@pytest.mark.parametrize("like", [card for card in KNOWN if {"t2v", "i2v"} & set(card.tasks)])
def test_every_model_that_the_api_can_be_asked_for_may_be_alike(like: ModelCard) -> None:
    assert set(card_of(like=like.id).tasks) == {"t2v", "i2v"} & set(like.tasks)


def test_a_model_like_one_elsewhere_keeps_its_limit_and_has_no_local_twin() -> None:
    card = card_of(like="runway-veo-3.1")
    assert card.remote is not None
    assert (card.remote.prompt_limit, card.remote.rewording) == (1000, False)
    assert card.remote.audio == "always"
    assert card.same_as is None


@pytest.mark.parametrize(
    ("price", "amount", "verified"),
    [("free", Decimal(0), True), ("0.10", Decimal("0.2"), False), (None, None, True)],
)
def test_the_price_is_what_the_settings_say(
    price: str | None, amount: Decimal | None, verified: bool
) -> None:
    card = card_of(like="spark", price=price)
    cost = cost_of(card, size=(256, 160), frames=24, fps=12, audio=False)
    assert (cost.amount, cost.verified) == (amount, verified)


def test_a_like_that_is_no_model_is_a_reason_and_not_a_crash() -> None:
    backend = backend_of(ours={"model": "theirs", "like": "wan-2.2-ti2v-5"})
    (card,) = backend.cards(KNOWN)
    told = backend.readiness(card)
    assert not told.ready
    assert "There is no model 'wan-2.2-ti2v-5'." in told.reasons[0]
    assert "wan-2.2-ti2v-5b" in told.reasons[0]
    assert "kinoloom.yaml" in told.hints[0]


def test_a_like_that_makes_no_clips_from_words_or_a_picture_is_a_reason() -> None:
    (like,) = [card for card in KNOWN if not {"t2v", "i2v"} & set(card.tasks)][:1] or [None]
    if like is None:
        spark = KNOWN.get("spark")
        only = {"extend": spark.pipelines["extend"]}
        like = spark.model_copy(update={"id": "extender", "pipelines": only})
    backend = backend_of(ours={"model": "theirs", "like": like.id})
    (card,) = backend.cards(KNOWN.with_cards([like]))
    told = backend.readiness(card)
    assert not told.ready
    assert like.id in told.reasons[0]


def test_a_server_that_left_the_settings_is_a_reason() -> None:
    card = card_of(like="spark")
    told = OpenAIBackend(Settings()).readiness(card)
    assert not told.ready
    assert "backends.openai" in told.hints[0]
