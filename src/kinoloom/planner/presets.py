"""What does a few-step preset of a model pin?

A preset is a way of running a model that its makers distilled: steps, guidance, shift, timesteps
and LoRAs belong together. Who asks for a preset and for other steps gets the preset's, and is told.
"""

from __future__ import annotations

from dataclasses import dataclass

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.speed import PresetLora, Scheduler
from kinoloom.errors import InvalidRequest, Problem, nearest_names
from kinoloom.planner.plan import Adjustment


@dataclass(frozen=True)
class PresetChoice:
    """A preset's numbers and LoRAs, the reason in words, and what the user's wishes gave way to.

    `shift`, `timesteps` and `scheduler` are None where the preset leaves them to the model.
    """

    name: str
    steps: int
    guidance: float
    shift: float | None
    timesteps: tuple[int, ...] | None
    scheduler: Scheduler | None
    loras: tuple[PresetLora, ...]
    why: str
    adjustments: tuple[Adjustment, ...] = ()


def choose_preset(
    card: ModelCard, name: str | None, *, steps: int | None = None, guidance: float | None = None
) -> PresetChoice | None:
    """The preset of that name; None when none is asked for.

    `steps` and `guidance` are what the user asked for beside it (None: nothing, and 0 steps leave
    the count to Kinoloom too). Raises InvalidRequest when the model has no preset of that name.
    """
    if name is None:
        return None
    preset = card.presets.get(name)
    if preset is None:
        known = ", ".join(card.presets) or "none"
        close = nearest_names(name, card.presets)
        raise InvalidRequest(
            [
                Problem(
                    "preset", name, f"a preset of {card.id}: {known}", close[0] if close else None
                )
            ],
            message=f"{card.id} has no preset {name!r}.",
            hints=[
                f"did you mean {' or '.join(close)}?" if close else "leave the preset out",
                f"see the model's presets: kinoloom models show {card.id}",
            ],
        )
    why = f"the preset {name} pins it"
    changed = []
    if steps and steps != preset.steps:
        changed.append(Adjustment(field="steps", asked=steps, used=preset.steps, why=why))
    if guidance is not None and guidance != preset.guidance:
        changed.append(Adjustment(field="guidance", asked=guidance, used=preset.guidance, why=why))
    return PresetChoice(
        name=name,
        steps=preset.steps,
        guidance=preset.guidance,
        shift=preset.shift,
        timesteps=None if preset.timesteps is None else tuple(preset.timesteps),
        scheduler=preset.scheduler,
        loras=tuple(preset.loras),
        why=f"{preset.steps} steps, guidance {preset.guidance:g}: the preset {name},"
        f" {preset.title}",
        adjustments=tuple(changed),
    )
