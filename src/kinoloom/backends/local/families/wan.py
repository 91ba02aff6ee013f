"""What is peculiar to Wan 2.1 and 2.2 (Wan Team, arXiv:2503.20314)?

The call pads prompts to more tokens than ``encode_prompt`` does by itself, latents are normalised
by channel, and VACE puts reference pictures in front of the clip's own latents.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from PIL import Image

from kinoloom.backends.base import Inputs, Take
from kinoloom.backends.local.families.base import Family, picture, token_limit

TOKENS = 512
"""What the pipelines' calls pad a prompt to. The padding is attended to, so another length than
this gives another clip."""


class Wan(Family):
    """Wan from words, from pictures and, with VACE, from a video, its mask and references."""

    def encode_key(
        self, pipe: Any, take: Take, fixed: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """The number of tokens."""
        return {"max_sequence_length": TOKENS} | token_limit(fixed)

    def encode(self, pipe: Any, take: Take, fixed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The embeddings of the prompt and, with guidance, of the negative one."""
        return super().encode(pipe, take, {"max_sequence_length": TOKENS} | token_limit(fixed))

    def media(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """Pictures, and what VACE takes: a video, masks (white is made anew) and references."""
        found = super().media(pipe, take, inputs)
        if inputs.video is not None:
            found["video"] = [picture(frame) for frame in inputs.video]
        if inputs.mask is not None:
            found["mask"] = [Image.fromarray(mask).convert("RGB") for mask in inputs.mask]
        if inputs.references:
            found["reference_images"] = [picture(frame) for frame in inputs.references]
        return found

    def latents(self, pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
        """The clip's raw latents [C, F, h, w], without those of reference pictures before it."""
        frames = (take.frames - 1) // pipe.vae_scale_factor_temporal + 1
        return unnormalised(pipe.vae, latents[0, :, -frames:])


def unnormalised(vae: Any, latents: torch.Tensor) -> torch.Tensor:
    """Normalised latents [C, F, h, w] as the VAE decodes them."""
    mean = torch.tensor(vae.config.latents_mean, device=latents.device)
    std = torch.tensor(vae.config.latents_std, device=latents.device)
    raw: torch.Tensor = latents.float() * std[:, None, None, None] + mean[:, None, None, None]
    return raw


FAMILY = Wan()
