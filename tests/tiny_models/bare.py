"""How does a family drive diffusers' own pipeline, without Kinoloom's backend around it?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch

from kinoloom.backends.base import Frames, Inputs, Speed, Take
from kinoloom.backends.local.families.base import Family
from kinoloom.backends.local.speed import apply_speed, remove_speed
from kinoloom.catalog.reading import read_cards
from kinoloom.catalog.speed import StepCache
from kinoloom.request import Task

SIDE = 32
"""Pixels a side of every picture and clip here."""
CONTEXT = 5
"""Frames of a given video."""

Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


class Bare:
    """The pipeline of one task of a card, called as its family says."""

    def __init__(self, file: Path, task: Task) -> None:
        self.card = read_cards(file)[0]
        self.recipe = self.card.pipelines[task]
        name = f"kinoloom.backends.local.families.{self.card.adapter}"
        self.family: Family = import_module(name).FAMILY
        kind = getattr(diffusers, self.recipe.class_name)
        self.pipe: Any = kind.from_pretrained(self.card.source.path)
        self.pipe.set_progress_bar_config(disable=True)
        self.take = Take(
            task=task,
            prompt="a red ball",
            negative="blurry",
            width=SIDE,
            height=SIDE,
            frames=CONTEXT + 4 if task == "extend" else CONTEXT,
            fps=self.card.fps.default,
            steps=2,
            guidance=2.0,
            seed=7,
            device="cpu x1",
        )
        self._words: dict[Take, dict[str, Any]] = {}

    @cached_property
    def first(self) -> tuple[np.ndarray[Any, Any], torch.Tensor]:
        """The take's frames from the media `given` by 1, and the latents after the last step."""
        last: list[torch.Tensor] = []

        def seen(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            last[:] = [tensors["latents"]]
            return tensors

        return self.frames(given(self.take.task, 1), seen=seen), last[0]

    def words(self, **changes: Any) -> dict[str, Any]:
        """The embeddings for the take with `changes`."""
        take = replace(self.take, **changes)
        if take not in self._words:
            with torch.no_grad():
                fixed = self.recipe.arguments
                self._words[take] = self.family.encode(self.pipe, take, fixed)
        return self._words[take]

    def frames(
        self,
        inputs: Inputs,
        words: dict[str, Any] | None = None,
        seen: Callback | None = None,
        **changes: Any,
    ) -> np.ndarray[Any, Any]:
        """The frames [T, H, W, 3] in 0..1 of the take with `changes`, from `words`."""
        take = replace(self.take, **changes)
        self.family.prepare(self.pipe, take, inputs)
        torch.manual_seed(take.seed)
        output = self.pipe(
            **self.family.arguments(self.pipe, take, inputs) | self.recipe.arguments,
            **self.words() if words is None else words,
            generator=torch.Generator("cpu").manual_seed(take.seed),
            callback_on_step_end=seen,
            output_type="np",
        )
        return self.family.frames(output)

    def passes(self, cache: StepCache | None, inputs: Inputs, **changes: Any) -> int:
        """How often the last block of the transformer computes in a render with a step cache."""
        take = replace(self.take, **changes)
        count = 0

        def counting(*_: Any) -> None:
            nonlocal count
            count += 1

        hook = self.pipe.transformer.blocks[-1].ffn.net[0].register_forward_hook(counting)
        apply_speed(self.pipe, Speed(cache=cache), take.steps)
        self.frames(inputs, **changes)
        remove_speed(self.pipe)
        hook.remove()
        return count


def given(task: Task, seed: int) -> Inputs:
    """Random media for a task; another seed gives others."""
    if task == "i2v":
        return Inputs(image=_noise(seed))
    if task == "flf2v":
        return Inputs(image=_noise(0), last_image=_noise(seed))
    if task == "extend":
        return Inputs(video=_noise(seed, CONTEXT))
    if task == "inpaint":
        mask = np.zeros((CONTEXT, SIDE, SIDE), np.uint8)
        mask[:, :, SIDE // 2 :] = 255
        return Inputs(video=_noise(seed, CONTEXT), mask=mask)
    if task == "r2v":
        return Inputs(references=(_noise(seed), _noise(seed + 1)))
    return Inputs()


def _noise(seed: int, *count: int) -> Frames:
    shape = (*count, SIDE, SIDE, 3)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
