"""What is peculiar to Stable Diffusion XL (Podell et al., arXiv:2307.01952)?

It makes one picture. Its two text encoders give embeddings and a pooled vector, each with a
negative; where the negative prompt is empty, both of its are zeros.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from kinoloom.backends.base import Inputs, Take
from kinoloom.backends.local.families.base import Family
from kinoloom.backends.local.families.references import reference_arguments, use_adapter

_NAMES = (
    "prompt_embeds",
    "negative_prompt_embeds",
    "pooled_prompt_embeds",
    "negative_pooled_prompt_embeds",
)


class StableDiffusionXL(Family):
    """One picture of words, and of reference pictures by IP-Adapter."""

    text_components = ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2")

    def prepare(self, pipe: Any, take: Take, inputs: Inputs) -> None:
        """Set the adapter for references."""
        use_adapter(pipe, inputs.references)

    def encode_key(
        self, pipe: Any, take: Take, fixed: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Embeddings depend on how many of the encoders' last layers are left out."""
        return {"clip_skip": fixed.get("clip_skip")}

    def encode(self, pipe: Any, take: Take, fixed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Embeddings [1, tokens, width] and pooled ones [1, width], negatives with guidance."""
        found = pipe.encode_prompt(
            prompt=take.prompt,
            negative_prompt=take.negative or None,
            do_classifier_free_guidance=take.guidance > 1,
            device=pipe._execution_device,
            clip_skip=fixed.get("clip_skip"),
        )
        return {k: v for k, v in zip(_NAMES, found, strict=True) if v is not None}

    def arguments(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """The call's other arguments; it knows no number of frames."""
        found = super().arguments(pipe, take, inputs)
        del found["num_frames"]
        return found

    def media(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """The reference pictures, encoded."""
        return reference_arguments(pipe, inputs.references, take.guidance > 1)

    def latents(self, pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
        """The latents [1, C, h, w] as [C, 1, h, w], without the scale that the UNet works in."""
        scale: float = pipe.vae.config.scaling_factor
        return latents[0, :, None].float() / scale

    def frames(self, output: Any) -> np.ndarray[Any, Any]:
        """The picture as a clip of one frame, [1, H, W, 3]."""
        return np.asarray(output.images)


FAMILY = StableDiffusionXL()
