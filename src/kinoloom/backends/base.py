"""What does every backend promise, and in which words does it speak to the rest?

A backend is given a take, one attempt at a clip with every number fixed. One that renders here
gives frames; it reports progress through a callable, and an exception raised by that callable stops
the work, which is how a job is cancelled. One elsewhere is handed an order and is then asked how
far it is; each of these is a short call, so that what it answered can be written down before the
next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.speed import Scheduler, StepCache
from kinoloom.errors import KinoloomError
from kinoloom.request import Task

if TYPE_CHECKING:  # the planner speaks of takes too, and must not wait for numpy
    import numpy as np
    from numpy.typing import NDArray

    from kinoloom.catalog.loader import Catalog

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
    """Something that makes clips, of one of the two kinds below."""

    name: str
    remote: ClassVar[bool]
    """Whether it works elsewhere: a `RemoteBackend`, else a `Renderer`."""

    def cards(self, known: Catalog) -> Sequence[ModelCard]:
        """The models that it offers beside those that `known` has for it, without asking anybody:
        what the settings or its own package name."""
        ...

    def readiness(self, card: ModelCard) -> Readiness:
        """Whether `card` can run there now. Takes seconds at most: no model is loaded, and a server
        that does not answer is not ready."""
        ...


class Renderer(Backend, Protocol):
    """A backend that renders in this process."""

    def render(
        self, take: Take, card: ModelCard, inputs: Inputs, report: Callable[[Progress], None]
    ) -> Rendered:
        """Render `take`. Raises KinoloomError; what `report` raises passes through."""
        ...


@dataclass(frozen=True)
class Order:
    """A take that is to be made elsewhere.

    `key` is ours, a lower-case UUID that no other order has; where a service knows such a thing
    (idempotency key, prompt id, metadata) it gets it, so that the order can be found again.
    `inputs` are PNG files by the names of `Inputs` (``image``, ``last_image``, ``references.0``),
    the clip's size but for references. `audio` is whether sound is wanted. `notify` is where a
    service may call when it is done, None where it cannot reach us.
    """

    key: str
    take: Take
    inputs: Mapping[str, Path] = field(default_factory=dict)
    audio: bool = False
    notify: str | None = None


@dataclass(frozen=True)
class Ticket:
    """What finds a submitted order again, from any process and after any restart.

    `endpoint` is which of several servers or regions has it; `data` is JSON and small, and holds no
    secret. `cost` is what the service says it will charge, in the currency of the card's price.
    """

    remote_id: str
    endpoint: str = ""
    data: Mapping[str, Any] = field(default_factory=dict)
    cost: Decimal | None = None


RemoteState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


@dataclass(frozen=True)
class RemoteStatus:
    """How far an order is.

    `progress` is 0 to 1 where the service says it; `detail` its own word or place in a queue, for
    people; `preview` a JPEG. `error` belongs to `failed`. `charged` is what it cost, where the
    service says so or is known to charge nothing; None: not known. `prompt` is the words as the
    service used them, where it changed them and says so.
    """

    state: RemoteState
    progress: float | None = None
    step: int = 0
    steps: int = 0
    detail: str = ""
    preview: bytes | None = None
    error: KinoloomError | None = None
    charged: Decimal | None = None
    prompt: str | None = None


@dataclass(frozen=True)
class Fetched:
    """A finished order's video as the service made it, whole and checked to be a video's length of
    bytes; nobody has opened it yet. `versions` say what made it, `notes` what the user should know.
    """

    video: Path
    versions: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class RemoteBackend(Backend, Protocol):
    """A backend that has others make the clip. Threads may share it.

    Every method raises KinoloomError of the kind that fits; `backends.remote` helps with that.
    Only `submit` may cost anything, and only `submit` is never repeated by itself.
    """

    poll_seconds: float
    """How long to wait between two looks."""

    def submit(self, order: Order, card: ModelCard) -> Ticket:
        """Hand in an order, in one call that is made once.

        Raises Uncertain when it may have been accepted and nobody answered so; any other error
        says that it was not accepted.
        """
        ...

    def find(self, order: Order, card: ModelCard) -> Ticket | None:
        """The ticket of an order that was sent and not answered; None: it certainly never arrived.

        Raises Uncertain where the service cannot be asked that.
        """
        ...

    def poll(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """How far an order is. Raises NotFound when the service does not know it any more."""
        ...

    def fetch(self, ticket: Ticket, card: ModelCard, folder: Path) -> Fetched:
        """Download a finished order's video into `folder`; may be repeated."""
        ...

    def cancel(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """Stop an order as far as the service can; what it is then, which may be `succeeded`."""
        ...
