from __future__ import annotations

import pytest

from kinoloom.catalog.loader import Catalog
from kinoloom.planner.vocabulary import unknown_words, vocabulary_warnings

CARD = Catalog.load().get("spark")


@pytest.mark.parametrize(
    "prompt",
    [
        "a red ball rolling to the right on green grass",
        "A SMALL Purple Star, bouncing in the snow; the camera zooms in!",
        "in a room a thing getting bigger",
        "",
    ],
)
def test_the_words_of_its_world_give_no_warning(prompt: str) -> None:
    assert vocabulary_warnings(prompt, "", CARD) == []


def test_unknown_words_are_named_once_in_their_order() -> None:
    assert CARD.vocabulary is not None
    found = unknown_words("A samurai fights a red dragon, samurai! l'été 龙", CARD.vocabulary)
    assert found == ["samurai", "fights", "dragon", "l'été", "龙"]


def test_the_warning_says_what_it_knows_and_who_knows_more() -> None:
    (warning,) = vocabulary_warnings("a samurai on the beach", "", CARD)
    assert '"samurai"' in warning
    assert '"beach"' not in warning
    for name in ("colours", "shapes", "sizes", "motions", "backgrounds", "camera"):
        assert f"{name}: " in warning
    assert "purple" in warning
    assert "LTX-Video, Wan 2.1 1.3B, HunyuanVideo 1.5" in warning


def test_the_negative_prompt_is_read_too() -> None:
    (warning,) = vocabulary_warnings("a red ball", "blurry", CARD)
    assert '"blurry"' in warning


def test_a_long_prompt_makes_no_long_warning() -> None:
    words = " ".join(f"word{i}" for i in range(500))
    (warning,) = vocabulary_warnings(words, "", CARD)
    assert "and 492 more" in warning
    assert len(warning) < 1800


def test_a_model_that_reads_everything_warns_of_nothing() -> None:
    card = CARD.model_copy(update={"vocabulary": None})
    assert vocabulary_warnings("a samurai", "", card) == []
