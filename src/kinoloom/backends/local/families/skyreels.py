"""What is peculiar to SkyReels V2 (Skywork AI, arXiv:2504.13074)?

It is Wan's architecture. With diffusion forcing, a long clip is made window by window, each with
all denoising steps; every window but the first begins with the last frames before it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from diffusers.video_processor import VideoProcessor

from kinoloom.backends.base import Inputs, Take
from kinoloom.backends.local.families.wan import Wan, unnormalised
from kinoloom.errors import ModelBroken

OVERLAP = 17
"""Frames that a window of a long clip takes over from the one before."""

_AREA_540P = 960 * 544


@dataclass(frozen=True)
class Windows:
    """How a clip is divided: `count` windows of `size` frames give `frames`, overlaps counted once.

    That may be a few more frames than the take's.
    """

    count: int
    size: int
    frames: int


class SkyReels(Wan):
    """SkyReels V2 from words or a picture, and with diffusion forcing also on from a video."""

    def prepare(self, pipe: Any, take: Take, inputs: Inputs) -> None:
        """Let the pipeline give only the take's frames.

        A given video would stand in front of what is made, which begins with the same frames.
        """
        start = 0 if inputs.video is None else len(inputs.video)
        processor = pipe.video_processor
        processor.postprocess_video = partial(_part, processor, start, start + take.frames)

    def arguments(self, pipe: Any, take: Take, inputs: Inputs) -> dict[str, Any]:
        """Size, length, guidance, steps and media; with diffusion forcing also the windows.

        Raises ModelBroken when more frames of a video are given than a window takes over.
        """
        # One of the pipelines has no default for the prompt.
        found = super().arguments(pipe, take, inputs) | {"prompt": None}
        if not _forces(pipe):
            return found
        given = OVERLAP if inputs.video is None else len(inputs.video)
        if given > OVERLAP:
            raise ModelBroken(
                f"SkyReels V2 continues {OVERLAP} frames of a video, not {given}.",
                hints=[f"set context_frames in the model's card to {OVERLAP}"],
            )
        windows = windows_of(pipe, take)
        return found | {
            "num_frames": windows.frames,
            "base_num_frames": windows.size,
            "overlap_history": given if windows.count == 1 else OVERLAP,
        }

    def steps(self, pipe: Any, take: Take) -> int:
        """The steps of every window."""
        return take.steps * windows_of(pipe, take).count if _forces(pipe) else take.steps

    def latents(self, pipe: Any, take: Take, latents: torch.Tensor) -> torch.Tensor:
        """The raw latents [C, F, h, w] of the clip, or of the window at work."""
        return unnormalised(pipe.vae, latents[0])


def windows_of(pipe: Any, take: Take) -> Windows:
    """As few windows as the model's training allows, all of one size.

    A shorter last one would have little to go by, and from a picture the pipeline fails at it.
    """
    ratio = pipe.vae_scale_factor_temporal
    # As many frames as its makers trained and advise at such a size.
    trained = 97 if take.width * take.height <= _AREA_540P else 121
    if take.frames <= trained:
        return Windows(1, trained, take.frames)
    total, most, overlap = ((n - 1) // ratio + 1 for n in (take.frames, trained, OVERLAP))
    count = math.ceil((total - overlap) / (most - overlap))
    fresh = math.ceil((total - overlap) / count)
    frames = overlap + count * fresh
    return Windows(count, (overlap + fresh - 1) * ratio + 1, (frames - 1) * ratio + 1)


def _forces(pipe: Any) -> bool:
    """Whether the pipeline is one of diffusion forcing."""
    return "DiffusionForcing" in type(pipe).__name__


def _part(processor: VideoProcessor, start: int, end: int, video: Any, output_type: str) -> Any:
    """What the processor makes of the frames from `start` to `end` of a video [B, C, F, H, W]."""
    return VideoProcessor.postprocess_video(processor, video[:, :, start:end], output_type)


FAMILY = SkyReels()
