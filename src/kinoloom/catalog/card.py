"""What is known about a model, so that it can be planned for and run without code of its own?

A `ModelCard` is data, one YAML file a model. The planner reads its rules (sizes, frames, steps),
the backend reads how to call it (source, pipelines, schedule). A field that is not listed here is
a mistake in the card, and the loader says so.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self, TypeVar

from pydantic import Field, field_validator, model_validator

from kinoloom.catalog.remote import Price, Remote
from kinoloom.catalog.section import Scalar, Section, Text
from kinoloom.catalog.source import Source
from kinoloom.catalog.speed import Acceleration, Memory, Preset, PresetName, Scheduler
from kinoloom.request import Task
from kinoloom.request_checks import MAX_FPS, MAX_FRAMES, MAX_GUIDANCE, MAX_SIDE, MAX_STEPS, MIN_SIDE

InputName = Literal["image", "last_image", "video", "mask", "references", "keyframes"]
Side = Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE)]
Size = tuple[Side, Side]
FrameCount = Annotated[int, Field(ge=1, le=MAX_FRAMES)]
StepCount = Annotated[int, Field(ge=0, le=MAX_STEPS)]

TASK_INPUTS: Mapping[Task, frozenset[InputName]] = {
    "t2v": frozenset(),
    "i2v": frozenset({"image"}),
    "flf2v": frozenset({"image", "last_image"}),
    "extend": frozenset({"video"}),
    "inpaint": frozenset({"video", "mask"}),
    "r2v": frozenset({"references"}),
}
"""The media that each task must be given."""

OPTIONAL_INPUTS: Mapping[Task, frozenset[InputName]] = {
    "t2v": frozenset(),
    "i2v": frozenset({"references", "keyframes"}),
    "flf2v": frozenset({"references", "keyframes"}),
    "extend": frozenset({"keyframes"}),
    "inpaint": frozenset({"references"}),
    "r2v": frozenset(),
}
"""The media that a model may take beside them."""


_P = TypeVar("_P", bound=Section)


def _ordered(part: _P, *names: str) -> _P:
    values: Sequence[float] = [getattr(part, name) for name in names]
    if any(not math.isfinite(v) for v in values) or list(values) != sorted(values):
        raise ValueError("needs " + " <= ".join(names))
    return part


class SizeRule(Section):
    """Which sizes the model makes, in pixels.

    `native` are the sizes it was trained on. With `only_native` nothing else is allowed; otherwise
    each side may be any multiple of `multiple_of` from `minimum` to `maximum`.
    """

    multiple_of: int = Field(ge=1, le=256)
    minimum: Side
    maximum: Side
    native: list[Size] = Field(min_length=1)
    default: Size
    only_native: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.minimum > self.maximum:
            raise ValueError("minimum is above maximum")
        if -(-self.minimum // self.multiple_of) * self.multiple_of > self.maximum:
            raise ValueError("no multiple of multiple_of lies between minimum and maximum")
        for size in (*self.native, self.default):
            if not self._on_grid(size):
                raise ValueError(
                    f"{size[0]}x{size[1]} has a side that is not a multiple of {self.multiple_of}"
                    f" from {self.minimum} to {self.maximum}"
                )
        if not self.allows(self.default):
            raise ValueError("the default is not a native size")
        return self

    def _on_grid(self, size: Size) -> bool:
        return all(
            self.minimum <= side <= self.maximum and side % self.multiple_of == 0 for side in size
        )

    def allows(self, size: Size) -> bool:
        """Whether the model may be asked for this size (width, height)."""
        return size in self.native if self.only_native else self._on_grid(size)


class FrameRule(Section):
    """Which frame counts the model makes: ``multiple * n + offset`` within bounds."""

    multiple: int = Field(ge=1, le=1024)
    offset: int = Field(ge=0, le=1024)
    minimum: FrameCount
    maximum: FrameCount
    default: FrameCount

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for name in ("minimum", "maximum", "default"):
            value = getattr(self, name)
            if value < self.offset or (value - self.offset) % self.multiple:
                raise ValueError(f"{name} {value} is not {self.multiple}n+{self.offset}")
        if not self.minimum <= self.default <= self.maximum:
            raise ValueError("needs minimum <= default <= maximum")
        return self

    def allows(self, frames: int) -> bool:
        """Whether the model may be asked for this many frames."""
        return (
            self.minimum <= frames <= self.maximum
            and frames >= self.offset
            and (frames - self.offset) % self.multiple == 0
        )


class Pipeline(Section):
    """How one task is called: a diffusers pipeline class, its inputs and its fixed arguments.

    Of a model elsewhere `class` is what its backend calls it by: an endpoint, a graph. `frames` is
    the rule of this task where it is not the model's.

    `inputs` says which parameter carries which input. Where several inputs share a parameter
    (LTX's `conditions`), or a parameter wants more than the bare media, the family's adapter packs
    them.
    """

    class_name: str = Field(alias="class", pattern=r"^[A-Za-z]\w*$")
    inputs: dict[InputName, str] = {}
    arguments: dict[str, Scalar | list[Scalar]] = {}
    frames: FrameRule | None = None


class FpsRule(Section):
    """Frames a second that the model was trained for."""

    default: float = Field(ge=1, le=MAX_FPS)
    minimum: float = Field(ge=1, le=MAX_FPS)
    maximum: float = Field(ge=1, le=MAX_FPS)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        return _ordered(self, "minimum", "default", "maximum")


class StepRule(Section):
    """Denoising steps: what is possible, and what each tier takes.

    All are 0 for a model elsewhere that is not asked for a number of steps.
    """

    default: StepCount
    minimum: StepCount
    maximum: StepCount
    preview: StepCount
    standard: StepCount
    premium: StepCount

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        _ordered(self, "minimum", "default", "maximum")
        return _ordered(self, "minimum", "preview", "standard", "premium", "maximum")


class GuidanceRule(Section):
    """Classifier-free guidance scale; 1 or less means a single pass a step.

    With `embedded` the scale is an input that the model was taught, and no second pass is made.
    """

    default: float = Field(ge=0, le=MAX_GUIDANCE)
    minimum: float = Field(ge=0, le=MAX_GUIDANCE)
    maximum: float = Field(ge=0, le=MAX_GUIDANCE)
    embedded: bool = False

    def passes(self, scale: float) -> int:
        """Passes through the model that a step takes: with the prompt, and perhaps without it."""
        return 2 if scale > 1 and not self.embedded else 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        return _ordered(self, "minimum", "default", "maximum")


class Schedule(Section):
    """Explicit timesteps in place of the scheduler's own.

    With n steps and t_i = 1 - i/n for i = 0..n-1, `linear` gives sigma_i = t_i and `shifted`
    sigma_i = shift * t_i / (1 + (shift - 1) * t_i) (Esser et al. 2024, "Scaling Rectified Flow
    Transformers", section 5.3.2).
    """

    kind: Literal["linear", "shifted"]
    shift: float = Field(default=1.0, gt=0, le=100)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kind == "linear" and self.shift != 1.0:
            raise ValueError("a shift belongs to the kind 'shifted'")
        return self

    def sigmas(self, steps: int) -> list[float]:
        """The noise levels of `steps` steps, from 1 downwards; the final 0 is not included."""
        ramp = [1 - i / steps for i in range(steps)]
        return [self.shift * t / (1 + (self.shift - 1) * t) for t in ramp]


class Timing(Section):
    """How long the model took once, for estimates until this machine has its own figures.

    `seconds_per_step` holds for the size and frames in `at` at the card's default guidance;
    `overhead` is everything else of a render: encoding the prompt, decoding, writing.
    """

    seconds_per_step: float = Field(gt=0)
    at: tuple[Side, Side, FrameCount]
    overhead: float = Field(default=0.0, ge=0)
    machine: Text
    date: datetime.date


class Vocabulary(Section):
    """The words of a model that knows only a few.

    `groups` maps a plain name to words or phrases; `ignored` are function words that do no harm;
    `says` tells the user in a sentence what the model's world is.
    """

    groups: dict[str, list[Text]] = Field(min_length=1)
    ignored: list[Text] = []
    says: Text


class Licence(Section):
    """The licence of the weights; `territory` says where it does not hold, if anywhere."""

    id: Text
    url: str = Field(pattern=r"^https?://\S+$")
    territory: Text = "worldwide"
    gated: bool = False
    """Whether the repository wants a signed-in user who agreed to its terms."""


class Extend(Section):
    """How a video is continued: how many of its last frames the model is shown.

    `chains` is whether the segments of a film go on from them too; else from the last one alone,
    where that joins better or drifts less.
    """

    context_frames: FrameCount
    chains: bool = True


class ModelCard(Section):
    """A model: what it can do, within which rules, and how it is run.

    `experts` names the transformers of a model that has several, each with words in the names of
    LoRA files that are made for it alone. `retirement` is the day after which nobody offers it any
    more, `successor` the card to use then. `same_as` is the card of the same weights on the local
    backend. `standing` orders models for `auto` by how good their clips look, 0 to 100: a judgement
    of ours from what their users say, not a measurement.

    A model elsewhere has `remote` and perhaps a `price`: "free" where nothing is paid, None where
    it is not known. What it does not let anybody choose (steps, guidance) it may leave out.
    """

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=100)
    title: Text
    family: str = Field(pattern=r"^[a-z0-9][a-z0-9-]*$")
    summary: Text
    backend: str = Field(pattern=r"^[a-z][a-z0-9_-]*$", max_length=40)
    adapter: str = Field(default="", pattern=r"^([a-z][a-z0-9_]*)?$")
    source: Source
    pipelines: dict[Task, Pipeline] = Field(min_length=1)
    schedule: Schedule | None = None
    scheduler: Scheduler | None = None
    sizes: SizeRule
    frames: FrameRule
    fps: FpsRule
    steps: StepRule = StepRule(default=0, minimum=0, maximum=0, preview=0, standard=0, premium=0)
    guidance: GuidanceRule = GuidanceRule(default=0, minimum=0, maximum=0)
    negative: bool
    extend: Extend | None = None
    shift: float | None = Field(default=None, gt=0, le=100)
    audio: bool = False
    presets: dict[PresetName, Preset] = {}
    acceleration: Acceleration = Acceleration()
    experts: dict[Text, list[Text]] = {}
    timing: Timing | None = None
    memory: Memory | None = None
    vocabulary: Vocabulary | None = None
    licence: Licence
    retirement: datetime.date | None = None
    successor: Text | None = None
    same_as: Text | None = None
    standing: int = Field(default=0, ge=0, le=100)
    remote: Remote | None = None
    price: Price | Literal["free"] | None = None
    unverified: list[Text] = []
    notes: list[Text] = []
    suggests: list[Text] = []

    @property
    def tasks(self) -> tuple[Task, ...]:
        """What the model can do: the tasks that it has a pipeline for."""
        return tuple(self.pipelines)

    def frame_rule(self, task: Task) -> FrameRule:
        """Which frame counts the model makes for one of its tasks."""
        return self.pipelines[task].frames or self.frames

    @field_validator("pipelines")
    @classmethod
    def _inputs_match(cls, pipelines: dict[Task, Pipeline]) -> dict[Task, Pipeline]:
        for task, pipeline in pipelines.items():
            needed, given = TASK_INPUTS[task], set(pipeline.inputs)
            if not needed <= given <= needed | OPTIONAL_INPUTS[task]:
                wanted = ", ".join(sorted(needed)) or "none"
                found = ", ".join(sorted(given)) or "none"
                more = ", ".join(sorted(OPTIONAL_INPUTS[task]))
                also = f" (and may take {more})" if more else ""
                raise ValueError(f"{task} takes the inputs: {wanted}{also}; the card maps: {found}")
        return pipelines

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if ("extend" in self.pipelines) != (self.extend is not None):
            raise ValueError("a pipeline for extend and the section `extend` belong together")
        if self.extend is not None:
            context = self.extend.context_frames
            if not self.frames.allows(context) or context >= self.frames.maximum:
                raise ValueError(
                    f"extend.context_frames {context} must be a frame count the model makes,"
                    " below its maximum"
                )
        if self.backend == "local":
            if not self.adapter or self.steps.minimum < 1:
                raise ValueError("a model of the local backend needs an adapter and steps")
            if self.remote is not None or self.price is not None:
                raise ValueError("a model of the local backend is not elsewhere and costs nothing")
        elif self.remote is not None and self.source.service is None:
            raise ValueError("a model elsewhere needs the name it has there: source.service")
        moving = {"i2v", "flf2v"} & set(self.pipelines)
        if moving and self.frames.maximum < 2:
            raise ValueError(f"a model that makes single frames cannot do {', '.join(moving)}")
        return self
