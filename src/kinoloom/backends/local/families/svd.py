"""What is peculiar to Stable Video Diffusion (Blattmann et al., arXiv:2311.15127)?

It makes a clip of a picture and takes no words. Guidance rises from the first frame, which is the
picture itself, to the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from kinoloom.backends.base import Inputs, Take
from kinoloom.backends.local.families.base import Family


class StableVideoDiffusion(Family):
    """A picture set in motion."""

    text_components = ()

    def encode_key(
        self, pipe: Any, take: Take, fixed: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """There are no embeddings to keep."""
        return None

    def encode(self, pipe: Any, take: Take, fixed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """Nothing: it has no text encoder."""
        return {}

    def arguments(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """The call's other arguments; the take's guidance is that of the last frame."""
        found = super().arguments(pipe, take, inputs)
        scale = found.pop("guidance_scale")
        return found | {"min_guidance_scale": min(1.0, scale), "max_guidance_scale": scale}

    def latents(self, pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
        """The latents [1, F, C, h, w] as [C, F, h, w], without the scale the UNet works in."""
        scale: float = pipe.vae.config.scaling_factor
        return latents[0].float().transpose(0, 1) / scale


FAMILY = StableVideoDiffusion()
