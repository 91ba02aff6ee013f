"""What does a model need of a machine, and what makes it faster without spoiling it?"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from kinoloom.catalog.section import Scalar, Section, Text
from kinoloom.catalog.source import Part
from kinoloom.request_checks import MAX_GUIDANCE, MAX_STEPS

CacheKind = Literal["first_block", "mag", "taylor_seer", "pyramid"]
PresetName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$", max_length=40)]


class Memory(Section):
    """Bytes of each component's weights as they are stored, and of the work with them.

    `working` is what denoising needs beside the weights, and `decoding` the VAE without tiles, both
    in bytes for one pixel of one frame of the clip, in half precision. `float32` names the
    components whose files hold 4 bytes a number (the others' hold 2), and `tile` is the side in
    pixels of a tile that the VAE decodes. `window` is the most frames that are denoised at a time,
    where a long clip is made window by window.
    """

    components: dict[str, Annotated[int, Field(gt=0)]] = Field(min_length=1)
    working: float | None = Field(default=None, gt=0)
    decoding: float | None = Field(default=None, gt=0)
    float32: list[Text] = []
    window: int | None = Field(default=None, ge=1)
    tile: int = Field(default=256, ge=16, le=4096)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if foreign := [name for name in self.float32 if name not in self.components]:
            raise ValueError(f"float32 names what is no component: {', '.join(foreign)}")
        return self

    @property
    def total(self) -> int:
        """Bytes of all components together."""
        return sum(self.components.values())


class StepCache(Section):
    """A cache between denoising steps, with the settings that work for this model's transformer.

    `settings` are the fields of diffusers' configuration of that kind.
    """

    kind: CacheKind
    settings: dict[str, Scalar | list[Scalar]] = {}


class Acceleration(Section):
    """What may make this model faster: nothing that is not named here is ever used.

    `attention` are diffusers' names of attention backends that work for it, best first; `compile`
    is regional compilation of its repeated blocks; `fp8` is storing its transformer in 8 bits.
    `parallel` is whether several processes can divide its transformer's attention among them.
    `balanced` and `fast` are the step caches of those levels; `lossless` has none.
    """

    attention: list[Text] = []
    compile: bool = False
    fp8: bool = False
    parallel: bool = False
    balanced: StepCache | None = None
    fast: StepCache | None = None


class Scheduler(Section):
    """A diffusers scheduler in place of the one that lies with the weights.

    `settings` are fields of its configuration; the others are those of the one it replaces.
    """

    class_name: str = Field(alias="class", pattern=r"^[A-Z]\w*Scheduler$")
    settings: dict[str, Scalar | list[Scalar]] = {}


class PresetLora(Section):
    """A LoRA that a preset loads: where it is, and how strongly it is applied.

    `component` is the transformer that it changes, for models that have two.
    """

    source: Part
    weight: float = Field(default=1.0, ge=-2, le=2)
    component: Text = "transformer"


class Preset(Section):
    """A few-step way to run the model: what belongs together is pinned together."""

    title: Text
    steps: int = Field(ge=1, le=MAX_STEPS)
    guidance: float = Field(ge=0, le=MAX_GUIDANCE)
    shift: float | None = Field(default=None, gt=0, le=100)
    timesteps: list[Annotated[int, Field(ge=0, le=1000)]] | None = None
    scheduler: Scheduler | None = None
    loras: list[PresetLora] = []
    licence: Text | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.timesteps is not None and len(self.timesteps) != self.steps:
            raise ValueError("there must be as many timesteps as steps")
        return self
