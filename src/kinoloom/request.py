"""What does a user ask for, and is it something that can be asked for at all?

A `VideoRequest` holds the user's words before any model is known. Its limits are those of the
program (a frame count that is a number, a size that is a picture), not those of a model: what a
model can do is the planner's question, and the planner adjusts where this module refuses.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kinoloom import request_checks as check
from kinoloom.errors import InvalidRequest, Problem
from kinoloom.lora_request import LoraRequest
from kinoloom.request_checks import (
    MAX_CANDIDATES,
    MAX_DURATION,
    MAX_FPS,
    MAX_FRAMES,
    MAX_GUIDANCE,
    MAX_MONEY,
    MAX_PROMPT,
    MAX_SEED,
    MAX_SIDE,
    MAX_STEPS,
    MIN_DURATION,
    MIN_FPS,
    MIN_SIDE,
)

Task = Literal["t2v", "i2v", "flf2v", "extend", "inpaint", "r2v"]
Tier = Literal["preview", "standard", "premium", "auto"]
Format = Literal["mp4", "webm", "gif", "png"]
Level = Literal["lossless", "balanced", "fast"]
Caching = Literal["use", "bypass"]


class VideoRequest(BaseModel):
    """One clip as the user asks for it.

    Whatever is None is chosen by the planner. Construction checks everything and raises
    `InvalidRequest` with every mistake at once. The JSON of a request
    (``model_dump(mode="json")``) builds the same request again.

    Fields:
        prompt: up to 2000 characters; may be empty only with an image or a video.
        negative: what should not be seen; only models with guidance use it.
        model, backend: ids; None lets the planner choose, and "auto" among all that there are.
        tier: how much work to spend; `auto` fits the steps to the prompt.
        size: width and height in pixels; also "512x320" or "720p".
        frames or duration: the length as frames or as seconds, not both.
        fps: frames a second of the finished clip, 1 to 120.
        steps: denoising steps; 0 fits them to the prompt, None lets the tier decide.
        guidance: how strongly the prompt is followed, 0 to 50.
        seed: same seed, same frames; None draws one.
        image, last_image, video, mask, references, keyframes: inputs; they decide the `task`. The
            mask is white where the video is to be made anew; references show what appears in the
            clip; a keyframe is a frame counted from 0 and the picture that the clip shows there.
        loras: LoRAs with weights; also as text such as "film-look:0.8".
        preset: a few-step preset of the model.
        acceleration: what may change the frames for speed: nothing, a little, more.
        candidates: takes to make, of which the best by quality is kept; the first has `seed`.
        audio: whether the clip has sound, where the model lets one choose; None: the cheaper.
        max_cost: the most that the clip may cost, in the currency of the model's price.
        unknown_price: the explicit yes to a model whose price nobody here knows.
        fallback, reword: whether another backend is tried when one fails, and other words when a
            service rejects them; None: as the settings say.
        cache: `bypass` renders anew what was rendered before.
        format, output: what the result is written as, and where.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompt: str = Field(default="", max_length=MAX_PROMPT)
    negative: str | None = Field(default=None, max_length=MAX_PROMPT)
    model: str | None = None
    backend: str | None = None
    tier: Tier = "auto"
    size: (
        tuple[
            Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE)],
            Annotated[int, Field(ge=MIN_SIDE, le=MAX_SIDE)],
        ]
        | None
    ) = None
    frames: int | None = Field(default=None, ge=1, le=MAX_FRAMES)
    duration: float | None = Field(default=None, ge=MIN_DURATION, le=MAX_DURATION)
    fps: float | None = Field(default=None, ge=MIN_FPS, le=MAX_FPS)
    steps: int | None = Field(default=None, ge=0, le=MAX_STEPS)
    guidance: float | None = Field(default=None, ge=0, le=MAX_GUIDANCE)
    seed: int | None = Field(default=None, ge=0, le=MAX_SEED)
    image: Path | None = None
    last_image: Path | None = None
    video: Path | None = None
    mask: Path | None = None
    references: tuple[Path, ...] = ()
    keyframes: tuple[tuple[int, Path], ...] = ()
    loras: tuple[LoraRequest, ...] = ()
    preset: str | None = None
    acceleration: Level = "lossless"
    candidates: int = Field(default=1, ge=1, le=MAX_CANDIDATES)
    audio: bool | None = None
    max_cost: Decimal | None = Field(default=None, ge=0, le=MAX_MONEY)
    unknown_price: bool = False
    fallback: bool | None = None
    reword: bool | None = None
    cache: Caching = "use"
    format: Format = "mp4"
    output: Path | None = None

    @property
    def task(self) -> Task:
        """What is asked for, as it follows from the inputs given."""
        if self.video is not None:
            return "extend" if self.mask is None else "inpaint"
        if self.last_image is not None:
            return "flf2v"
        if self.image is not None or self.keyframes:
            return "i2v"
        return "r2v" if self.references else "t2v"

    @classmethod
    def checked(cls, **values: Any) -> VideoRequest:
        """The request with these values.

        Raises InvalidRequest: every mistake at once, each with the field, the value, what is
        allowed and the nearest valid value.
        """
        return cls(**values)

    @model_validator(mode="before")
    @classmethod
    def _check(cls, values: Any) -> Any:
        # pydantic alone would report a model-wide rule only after every field is right. The
        # error passes through pydantic untouched because it is not a ValueError.
        if not isinstance(values, Mapping):
            return values
        clean, problems = _examine(values)
        if problems:
            raise InvalidRequest(problems)
        return clean


