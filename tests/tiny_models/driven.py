"""How is a bare pipeline driven by its family in a test, as the backend does it?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from kinoloom.backends.base import Inputs, Take
from kinoloom.backends.local.families.base import Family

NOTHING = Inputs()


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
        "device": "cpu",
    }
    return Take(**(values | changes))


def output_of(
    family: Family,
    pipe: Any,
    take: Take,
    inputs: Inputs = NOTHING,
    fixed: Mapping[str, Any] | None = None,
    words: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """The pipeline's output; with `words` in place of the family's embeddings."""
    fixed = fixed or {}
    family.prepare(pipe, take, inputs)
    with torch.inference_mode():
        embeddings = words or family.encode(pipe, take, fixed)
        arguments = {**family.arguments(pipe, take, inputs), **fixed, **embeddings, **more}
        arguments["generator"] = torch.Generator().manual_seed(take.seed)
        return family.call(pipe, arguments | {"output_type": "np"})


def plain(colour: int, width: int = 64, height: int = 64) -> np.ndarray:
    """A picture of one shade of grey."""
    return np.full((height, width, 3), colour, np.uint8)


def differ(a: np.ndarray, b: np.ndarray) -> float:
    """How far frames are apart on average, of 1."""
    return float(np.abs(a - b).mean())
