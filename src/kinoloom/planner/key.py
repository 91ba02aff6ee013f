"""Would two plans give the same clip?

`recipe_key` and `seeded_key` hash everything that decides the frames and nothing else: two plans
with one key need rendering only once. What is only written around the frames (format, file name,
tier) and what only describes (estimates, notes) stays out.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from kinoloom.backends.base import Speed
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.speed import Scheduler
from kinoloom.planner.inputs import Inputs
from kinoloom.planner.loras import PlannedLora
from kinoloom.planner.weights import weights_identity
from kinoloom.request import Task
from kinoloom.weights.places import Located

_VERSION = 2
"""Part of every key: raised when the same plan would be rendered differently than before."""


def recipe_key(
    card: ModelCard,
    located: Located | None = None,
    *,
    task: Task,
    width: int,
    height: int,
    fps: float,
    guidance: float,
    inputs: Inputs,
    loras: tuple[PlannedLora, ...],
    speed: Speed,
    scheduler: Scheduler | None,
    fp8: bool,
    tiling: bool,
    **plain: str | int | float | tuple[int, ...] | None,
) -> str:
    """SHA-256 (64 hexadecimal digits) over what decides the frames but the seed, as canonical JSON.

    `located` is where the weights are; `plain` are the fields of the plan that count as they are.
    """
    content: dict[str, Any] = {
        "version": _VERSION,
        "model": card.id,
        "weights": weights_identity(card.source, located),
        "recipe": {
            "adapter": card.adapter,
            "pipeline": card.pipelines[task].model_dump(mode="json"),
            "schedule": card.schedule.model_dump(mode="json") if card.schedule else None,
        },
        "task": task,
        "size": [width, height],
        "fps": float(fps),
        "guidance": float(guidance),
        "inputs": {name: media.digest for name, media in inputs.files.items()},
        "loras": [[lora.digest, lora.weight, lora.component] for lora in loras],
        "cache": speed.cache.model_dump(mode="json") if speed.cache else None,
        "attention": speed.attention,
        "compile": speed.compile,
        "scheduler": scheduler.model_dump(mode="json") if scheduler else None,
        "fp8": fp8,
        "tiling": tiling,
        **plain,
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def seeded_key(recipe: str, seed: int) -> str:
    """The key of a plan: its recipe's key and its seed, as SHA-256."""
    return hashlib.sha256(f"{recipe} {seed}".encode("ascii")).hexdigest()
