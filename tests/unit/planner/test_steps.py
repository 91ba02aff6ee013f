from __future__ import annotations

import pytest

from kinoloom.catalog.card import StepRule
from kinoloom.planner.complexity import Complexity
from kinoloom.planner.steps import choose_steps

RULE = StepRule(default=30, minimum=5, maximum=60, preview=15, standard=30, premium=50)
FEW = StepRule(default=4, minimum=4, maximum=8, preview=4, standard=4, premium=4)


def hard(score: float) -> Complexity:
    return Complexity(score=score, level="moderate", factors=())


@pytest.mark.parametrize(("tier", "steps"), [("preview", 15), ("standard", 30), ("premium", 50)])
def test_a_tier_is_the_cards_count(tier: str, steps: int) -> None:
    for score in (0.0, 1.0):
        choice = choose_steps(None, tier, RULE, hard(score))  # type: ignore[arg-type]
        assert choice.steps == steps
        assert tier in choice.why


@pytest.mark.parametrize(("score", "steps", "scale"), [(0, 15, 18), (0.5, 32, 32), (1, 50, 45)])
def test_auto_follows_the_prompt_within_the_cards_range(
    score: float, steps: int, scale: int
) -> None:
    choice = choose_steps(None, "auto", RULE, hard(score))
    assert choice.steps == steps
    assert f"{scale} on the scale of 18 to 45" in choice.why


@pytest.mark.parametrize("tier", ["preview", "standard", "premium", "auto"])
def test_zero_steps_are_adaptive_in_every_tier(tier: str) -> None:
    adaptive = choose_steps(None, "auto", RULE, hard(0.7))
    assert choose_steps(0, tier, RULE, hard(0.7)) == adaptive  # type: ignore[arg-type]


def test_a_model_of_few_steps_keeps_them() -> None:
    assert choose_steps(0, "auto", FEW, hard(1)).steps == 4


@pytest.mark.parametrize(
    ("asked", "steps", "changed"), [(5, 5, False), (1, 5, True), (60, 60, False), (200, 60, True)]
)
def test_explicit_steps_are_kept_within_the_range(asked: int, steps: int, changed: bool) -> None:
    choice = choose_steps(asked, "preview", RULE, hard(0))
    assert (choice.steps, choice.changed) == (steps, changed)
