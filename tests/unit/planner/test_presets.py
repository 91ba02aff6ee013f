from __future__ import annotations

import pytest

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.source import Part
from kinoloom.catalog.speed import Preset, PresetLora
from kinoloom.errors import InvalidRequest
from kinoloom.planner.presets import choose_preset

LORA = PresetLora(source=Part(repo="owner/turbo", file="high.safetensors"), weight=0.7)
PRESETS = {
    "turbo-4": Preset(
        title="4 steps",
        steps=4,
        guidance=1.0,
        shift=5.0,
        timesteps=[1000, 750, 500, 250],
        loras=[LORA],
    ),
    "turbo-8": Preset(title="8 steps", steps=8, guidance=1.0),
}


@pytest.fixture
def card(tiny_card: ModelCard) -> ModelCard:
    return tiny_card.model_copy(update={"presets": PRESETS})


def test_no_preset_asked_for(card: ModelCard) -> None:
    assert choose_preset(card, None, steps=5) is None


def test_a_preset_pins_what_belongs_together(card: ModelCard) -> None:
    choice = choose_preset(card, "turbo-4")
    assert choice is not None
    assert (choice.steps, choice.guidance, choice.shift) == (4, 1.0, 5.0)
    assert choice.timesteps == (1000, 750, 500, 250)
    assert choice.loras == (LORA,)
    assert choice.adjustments == ()
    assert "turbo-4" in choice.why
    plain = choose_preset(card, "turbo-8")
    assert plain is not None
    assert (plain.shift, plain.timesteps, plain.loras) == (None, None, ())


def test_other_wishes_give_way_and_are_told(card: ModelCard) -> None:
    choice = choose_preset(card, "turbo-4", steps=30, guidance=6.0)
    assert choice is not None
    assert (choice.steps, choice.guidance) == (4, 1.0)
    assert [(a.field, a.asked, a.used) for a in choice.adjustments] == [
        ("steps", 30, 4),
        ("guidance", 6.0, 1.0),
    ]
    assert all("turbo-4" in a.why for a in choice.adjustments)


@pytest.mark.parametrize(("steps", "guidance"), [(4, 1.0), (0, None), (None, 1.0)])
def test_wishes_that_agree_need_no_word(
    card: ModelCard, steps: int | None, guidance: float | None
) -> None:
    choice = choose_preset(card, "turbo-4", steps=steps, guidance=guidance)
    assert choice is not None
    assert choice.adjustments == ()


def test_an_unknown_preset_names_the_nearest(card: ModelCard, tiny_card: ModelCard) -> None:
    with pytest.raises(InvalidRequest, match="turbo4") as caught:
        choose_preset(card, "turbo4")
    assert caught.value.problems[0].nearest in PRESETS
    assert "turbo-4" in caught.value.hints[0]
    with pytest.raises(InvalidRequest) as caught:
        choose_preset(tiny_card, "turbo-4")
    assert "none" in caught.value.cause
