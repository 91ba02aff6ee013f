"""What is peculiar to LTX-Video (Lightricks, arXiv:2501.00103)?

Given pictures are conditions at frame positions, and its latents are packed: tokens of one latent
cell each, those of extra conditions in front of the clip's own. Its pipeline wants masks with the
embeddings.

With the part ``latent_upsampler`` in its card, a clip is made at half the size first; its latents
are then upsampled and refined in a few more steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from diffusers import LTXLatentUpsamplePipeline
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from diffusers.pipelines.ltx.pipeline_ltx_condition import LTXVideoCondition

from kinoloom.backends.base import Frame, Inputs, Take
from kinoloom.backends.local.families.base import Family, picture, token_limit

UPSAMPLER = "latent_upsampler"
"""The part of a card that makes its clips in two stages."""

_REFINING: dict[str, Any] = {"num_inference_steps": 10, "denoise_strength": 0.4}
_REFINING_DISTILLED: dict[str, Any] = {
    "timesteps": [1000, 909, 725, 421, 0],
    "denoise_strength": 0.999,
}
_REFINING_STEPS = 4
"""What is left of either by its strength."""

_UPSAMPLING_DISTILLED = {"adain_factor": 1.0, "tone_map_compression_ratio": 0.6}


class LTX(Family):
    """LTX-Video, from words, pictures at any frame, or the end of a clip."""

    def prepare(self, pipe: Any, take: Take, inputs: Inputs) -> None:
        """Load the upsampler beside the pipeline, once, if the card has one."""
        place = pipe.parts.get(UPSAMPLER)
        if place is not None and getattr(pipe, UPSAMPLER, None) is None:
            loaded = LTXLatentUpsamplerModel.from_pretrained(
                str(place), dtype=pipe.vae.dtype, use_safetensors=True, local_files_only=True
            )
            setattr(pipe, UPSAMPLER, loaded.eval().to(pipe._execution_device))

    def encode(self, pipe: Any, take: Take, fixed: Mapping[str, Any]) -> dict[str, torch.Tensor]:
        """The embeddings and masks of the prompt and, with guidance, of the negative one."""
        return encode_masked(pipe, take, take.guidance > 1, fixed)

    def arguments(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """The usual ones and the rate, which enters the positions."""
        return super().arguments(pipe, take, inputs) | {"frame_rate": take.fps}

    def media(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """All given pictures and frames as conditions at their places."""
        conditions = []
        if inputs.video is not None:
            frames = [picture(frame) for frame in inputs.video]
            conditions.append(LTXVideoCondition(video=frames, frame_index=0))
        conditions += [
            LTXVideoCondition(image=picture(image), frame_index=index)
            for index, image in pictures_at(take, inputs)
        ]
        return {"conditions": conditions} if conditions else {}

    def call(self, pipe: Any, arguments: dict[str, Any]) -> Any:
        """One stage, or two where there is an upsampler."""
        upsampler = getattr(pipe, UPSAMPLER, None)
        if upsampler is None:
            return super().call(pipe, arguments)
        # Models that were taught to do without guidance have noise levels of their own.
        distilled = arguments["guidance_scale"] <= 1
        half = {"width": arguments["width"] // 2, "height": arguments["height"] // 2}
        small = pipe(**(arguments | half | {"output_type": "latent"})).frames
        upsample: Any = LTXLatentUpsamplePipeline(vae=pipe.vae, latent_upsampler=upsampler)
        extra = _UPSAMPLING_DISTILLED if distilled else {}
        large = upsample(latents=small, output_type="latent", **extra).frames
        refining = _REFINING_DISTILLED if distilled else _REFINING | {"timesteps": None}
        return pipe(**(arguments | refining | {"latents": large}))

    def steps(self, pipe: Any, take: Take) -> int:
        """The steps of both stages."""
        return take.steps + (_REFINING_STEPS if UPSAMPLER in pipe.parts else 0)

    def latents(self, pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
        """The clip's raw latents [C, F, h, w] of the callback's tokens [B, S, C]."""
        return unpack(pipe, take, latents)


def encode_masked(
    pipe: Any, take: Take, guided: bool, fixed: Mapping[str, Any]
) -> dict[str, torch.Tensor]:
    """The embeddings [1, S, D] and masks [1, S] of a pipeline that wants both."""
    embeds, mask, negative, negative_mask = pipe.encode_prompt(
        prompt=take.prompt,
        negative_prompt=take.negative,
        do_classifier_free_guidance=guided,
        device=pipe._execution_device,
        **token_limit(fixed),
    )
    found = {"prompt_embeds": embeds, "prompt_attention_mask": mask}
    if guided:
        found |= {
            "negative_prompt_embeds": negative,
            "negative_prompt_attention_mask": negative_mask,
        }
    return found


def pictures_at(take: Take, inputs: Inputs) -> list[tuple[int, Frame]]:
    """All given pictures with the frames that they are for, in order."""
    pictures = {}
    if inputs.image is not None:
        pictures[0] = inputs.image
    if inputs.last_image is not None:
        pictures[take.frames - 1] = inputs.last_image
    pictures |= {key.index: key.image for key in inputs.keyframes}
    return sorted(pictures.items(), key=lambda item: item[0])


def cells(pipe: Any, take: Take) -> tuple[int, int, int]:
    """Frames, rows and columns of the take's latents."""
    return (
        (take.frames - 1) // pipe.vae_temporal_compression_ratio + 1,
        take.height // pipe.vae_spatial_compression_ratio,
        take.width // pipe.vae_spatial_compression_ratio,
    )


def unpack(pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
    """Tokens [B, S, C] as the clip's raw latents [C, F, h, w]; the clip's own are the last ones.

    Fewer tokens than the clip has cells are those of a first stage at half its size.
    """
    frames, height, width = cells(pipe, take)
    if latents.shape[1] < frames * height * width:
        height, width = height // 2, width // 2
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
    raw: torch.Tensor = pipe._denormalize_latents(
        packed, vae.latents_mean, vae.latents_std, vae.config.scaling_factor
    )
    return raw[0]


FAMILY = LTX()
