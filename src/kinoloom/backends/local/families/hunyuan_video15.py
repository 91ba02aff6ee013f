"""What is peculiar to HunyuanVideo 1.5 (Tencent, arXiv:2511.18870)?

Its pipelines have no callback, take the guidance from a `guider` of their own, and know two text
encoders. From a picture, the size follows from the picture's shape, so none is passed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch

from kinoloom.backends.base import Inputs, Take
from kinoloom.backends.local.families.base import Family
from kinoloom.backends.local.families.images import remember_images

_NAMES = ("prompt_embeds", "prompt_embeds_mask", "prompt_embeds_2", "prompt_embeds_mask_2")


class HunyuanVideo15(Family):
    """HunyuanVideo 1.5, from words or from a picture."""

    text_components: ClassVar[tuple[str, ...]] = (
        "text_encoder",
        "tokenizer",
        "text_encoder_2",
        "tokenizer_2",
    )
    encoding_needs: ClassVar[tuple[str, ...]] = ("vae",)
    has_callback: ClassVar[bool] = False

    def prepare(self, pipe: Any, take: Take, inputs: Inputs) -> None:
        """Set the guidance, and remember the pictures that were encoded."""
        # Below 1 the guider would ask for a negative prompt, which `encode` leaves out.
        pipe.guider = pipe.guider.new(guidance_scale=max(take.guidance, 1.0))
        if inputs.image is not None:
            remember_images(pipe)

    def encode(self, pipe: Any, take: Take, fixed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The embeddings and masks of both encoders, for the prompt and the negative one."""
        device = pipe._execution_device
        positive = pipe.encode_prompt(prompt=take.prompt, device=device)
        found = dict(zip(_NAMES, positive, strict=True))
        if take.guidance > 1:
            negative = pipe.encode_prompt(prompt=take.negative, device=device)
            names = [f"negative_{name}" for name in _NAMES]
            found |= dict(zip(names, negative, strict=True))
        return found

    def arguments(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """Length, steps, and the picture or, without one, the size."""
        found = {"num_frames": take.frames, "num_inference_steps": take.steps}
        if inputs.image is None:
            found |= {"width": take.width, "height": take.height}
        return found | self.media(pipe, take, inputs)

    def latents(self, pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
        """The clip's raw latents [C, F, h, w]."""
        raw: torch.Tensor = latents[0].float() / pipe.vae.config.scaling_factor
        return raw


FAMILY = HunyuanVideo15()
