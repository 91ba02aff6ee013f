"""What is peculiar to AnimateDiff (Guo et al., arXiv:2307.04725)?

Motion modules between the layers of an image model of Stable Diffusion 1.5 make its pictures a
clip. They know 16 frames at a time: a longer clip is seen through overlapping windows, with noise
that is repeated in a shuffled order (FreeNoise, Qiu et al., arXiv:2310.15169).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from diffusers.models.attention import BasicTransformerBlock, FreeNoiseTransformerBlock

from kinoloom.backends.base import Inputs, Take
from kinoloom.backends.local.families.base import Family
from kinoloom.backends.local.families.references import reference_arguments, use_adapter

WINDOW = 16
"""Frames that the motion modules were trained on."""

_STRIDE = 4


class AnimateDiff(Family):
    """A motion adapter on a Stable Diffusion 1.5 checkpoint, with pictures by IP-Adapter."""

    def prepare(self, pipe: Any, take: Take, inputs: Inputs) -> None:
        """Set windows for a long clip, and the adapter for references."""
        _use_windows(pipe, long=take.frames > WINDOW)
        use_adapter(pipe, inputs.references)

    def encode(self, pipe: Any, take: Take, fixed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The prompt's embeddings, [1, tokens, width] each."""
        guided = take.guidance > 1
        positive, negative = pipe.encode_prompt(
            prompt=take.prompt,
            negative_prompt=take.negative,
            do_classifier_free_guidance=guided,
            num_images_per_prompt=1,
            device=pipe._execution_device,
            clip_skip=fixed.get("clip_skip"),
        )
        found = {"prompt_embeds": positive}
        return found | {"negative_prompt_embeds": negative} if guided else found

    def encode_key(
        self, pipe: Any, take: Take, fixed: Mapping[str, Any]
    ) -> Mapping[str, Any] | None:
        """Embeddings depend on how many of the encoder's last layers are left out."""
        return {"clip_skip": fixed.get("clip_skip")}

    def media(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """The reference pictures, encoded."""
        return reference_arguments(pipe, inputs.references, take.guidance > 1)

    def latents(self, pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
        """The latents [1, C, F, h, w] without the scale that the UNet works in."""
        scale: float = pipe.vae.config.scaling_factor
        return latents[0].float() / scale


def _use_windows(pipe: Any, *, long: bool) -> None:
    """Let the motion modules see a clip in windows, or in one piece.

    The pipeline's own way copies every block: LoRAs and hooks on them would be lost, a motion
    middle block is taken for granted when it is undone, and given embeddings are refused. The two
    kinds of block have the same parts, so that only their class needs to change.
    """
    for block in _motion_blocks(pipe.unet):
        block.__class__ = FreeNoiseTransformerBlock if long else BasicTransformerBlock
    if long:
        pipe.enable_free_noise(context_length=WINDOW, context_stride=_STRIDE)
        pipe._encode_prompt_free_noise = _same_for_all_frames
    else:
        pipe._free_noise_context_length = None


def _motion_blocks(unet: Any) -> Iterator[Any]:
    for part in (*unet.down_blocks, unet.mid_block, *unet.up_blocks):
        for module in getattr(part, "motion_modules", ()):
            yield from module.transformer_blocks


def _same_for_all_frames(
    prompt_embeds: torch.Tensor,
    num_frames: int,
    negative_prompt_embeds: torch.Tensor | None = None,
    **_: Any,
) -> tuple[torch.Tensor, None]:
    """One prompt for all frames, as the UNet takes it: [F, tokens, width], twice with guidance."""
    if negative_prompt_embeds is not None:
        prompt_embeds = torch.cat([negative_prompt_embeds, prompt_embeds])
    return prompt_embeds.repeat_interleave(num_frames, dim=0), None


FAMILY = AnimateDiff()
