"""What exactly will run?

A `Plan` is a request with nothing left open: every number that decides the frames, every change
that was made to what the user asked and why. Executing a plan does just that. It is plain data;
its JSON (``model_dump(mode="json")``) builds the same plan again.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field

from kinoloom.backends.base import Speed
from kinoloom.catalog.speed import Scheduler
from kinoloom.planner.complexity import Complexity
from kinoloom.planner.cost import FREE, Cost
from kinoloom.planner.estimate import Estimate
from kinoloom.planner.inputs import Inputs
from kinoloom.planner.key import seeded_key
from kinoloom.planner.loras import PlannedLora
from kinoloom.planner.memory import MemoryPlan
from kinoloom.request import Task, Tier, VideoRequest


class Adjustment(BaseModel):
    """One thing that was changed: what was asked, what is used instead, and why."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    field: str
    asked: int | float | str
    used: int | float | str | None
    why: str

    def __str__(self) -> str:
        used = "nothing" if self.used is None else self.used
        return f"{self.field}: {self.asked} -> {used} ({self.why})"


class Alternative(BaseModel):
    """What is tried when the plan's own backend fails, and whether the user's consent covers it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: str
    model: str
    cost: Cost
    why: str


class Plan(BaseModel):
    """A request resolved to what exactly will run.

    Fields:
        request: what the user asked, unchanged.
        task, model, backend, device: what runs, and where.
        prompt, negative: the words as the model gets them; negative is "" for none.
        width, height: pixels. frames: of the finished clip. fps: frames a second.
        context_frames: for `extend`, how many of `frames` are the given video's last ones, which
            the clip begins with; 0 otherwise.
        steps, guidance, seed: of the sampler; shift, timesteps and scheduler where they are not
            the weights' own.
        preset: the few-step preset that pinned them. loras: what is loaded on top of the model.
        speed: what makes it faster. memory: where the weights will be, and the predicted peak.
        candidates: how many takes are made, with the seeds that follow `seed`.
        tier: as asked. complexity: of the prompt, with each factor's share.
        inputs: the given media as they were found, with their digests.
        remote: whether the backend works elsewhere; `steps` is 0 where it lets nobody choose them.
        audio: whether the clip is asked for with sound.
        cost: what all takes cost together. alternatives: what is tried when this fails, in order.
        estimate: seconds of rendering. weights_bytes: what the model's files hold, where known.
        adjustments, warnings, reasons: what was changed, what the user should know, why so.
        recipe: hash of everything that decides the frames but the seed.
        key: hash of recipe and seed; equal keys give equal clips.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    request: VideoRequest
    task: Task
    model: str
    backend: str
    device: str
    prompt: str
    negative: str
    width: int = Field(ge=1)
    height: int = Field(ge=1)
    frames: int = Field(ge=1)
    context_frames: int = Field(ge=0)
    fps: float = Field(gt=0)
    steps: int = Field(ge=0)
    guidance: float = Field(ge=0)
    seed: int = Field(ge=0)
    shift: float | None = None
    timesteps: tuple[int, ...] | None = None
    scheduler: Scheduler | None = None
    preset: str | None = None
    loras: tuple[PlannedLora, ...] = ()
    speed: Speed = Speed()
    memory: MemoryPlan | None = None
    candidates: int = Field(default=1, ge=1)
    tier: Tier
    complexity: Complexity
    inputs: Inputs
    remote: bool = False
    audio: bool = False
    cost: Cost = FREE
    alternatives: tuple[Alternative, ...] = ()
    estimate: Estimate
    weights_bytes: int | None
    adjustments: tuple[Adjustment, ...]
    warnings: tuple[str, ...]
    reasons: tuple[str, ...]
    recipe: str = Field(pattern=r"^[0-9a-f]{64}$")
    key: str = Field(pattern=r"^[0-9a-f]{64}$")

    def with_seed(self, seed: int) -> Plan:
        """The same plan for one take with another seed."""
        key = seeded_key(self.recipe, seed)
        return self.model_copy(update={"seed": seed, "key": key, "candidates": 1})

    @property
    def size(self) -> tuple[int, int]:
        """Width and height in pixels."""
        return self.width, self.height

    @property
    def seconds_of_video(self) -> float:
        """How long the clip plays."""
        return self.frames / self.fps

    @property
    def new_frames(self) -> int:
        """Frames that the model makes, without the ones it was given as context."""
        return self.frames - self.context_frames
