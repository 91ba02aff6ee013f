"""Which LoRA files does a request, or a preset, load?

They are found and looked at here, before any weights load: a name that nothing has, a pickle, or a
LoRA of another family is an error of the plan.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.speed import PresetLora
from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest, ModelNotFound, Problem
from kinoloom.lora_request import LoraRequest
from kinoloom.planner.weights import file_identity
from kinoloom.weights.loras import check_lora
from kinoloom.weights.places import Located, find_lora


class PlannedLora(BaseModel):
    """A LoRA as it was found: its file, what the file holds, and how it is applied."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    path: Path
    digest: str
    weight: float
    component: str


def plan_loras(
    asked: Iterable[LoraRequest],
    preset: Iterable[PresetLora],
    card: ModelCard,
    located: Located | None,
    settings: Settings,
) -> tuple[PlannedLora, ...]:
    """The LoRAs of the preset, then those that the user asked for.

    Of a model with several experts each gets a user's LoRA, unless the file's name says which one
    it is for. A preset says so itself.

    Raises ModelNotFound when one is not here, and what `check_lora` raises for one that does not
    fit the model, which can only be seen when the model was `located`.
    """
    found = []
    for lora in preset:
        source = lora.source
        inside = "/".join(p for p in (source.subfolder, source.file) if p)
        name = f"{source.repo}:{inside}" if source.repo else str(source.path)
        try:
            path = find_lora(name, card.family, settings)
        except ModelNotFound as error:
            raise ModelNotFound(
                f"The preset's LoRA {name} is not on this machine.",
                hints=[f"kinoloom models pull {card.id}", "or leave the preset out"],
            ) from error
        found.append(_planned(name, path, lora.weight, lora.component))
    for request in asked:
        path = find_lora(request.name, card.family, settings)
        found += [
            _planned(request.name, path, request.weight, component)
            for component in _components(path, card)
        ]
    for planned in found:
        check_lora(planned.path, *_denoisers(located, planned.component))
    return tuple(found)


def name_loras(asked: Iterable[LoraRequest], card: ModelCard) -> tuple[PlannedLora, ...]:
    """LoRAs that lie on another server, which are known by their names alone.

    Raises InvalidRequest where the model elsewhere takes none (`remote.settings.loras`).
    """
    loras = tuple(asked)
    if loras and (card.remote is None or not card.remote.settings.get("loras")):
        allowed = f"none with {card.id}"
        raise InvalidRequest([Problem("loras", ", ".join(x.name for x in loras), allowed)])
    return tuple(
        PlannedLora(
            name=lora.name,
            path=Path(lora.name),
            digest=lora.name,
            weight=lora.weight,
            component="model",
        )
        for lora in loras
    )


def _components(path: Path, card: ModelCard) -> list[str]:
    """The transformers that a user's LoRA changes, by the words in its file's name."""
    name = path.name.casefold()
    named = [c for c, words in card.experts.items() if any(word in name for word in words)]
    return named or list(card.experts) or ["transformer"]


def _denoisers(located: Located | None, component: str) -> list[Path]:
    """Where the weights lie that a LoRA changes; a UNet is what some models have in their place."""
    if located is None or located.folder is None:
        return []
    # A motion module's layers become the UNet's own.
    unet = ("unet", "motion_adapter")
    names = (component, *unet) if component == "transformer" else (component,)
    places = [located.parts.get(name, located.folder / name) for name in names]
    return [place for place in places if place.is_dir()]


def _planned(name: str, path: Path, weight: float, component: str) -> PlannedLora:
    return PlannedLora(
        name=name, path=path, digest=file_identity(path), weight=weight, component=component
    )
