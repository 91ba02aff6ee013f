"""What is peculiar to FLUX.1 (Black Forest Labs)?

It makes one picture, from latents that are packed: tokens of 2x2 cells each. T5 reads the prompt,
and CLIP gives a pooled vector. Guidance is a number that the model was taught, not a second pass,
so there is no negative prompt; the fast variant does not take that number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from kinoloom.backends.base import Inputs, Take
from kinoloom.backends.local.families.base import Family, token_limit


class Flux(Family):
    """One picture of words."""

    text_components = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")

    def encode(self, pipe: Any, take: Take, fixed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """T5's embeddings [1, tokens, width] and CLIP's pooled one [1, width]."""
        embeddings, pooled, _ = pipe.encode_prompt(
            prompt=take.prompt, device=pipe._execution_device, **token_limit(fixed)
        )
        return {"prompt_embeds": embeddings, "pooled_prompt_embeds": pooled}

    def arguments(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """The call's other arguments; it knows no number of frames."""
        found = super().arguments(pipe, take, inputs)
        del found["num_frames"]
        return found

    def latents(self, pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
        """The callback's tokens [1, S, 4C] as the picture's raw latents [C, 1, h, w]."""
        config = pipe.vae.config
        cells: torch.Tensor = pipe._unpack_latents(
            latents[:1].float(), take.height, take.width, pipe.vae_scale_factor
        )
        raw: torch.Tensor = cells / config.scaling_factor + config.shift_factor
        return raw.transpose(0, 1)

    def frames(self, output: Any) -> np.ndarray[Any, Any]:
        """The picture as a clip of one frame, [1, H, W, 3]."""
        return np.asarray(output.images)


FAMILY = Flux()
