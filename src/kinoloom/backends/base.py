"""What does every backend promise, and in which words does it speak to the rest?

A backend is given a take, one attempt at a clip with every number fixed, and gives frames. It
reports progress through a callable; an exception raised by that callable stops the work, which is
how a job is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.speed import Scheduler, StepCache
from kinoloom.request import Task

if TYPE_CHECKING:  # the planner speaks of takes too, and must not wait for numpy
    import numpy as np
    from numpy.typing import NDArray

Frame: TypeAlias = "NDArray[np.uint8]"
"""One picture, RGB [H, W, 3]."""
Frames: TypeAlias = "NDArray[np.uint8]"
"""A clip's pictures, RGB [T, H, W, 3]."""
Phase = Literal["load", "encode", "denoise", "decode"]


@dataclass(frozen=True)
class Lora:
    """A LoRA of a take: its file, how strongly it is applied, and the component it changes."""

    name: str
    path: Path
    weight: float = 1.0
    component: str = "transformer"


@dataclass(frozen=True)
class Speed:
    """What makes a take faster, resolved through the card's allow-list; nothing by default.

    `attention` is diffusers' name of an attention backend, `cache` a cache between steps.
    """

    attention: str | None = None
    compile: bool = False
    cache: StepCache | None = None


Placement = Literal["resident", "fp8", "model_offload", "group_offload", "sequential"]
"""Where the weights are during a render, the fastest first: all on the device; there, the
transformer's stored in 8 bits; one component at a time; a few layers at a time, the next ones on
their way; one layer at a time."""


@dataclass(frozen=True)
class Take:
    """One attempt at a clip: everything that decides its frames.

    `width` and `height` in pixels, `frames` of the whole clip, `fps` frames a second; `steps`,
    `guidance` and `shift` (None: the scheduler's own) of the sampler, `timesteps` where a preset
    pins them, `scheduler` in place of the weights' own; `device` starts with torch's name of a
    device (``cpu x2``). `tiling` decodes in tiles.
    """

    task: Task
    prompt: str
    negative: str
    width: int
    height: int
    frames: int
    fps: float
    steps: int
    guidance: float
    seed: int
    device: str
    shift: float | None = None
    timesteps: tuple[int, ...] | None = None
    scheduler: Scheduler | None = None
    loras: tuple[Lora, ...] = ()
    speed: Speed = Speed()
    placement: Placement = "resident"
    tiling: bool = False


@dataclass(frozen=True)
class Keyframe:
    """A picture that the clip shows at a frame, counted from 0."""

    index: int
    image: Frame


@dataclass(frozen=True)
class Inputs:
    """The pictures that a take starts from, at the take's size (references: at their own).

    `video` are the last frames of the clip that is continued, oldest first, or all frames of the
    clip that is inpainted; `mask` [T, H, W] is 255 where that one is to be made anew and 0 where
    it stays.
    """

    image: Frame | None = None
    last_image: Frame | None = None
    video: Frames | None = None
    mask: NDArray[np.uint8] | None = None
    references: tuple[Frame, ...] = ()
    keyframes: tuple[Keyframe, ...] = ()


@dataclass(frozen=True)
class Progress:
    """Where a render is: the phase, and within `denoise` the finished steps of all.

    `preview` is a small, rough picture of the clip's middle frame as the model sees it by now.
    """

    phase: Phase
    step: int = 0
    steps: int = 0
    preview: Frame | None = None


@dataclass(frozen=True)
class Audio:
    """Sound that was made with the frames: float samples [channels, n] in -1..1, at `rate` Hz."""

    samples: NDArray[np.float32]
    rate: int


@dataclass(frozen=True)
class Rendered:
    """What a backend made: frames, seconds by phase, and what it was made with.

    `placement` and `tiling` are those that worked, which may be lower ones than the take's; `notes`
    say what the user should know of how it went. `embeddings` is whether the prompt's were found
    in the cache, None where they are not cached.
    """

    frames: Frames
    seconds: dict[str, float]
    device: str
    dtype: str
    versions: dict[str, str]
    peak_bytes: int | None = None
    audio: Audio | None = None
    placement: Placement = "resident"
    tiling: bool = False
    notes: tuple[str, ...] = ()
    embeddings: Literal["hit", "miss"] | None = None


@dataclass(frozen=True)
class Readiness:
    """Whether a backend can run a card now, and if not, why and what to do about it."""

    ready: bool
    reasons: tuple[str, ...] = ()
    hints: tuple[str, ...] = field(default=())


class WhatFits(Protocol):
    """Something that knows what to ask for instead of a take that ran out of memory."""

    def __call__(
        self,
        card: ModelCard,
        take: Take,
        *,
        free_bytes: int | None,
        budget_bytes: int | None,
        dtype_bytes: int,
    ) -> Sequence[str]:
        """Hints, the most useful first; none where nothing is known.

        `take` is as it was tried last, `free_bytes` what the device has now that everything was
        given back, `budget_bytes` what the user allows, `dtype_bytes` the width of the numbers.
        """
        ...


class Backend(Protocol):
    """Something that renders takes."""

    name: str

    def readiness(self, card: ModelCard) -> Readiness:
        """Whether `card` can run here now. Must be cheap: no model is loaded."""
        ...

    def render(
        self, take: Take, card: ModelCard, inputs: Inputs, report: Callable[[Progress], None]
    ) -> Rendered:
        """Render `take`. Raises KinoloomError; what `report` raises passes through."""
        ...
