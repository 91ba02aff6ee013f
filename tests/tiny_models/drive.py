"""A bare diffusers call through a family's adapter, as the backend makes it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from numpy.typing import NDArray

from kinoloom.backends.base import Inputs, Take
from kinoloom.backends.local.families.base import Family
from kinoloom.backends.local.scheduling import scheduler_for


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


def take(**changes: Any) -> Take:
    """A small take, with changes."""
    values: dict[str, Any] = {
        "task": "t2v",
        "prompt": "a red ball",
        "negative": "",
        "width": 64,
        "height": 64,
        "frames": 1,
        "fps": 8.0,
        "steps": 2,
        "guidance": 4.0,
        "seed": 7,
        "device": "cpu x1",
    }
    return Take(**(values | changes))


def render(
    family: Family,
    pipe: Any,
    wanted: Take,
    inputs: Inputs | None = None,
    fixed: Mapping[str, Any] | None = None,
    embeddings: Mapping[str, torch.Tensor] | None = None,
) -> tuple[NDArray[np.floating[Any]], list[torch.Tensor]]:
    """Frames [T, H, W, 3] in 0..1, and the raw latents [C, F, h, w] after every step.

    `embeddings` stand in for the prompt's own, such as ``{"prompt": ...}`` for diffusers' own way.
    """
    inputs, fixed = inputs or Inputs(), fixed or {}
    own = pipe.scheduler
    seen: list[torch.Tensor] = []

    def watch(pipe: Any, index: int, t: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        seen.append(family.latents(pipe, wanted, tensors["latents"]))
        return tensors

    try:
        with torch.inference_mode():
            pipe.scheduler = scheduler_for(own, wanted)
            family.prepare(pipe, wanted, inputs)
            found = family.encode(pipe, wanted, fixed) if embeddings is None else embeddings
            output = pipe(
                **family.arguments(pipe, wanted, inputs),
                **found,
                **fixed,
                generator=torch.Generator("cpu").manual_seed(wanted.seed),
                callback_on_step_end=watch,
                output_type="np",
            )
    finally:
        pipe.scheduler = own  # the backend gives each take the pipeline's own scheduler
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
