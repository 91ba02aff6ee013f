"""How many denoising steps does a clip get?

A tier is a step count of the model's card. Adaptive steps follow the prompt's complexity on the
scale of 18 (simplest) to 45 (hardest), which is mapped onto the card's own range from its preview
to its premium count, so that a model made for few steps keeps few.
"""

from __future__ import annotations

from dataclasses import dataclass

from kinoloom.catalog.card import StepRule
from kinoloom.planner.complexity import Complexity
from kinoloom.request import Tier

FEWEST, MOST = 18, 45
"""The scale of adaptive steps, for models that take about 50 steps at their best."""


@dataclass(frozen=True)
class StepChoice:
    """Steps, the reason in words, and whether an explicit wish had to be changed."""

    steps: int
    why: str
    changed: bool = False


def choose_steps(
    asked: int | None, tier: Tier, rule: StepRule, difficulty: Complexity
) -> StepChoice:
    """The steps for a request: explicit ones within the card's range, else adaptive or the tier's.

    `asked` 0 means adaptive, None leaves it to the tier, of which `auto` is adaptive.
    """
    if asked:
        steps = min(max(asked, rule.minimum), rule.maximum)
        if steps == asked:
            return StepChoice(steps, f"{steps} steps: as asked")
        why = f"the model takes {rule.minimum} to {rule.maximum} steps"
        return StepChoice(steps, why, changed=True)
    if asked == 0 or tier == "auto":
        scale = round(FEWEST + (MOST - FEWEST) * difficulty.score)
        steps = round(rule.preview + (rule.premium - rule.preview) * difficulty.score)
        level = difficulty.level.replace("_", " ")
        return StepChoice(
            steps,
            f"{steps} steps: a {level} prompt (complexity {difficulty.score:.2f}, {scale} on the"
            f" scale of {FEWEST} to {MOST}) within the model's {rule.preview} to {rule.premium}",
        )
    steps = {"preview": rule.preview, "standard": rule.standard, "premium": rule.premium}[tier]
    return StepChoice(steps, f"{steps} steps: the model's {tier} tier")
