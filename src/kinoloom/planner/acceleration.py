"""What may make this take faster, without spoiling it?

A level names how much may be given up: `lossless` only reorders the arithmetic, `balanced` and
`fast` also reuse work between steps. The model's card lists what works for it; what is known of
pipelines, caches and attention backends is data in ``accelerations.yaml``. A cache that is known
to be wrong for a pipeline, or not known to be right, is refused here and not tried.
"""

from __future__ import annotations

from functools import cache
from importlib import resources
from importlib.util import find_spec
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from kinoloom.backends.base import Placement, Speed
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.speed import CacheKind, StepCache
from kinoloom.errors import InvalidRequest, Problem
from kinoloom.request import Level, Task


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Compile(_Data):
    worth: int = Field(ge=1)
    not_with: list[Placement]


class _Attention(_Data):
    package: str
    exact: bool
    fetches: bool = False


class _Verdict(_Data):
    works: Literal["always", "unguided", "never"]
    needs: list[str] = []
    why: str = ""


class _Pipelines(_Data):
    classes: Annotated[list[str], Field(min_length=1)]
    guidance: Literal["split", "batched", "none"]
    caches: dict[CacheKind, _Verdict]


class _Known(_Data):
    compile: _Compile
    fewest_steps: int = Field(ge=1)
    attention: dict[str, _Attention]
    pipelines: list[_Pipelines]


def resolve_speed(
    card: ModelCard,
    task: Task,
    level: Level,
    *,
    guidance: float,
    steps: int,
    frames: int,
    placement: Placement,
    device_kind: str,
    takes: int = 1,
) -> tuple[Speed, list[str]]:
    """What is used of what the card allows, and the reason of each choice in words.

    `steps` of the sampler and `frames` of the clip, of which `takes` are made in a row;
    `device_kind` is torch's (``cuda``, ``mps``, ``cpu``). Raises InvalidRequest when the level's
    step cache would spoil the clip.
    """
    reasons: list[str] = []
    on_gpu = device_kind == "cuda"
    speed = Speed(
        attention=_attention(card, level, reasons) if on_gpu else None,
        compile=on_gpu and _compiles(card, placement, frames * steps * takes, reasons),
        cache=_cache(card, task, level, guidance, steps, reasons),
    )
    return speed, reasons


def check_cache(card: ModelCard, task: Task, cache: StepCache, guidance: float) -> None:
    """Raise InvalidRequest unless a step cache is known to work for the pipeline of a task."""
    pipeline = card.pipelines[task].class_name
    found = [p for p in _known().pipelines if pipeline in p.classes]
    verdict = found[0].caches.get(cache.kind) if found else None
    guided = card.guidance.passes(guidance) > 1
    if verdict is None:
        why = f"it is not known to work with {pipeline}"
    elif verdict.works == "never" or (verdict.works == "unguided" and guided):
        why = verdict.why
    elif verdict.needs and not any(cache.settings.get(name) for name in verdict.needs):
        why = verdict.why or f"it needs the setting {' or '.join(verdict.needs)}"
    else:
        return
    hints = ["ask for acceleration lossless"]
    if verdict is not None and verdict.works == "unguided":
        hints.append("or for guidance 1")
    raise InvalidRequest(
        [Problem("acceleration", cache.kind, f"lossless for {task} with {card.id}", "lossless")],
        message=f"The step cache {cache.kind} would spoil this clip: {' '.join(why.split())}.",
        hints=hints,
    )


def _attention(card: ModelCard, level: Level, reasons: list[str]) -> str | None:
    """The first attention backend of the card that this level allows and this machine has."""
    for name in card.acceleration.attention:
        known = _known().attention.get(name)
        if known is None:
            reasons.append(f"attention {name}: left out, not known to work")
        elif known.fetches:
            reasons.append(f"attention {name}: left out, it would download code when first used")
        elif level == "lossless" and not known.exact:
            reasons.append(f"attention {name}: left out, it quantizes and lossless was asked")
        elif find_spec(known.package) is None:
            reasons.append(f"attention {name}: left out, {known.package} is not installed")
        else:
            reasons.append(f"attention {name}: the best of the model's that is installed")
            return name
    return None


def _compiles(card: ModelCard, placement: Placement, work: int, reasons: list[str]) -> bool:
    rule = _known().compile
    if not card.acceleration.compile:
        return False
    if placement in rule.not_with:
        reasons.append(f"not compiled: the weights come and go ({placement.replace('_', ' ')})")
        return False
    if work < rule.worth:
        reasons.append(f"not compiled: {work} frames x steps do not pay for it, {rule.worth} would")
        return False
    reasons.append(f"blocks compiled: {work} frames x steps pay for it")
    return True


def _cache(
    card: ModelCard, task: Task, level: Level, guidance: float, steps: int, reasons: list[str]
) -> StepCache | None:
    if level == "lossless":
        return None
    allowed = card.acceleration
    cache = allowed.fast or allowed.balanced if level == "fast" else allowed.balanced
    if cache is None:
        reasons.append(f"no step cache: none is known that suits {card.id}")
        return None
    check_cache(card, task, cache, guidance)
    fewest = _known().fewest_steps
    if steps < fewest:
        reasons.append(
            f"no step cache: it takes {fewest} steps to be of use, this clip has {steps}"
        )
        return None
    reasons.append(f"step cache {cache.kind.replace('_', ' ')}: the model's {level} setting")
    return cache


@cache
def _known() -> _Known:
    text = (resources.files("kinoloom.planner") / "accelerations.yaml").read_text(encoding="utf-8")
    return _Known.model_validate(yaml.safe_load(text))
