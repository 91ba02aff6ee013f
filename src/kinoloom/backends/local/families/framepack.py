"""What is peculiar to FramePack (Zhang and Agrawala, arXiv:2504.12626)?

A clip is made window by window, each with all denoising steps; every window gives the same number
of frames, so a clip's length is a multiple of that and one. The guidance is an input of the
transformer: there is no second pass and no negative prompt.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from kinoloom.backends.base import Inputs, Take
from kinoloom.backends.local.families.base import Family, token_limit
from kinoloom.backends.local.families.images import remember_images

WINDOW = 9
"""Latent frames of a window; the released models were trained with this."""


class FramePack(Family):
    """FramePack, from a first picture and, if given, a last one."""

    text_components: ClassVar[tuple[str, ...]] = (
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
    )

    def prepare(self, pipe: Any, take: Take, inputs: Inputs) -> None:
        """Remember the pictures that were encoded."""
        remember_images(pipe)

    def encode(self, pipe: Any, take: Take, fixed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The embeddings of both encoders and the mask of the first."""
        embeds, pooled, mask = pipe.encode_prompt(
            prompt=take.prompt, device=pipe._execution_device, **token_limit(fixed)
        )
        return {
            "prompt_embeds": embeds,
            "pooled_prompt_embeds": pooled,
            "prompt_attention_mask": mask,
        }

    def arguments(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """Size, length, guidance, steps and media.

        The pipeline counts a window by the frames it would have alone, but gives four for each of
        its latent frames: it is asked for as many as make the windows that the take needs.
        """
        ratio = pipe.vae_scale_factor_temporal
        asked = _windows(pipe, take) * ((WINDOW - 1) * ratio + 1)
        return super().arguments(pipe, take, inputs) | {
            "num_frames": asked,
            "latent_window_size": WINDOW,
        }

    def steps(self, pipe: Any, take: Take) -> int:
        """The steps of every window."""
        return take.steps * _windows(pipe, take)

    def latents(self, pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
        """The raw latents [C, F, h, w] of the window at work."""
        raw: torch.Tensor = latents[0].float() / pipe.vae.config.scaling_factor
        return raw


def _windows(pipe: Any, take: Take) -> int:
    """How many windows make the take's frames, which are a multiple of a window's and one."""
    per_window: int = WINDOW * pipe.vae_scale_factor_temporal
    return max(1, (take.frames - 1) // per_window)


FAMILY = FramePack()
