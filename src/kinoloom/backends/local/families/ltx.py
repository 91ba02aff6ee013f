"""What is peculiar to LTX-Video (Lightricks, arXiv:2501.00103)?

Given pictures are conditions at frame positions, and its latents are packed: tokens of one latent
cell each, those of extra conditions in front of the clip's own.
"""

from __future__ import annotations

from typing import Any

import torch
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition
from PIL import Image

from kinoloom.backends.base import Inputs, Take


def media_arguments(take: Take, inputs: Inputs) -> dict[str, Any]:
    """The pipeline's media arguments: an image at the first frame, one at the last, or a video."""
    conditions = []
    if inputs.video is not None:
        frames = [Image.fromarray(frame) for frame in inputs.video]
        conditions.append(LTXVideoCondition(video=frames, frame_index=0))
    if inputs.image is not None:
        conditions.append(LTXVideoCondition(image=Image.fromarray(inputs.image), frame_index=0))
    if inputs.last_image is not None:
        last = Image.fromarray(inputs.last_image)
        conditions.append(LTXVideoCondition(image=last, frame_index=take.frames - 1))
    return {"conditions": conditions} if conditions else {}


def length_arguments(take: Take) -> dict[str, Any]:
    """How the pipeline is told the clip's length and rate; the rate enters its positions."""
    return {"num_frames": take.frames, "frame_rate": take.fps}


def unpack(pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
    """The callback's tokens [B, S, C] as the clip's raw latents [C, F, h, w]."""
    frames = (take.frames - 1) // pipe.vae_temporal_compression_ratio + 1
    height = take.height // pipe.vae_spatial_compression_ratio
    width = take.width // pipe.vae_spatial_compression_ratio
    tokens = latents[:1, -frames * height * width :].float()
    packed = pipe._unpack_latents(
        tokens,
        frames,
        height,
        width,
        pipe.transformer_spatial_patch_size,
        pipe.transformer_temporal_patch_size,
    )
    vae = pipe.vae
    scaling = vae.config.scaling_factor
    raw: torch.Tensor = pipe._denormalize_latents(
        packed, vae.latents_mean, vae.latents_std, scaling
    )
    return raw[0]
