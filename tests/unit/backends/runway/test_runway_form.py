from __future__ import annotations

from typing import Any

import pytest

from fakes.orders import order_of
from fakes.runway_schema import _models, mistakes
from kinoloom.backends.runway.form import endpoint_of, form_of
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import InvalidRequest

CARDS = [card for card in Catalog.load() if card.backend == "runway"]
PICTURES = {"t2v": (), "i2v": ("image",), "flf2v": ("image", "last_image")}


def card_of(model: str) -> ModelCard:
    return Catalog.load().get(model)


def form(card: ModelCard, task: str | None = None, **changes: Any) -> dict[str, Any]:
    order = order_of(card, task, **changes)
    names = PICTURES[order.take.task]
    return form_of(card, order, dict.fromkeys(names, "data:image/png;base64,AAAA"))


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_every_size_and_length_of_every_card_is_one_that_runways_sdk_knows(
    card: ModelCard,
) -> None:
    lengths = range(card.frames.minimum, card.frames.maximum + 1, card.frames.multiple)
    for task in card.tasks:
        for width, height in card.sizes.native:
            made = form(card, task, width=width, height=height, audio=True)
            assert mistakes(card.pipelines[task].class_name, made) == []
        for frames in lengths:
            made = form(card, task, frames=frames)
            assert mistakes(card.pipelines[task].class_name, made) == []
            assert made["duration"] * 24 == frames


def test_every_model_of_the_sdk_has_a_card() -> None:
    known = {m for endpoint in ("text_to_video", "image_to_video") for m in _models(endpoint)}
    assert known == {card.source.service for card in CARDS}


@pytest.mark.parametrize("card", CARDS, ids=lambda card: card.id)
def test_a_card_says_of_sound_seed_and_negative_what_the_sdk_says(card: ModelCard) -> None:
    for pipeline in card.pipelines.values():
        fields = _models(pipeline.class_name)[card.source.service or ""][0]
        assert card.remote is not None
        assert ("audio" in fields) == (card.remote.audio == "optional")
        assert ("seed" in fields) == bool(card.remote.settings.get("seed"))
        assert ("negativePrompt" in fields) == card.negative


def test_text_is_asked_for_at_its_own_endpoint() -> None:
    card = card_of("runway-gen4.5")
    assert endpoint_of(card, order_of(card)) == "/v1/text_to_video"
    assert form(card, seed=2**32 + 5, width=720, height=1280) == {
        "model": "gen4.5",
        "promptText": "a red ball rolls to the right",
        "duration": 5,
        "ratio": "720:1280",
        "seed": 5,
    }


def test_both_end_pictures_say_where_they_belong() -> None:
    card = card_of("runway-veo-3.1")
    order = order_of(card, "flf2v", negative="blur", audio=True)
    made = form_of(card, order, {"image": "runway://a", "last_image": "runway://b"})
    assert endpoint_of(card, order) == "/v1/image_to_video"
    assert made["promptImage"] == [
        {"uri": "runway://a", "position": "first"},
        {"uri": "runway://b", "position": "last"},
    ]
    assert (made["negativePrompt"], made["audio"], made["duration"]) == ("blur", True, 8)


@pytest.mark.parametrize(
    ("model", "task", "size", "said"),
    [
        ("runway-wan-3", "i2v", (624, 624), {"ratio": "auto_480p"}),
        ("runway-wan-3", "i2v", (1080, 1920), {"ratio": "auto_1080p"}),
        ("runway-hailuo-3", "t2v", (768, 1366), {"ratio": "9:16", "resolution": "768p"}),
        ("runway-hailuo-3", "t2v", (3360, 1440), {"ratio": "21:9", "resolution": "2k"}),
        ("runway-hailuo-3", "i2v", (1366, 768), {"ratio": "adaptive", "resolution": "768p"}),
        ("runway-grok-imagine-1.5", "t2v", (1080, 720), {"ratio": "3:2", "resolution": "720p"}),
        ("runway-kling-2.5-turbo-pro", "i2v", (1920, 1080), {}),
    ],
)
def test_a_size_is_said_as_the_model_wants_it(
    model: str, task: str, size: tuple[int, int], said: dict[str, str]
) -> None:
    made = form(card_of(model), task, width=size[0], height=size[1])
    assert {k: v for k, v in made.items() if k in ("ratio", "resolution")} == said


def test_a_prompt_is_measured_in_utf16_units_before_anything_is_sent() -> None:
    card = card_of("runway-gen4.5")
    form(card, prompt="🎬" * 500)
    with pytest.raises(InvalidRequest, match="mistake") as caught:
        form(card, prompt="🎬" * 500 + "x")
    assert "at most 1000 UTF-16 units; this has 1001" in caught.value.cause


def test_an_empty_prompt_is_left_out() -> None:
    assert "promptText" not in form(card_of("runway-gen4-turbo"), prompt="")