def _examine(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The values in their proper types, and every mistake among them."""
    clean: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in values.items():
        test = _CHECKS.get(name)
        if test is None:
            shown = str(check.shown(str(name)))
            close = difflib.get_close_matches(shown, list(_CHECKS), n=1, cutoff=0.5)
            allowed = "one of the fields " + ", ".join(_CHECKS)
            problems.append(
                Problem(shown, check.shown(value), allowed, close[0] if close else None)
            )
            continue
        if value is None and name in _OPTIONAL:
            clean[name] = None
            continue
        empty = isinstance(value, list | tuple | Mapping) and not value
        if name in _SEVERAL and (value is None or empty):
            continue
        try:
            clean[name] = test(value)
        except check.Wrong as wrong:
            problems.append(Problem(name, check.shown(value), wrong.allowed, wrong.nearest))
    problems.extend(_conflicts(clean, values))
    return clean, problems


def _conflicts(clean: Mapping[str, Any], values: Mapping[str, Any]) -> list[Problem]:
    """The mistakes that lie between fields; a field that is wrong in itself still counts."""
    problems = []
    given = {n for n, v in values.items() if v is not None and not (n in _SEVERAL and not v)}
    prompt = clean.get("prompt", None if "prompt" in values else "")
    if prompt == "" and not given & {"image", "video", "keyframes"}:
        allowed = f"1 to {MAX_PROMPT} characters, or an image or a video to start from"
        problems.append(Problem("prompt", prompt, allowed))
    if {"frames", "duration"} <= given:
        allowed = "either frames or duration, not both"
        problems.append(Problem("duration", check.shown(values["duration"]), allowed))
    if "video" in given:
        what = "made anew where the mask is white" if "mask" in given else "continued from its end"
        for name in ("image", "last_image"):
            if name in given:
                allowed = f"nothing beside a video, which is {what}"
                problems.append(Problem(name, check.shown(values[name]), allowed))
    elif "mask" in given:
        allowed = "a mask only together with a video"
        problems.append(Problem("mask", check.shown(values["mask"]), allowed))
    if "video" not in given and "last_image" in given and "image" not in given:
        allowed = "a last image only together with a first one in `image`"
        problems.append(Problem("last_image", check.shown(values["last_image"]), allowed))
    return problems


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "prompt": check.text,
    "negative": check.text,
    "model": check.name,
    "backend": check.name,
    "tier": check.choice(get_args(Tier)),
    "size": check.size,
    "frames": check.whole(1, MAX_FRAMES),
    "duration": check.number(MIN_DURATION, MAX_DURATION, " seconds"),
    "fps": check.number(MIN_FPS, MAX_FPS),
    "steps": check.whole(0, MAX_STEPS),
    "guidance": check.number(0.0, MAX_GUIDANCE),
    "seed": check.whole(0, MAX_SEED),
    "image": check.path,
    "last_image": check.path,
    "video": check.path,
    "mask": check.path,
    "references": check.paths,
    "keyframes": check.keyframes,
    "loras": check.loras,
    "preset": check.name,
    "acceleration": check.choice(get_args(Level)),
    "candidates": check.whole(1, MAX_CANDIDATES),
    "audio": check.yes_or_no,
    "max_cost": check.money,
    "unknown_price": check.yes_or_no,
    "fallback": check.yes_or_no,
    "reword": check.yes_or_no,
    "cache": check.choice(get_args(Caching)),
    "format": check.choice(get_args(Format)),
    "output": check.path,
}
_SEVERAL = frozenset({"references", "keyframes", "loras"})
_OPTIONAL = (
    frozenset(_CHECKS)
    - _SEVERAL
    - {"prompt", "tier", "format", "acceleration", "candidates", "cache", "unknown_price"}
)
