"""How does a family drive diffusers' own pipeline, without Kinoloom's backend around it?"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

import diffusers
import numpy as np
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray

from kinoloom.backends.base import Frames, Inputs, Speed, Take
from kinoloom.backends.local.families.base import Family
from kinoloom.backends.local.scheduling import scheduler_for
from kinoloom.backends.local.speed import apply_speed, remove_speed
from kinoloom.catalog.reading import read_cards
from kinoloom.catalog.speed import StepCache
from kinoloom.request import Task

NOTHING = Inputs()
SIDE = 32
"""Pixels a side of every picture and clip of `Bare`."""
CONTEXT = 5
"""Frames of a video that `Bare` is given."""

Callback = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]


def take_of(**changes: Any) -> Take:
    """A take of two steps at 64x64, with `changes`."""
    values: dict[str, Any] = {
        "task": "t2v",
        "prompt": "a red ball",
        "negative": "ugly",
        "width": 64,
        "height": 64,
        "frames": 9,
        "fps": 24.0,
        "steps": 2,
        "guidance": 3.0,
        "seed": 1,
        "device": "cpu x1",
    }
    return Take(**(values | changes))


def load(
    folder: Path,
    parts: Mapping[str, Path] | None = None,
    cls: Any = DiffusionPipeline,
    **components: Any,
) -> Any:
    """The pipeline in `folder`, silent; `parts` say where the card's parts lie."""
    pipe = cls.from_pretrained(
        str(folder), use_safetensors=True, local_files_only=True, **components
    )
    pipe.set_progress_bar_config(disable=True)
    pipe.parts = dict(parts or {})
    return pipe


def output_of(
    family: Family,
    pipe: Any,
    take: Take,
    inputs: Inputs = NOTHING,
    fixed: Mapping[str, Any] | None = None,
    words: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """The pipeline's output, called as the backend does it.

    `words` stand in for the family's embeddings, such as ``{"prompt": ...}`` for diffusers' own
    way; `more` are arguments besides.
    """
    fixed = fixed or {}
    own = pipe.scheduler
    try:
        pipe.scheduler = scheduler_for(own, take)
        family.prepare(pipe, take, inputs)
        torch.manual_seed(take.seed)
        with torch.inference_mode():
            embeddings = family.encode(pipe, take, fixed) if words is None else words
            arguments = {**family.arguments(pipe, take, inputs), **fixed, **embeddings, **more}
            arguments["generator"] = torch.Generator("cpu").manual_seed(take.seed)
            return family.call(pipe, arguments | {"output_type": "np"})
    finally:
        pipe.scheduler = own  # the backend gives each take a fresh one


def render(
    family: Family,
    pipe: Any,
    take: Take,
    inputs: Inputs = NOTHING,
    fixed: Mapping[str, Any] | None = None,
    words: Mapping[str, Any] | None = None,
) -> tuple[NDArray[np.floating[Any]], list[torch.Tensor]]:
    """Frames [T, H, W, 3] in 0..1, and the raw latents [C, F, h, w] after every step."""
    seen: list[torch.Tensor] = []

    def watch(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(family.latents(pipe, take, tensors["latents"]))
        return tensors

    output = output_of(family, pipe, take, inputs, fixed, words, callback_on_step_end=watch)
    return family.frames(output), seen


def decoded(pipe: Any, latents: torch.Tensor, **arguments: Any) -> NDArray[np.floating[Any]]:
    """Raw latents [C, F, h, w] through an image VAE: frames [F, H, W, 3] in 0..1."""
    with torch.inference_mode():
        frames = pipe.vae.decode(latents.transpose(0, 1), **arguments).sample
    return (frames / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def noise(seed: int, width: int = 64, height: int = 64) -> NDArray[np.uint8]:
    """A picture of coarse random colours."""
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return coarse.repeat(height // 4, 0).repeat(width // 4, 1)


def plain(colour: int, width: int = 64, height: int = 64) -> NDArray[np.uint8]:
    """A picture of one shade of grey."""
    return np.full((height, width, 3), colour, np.uint8)


def differ(a: np.ndarray, b: np.ndarray) -> float:
    """How far frames are apart on average, of 1."""
    return float(np.abs(a - b).mean())


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
        words = self.words() if words is None else words
        fixed, more = self.recipe.arguments, {"callback_on_step_end": seen}
        output = output_of(self.family, self.pipe, take, inputs, fixed, words, **more)
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
