"""What is peculiar to LTX-2 (Lightricks, arXiv:2601.03233)?

It makes sound together with the pictures, and guides the two apart. Given pictures are conditions
at latent frames: in the first one they take the place of the noise, for later ones they are tokens
behind the clip's own.

Its embeddings are those of every layer of a large text encoder, which the pipeline wants padded to
a thousand tokens: 400 MB in half precision, nearly all of it padding. They are kept without it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from diffusers.pipelines.ltx2.pipeline_ltx2_condition import LTX2VideoCondition

from kinoloom.backends.base import Audio, Inputs, Take
from kinoloom.backends.local.families.base import Family, picture
from kinoloom.backends.local.families.ltx import cells, encode_masked, pictures_at, unpack

_UNGUIDED = {
    "stg_scale": 0.0,
    "modality_scale": 1.0,
    "audio_guidance_scale": 1.0,
    "audio_stg_scale": 0.0,
    "audio_modality_scale": 1.0,
}
"""What turns the other kinds of guidance off; by default they run whatever the scale is."""

_TOKENS = 1024
"""Tokens that the pipeline pads a prompt to, unless the card says otherwise."""

_WORDS = ("prompt_embeds", "prompt_attention_mask")


class LTX2(Family):
    """LTX-2, from words or pictures at any frame."""

    text_components: ClassVar[tuple[str, ...]] = (
        "text_encoder",
        "tokenizer",
        "processor",
        "prompt_enhancer",
    )

    def encode(self, pipe: Any, take: Take, fixed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The embeddings and masks of both prompts, without the padding that stands before them."""
        found = encode_masked(pipe, take, take.guidance > 1, fixed)
        longest = max(int(v.sum()) for k, v in found.items() if k.endswith("_mask"))
        return {name: value[:, -longest:].clone() for name, value in found.items()}

    def call(self, pipe: Any, arguments: dict[str, Any]) -> Any:
        """Run the pipeline with padded embeddings; what is in the padding does not matter to it."""
        tokens = arguments.get("max_sequence_length", _TOKENS)
        for name in (*_WORDS, *(f"negative_{name}" for name in _WORDS)):
            value = arguments.get(name)
            if value is not None:
                missing = tokens - value.shape[1]
                # Padding is given from the last dimension on: none there, then before the tokens.
                ends = (0, 0) * (value.dim() - 2) + (missing, 0)
                arguments[name] = torch.nn.functional.pad(value, ends)
        if arguments.get("timesteps") is not None:
            # The pipeline has a default for the noise levels and then refuses timesteps.
            arguments["sigmas"] = [t / 1000 for t in arguments.pop("timesteps")]
        return super().call(pipe, arguments)

    def prepare(self, pipe: Any, take: Take, inputs: Inputs) -> None:
        """Take pinned noise levels as they are, without the shift by size."""
        if take.timesteps is not None:
            pipe.scheduler = type(pipe.scheduler).from_config(
                pipe.scheduler.config, use_dynamic_shifting=False, shift_terminal=None
            )

    def arguments(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """The usual ones, the rate, and no guidance of any kind where none is wanted."""
        found = super().arguments(pipe, take, inputs) | {"frame_rate": take.fps}
        return found if take.guidance > 1 else found | _UNGUIDED

    def media(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """All given pictures as conditions at the latent frames that theirs are in."""
        ratio = pipe.vae_temporal_compression_ratio
        conditions = [
            LTX2VideoCondition(frames=picture(image), index=-(-frame // ratio))
            for frame, image in pictures_at(take, inputs)
        ]
        return {"conditions": conditions} if conditions else {}

    def latents(self, pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
        """The clip's raw latents [C, F, h, w] of the callback's tokens [B, S, C]."""
        return unpack(pipe, take, latents[:, : math.prod(cells(pipe, take))])

    def audio(self, pipe: Any, output: Any) -> Audio | None:
        """The sound of the vocoder, at its rate."""
        samples = output.audio[0].float().cpu().numpy()
        rate = int(pipe.vocoder.config.output_sampling_rate)
        return Audio(np.clip(samples, -1.0, 1.0).astype(np.float32), rate)


FAMILY = LTX2()
