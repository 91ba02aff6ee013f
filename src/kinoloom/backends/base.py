"""What does every backend promise, and in which words does it speak to the rest?

A backend is given a take, one attempt at a clip with every number fixed, and gives frames. It
reports progress through a callable; an exception raised by that callable stops the work, which is
how a job is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from kinoloom.catalog.card import ModelCard
from kinoloom.request import Task

Frame = NDArray[np.uint8]
"""One picture, RGB [H, W, 3]."""
Frames = NDArray[np.uint8]
"""A clip's pictures, RGB [T, H, W, 3]."""
Phase = Literal["load", "encode", "denoise", "decode"]


@dataclass(frozen=True)
class Take:
    """One attempt at a clip: everything that decides its frames.

    `width` and `height` in pixels, `frames` of the whole clip, `fps` frames a second, `steps` and
    `guidance` of the sampler; `device` starts with torch's name of a device (``cpu x2``).
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


@dataclass(frozen=True)
class Inputs:
    """The pictures that a take starts from, at the take's size.

    `video` are the last frames of the clip that is continued, oldest first.
    """

    image: Frame | None = None
    last_image: Frame | None = None
    video: Frames | None = None


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
class Rendered:
    """What a backend made: frames, seconds by phase, and what it was made with."""

    frames: Frames
    seconds: dict[str, float]
    device: str
    dtype: str
    versions: dict[str, str]
    peak_bytes: int | None = None


@dataclass(frozen=True)
class Readiness:
    """Whether a backend can run a card now, and if not, why and what to do about it."""

    ready: bool
    reasons: tuple[str, ...] = ()
    hints: tuple[str, ...] = field(default=())


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
