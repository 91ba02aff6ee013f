"""What does a user ask for, and is it something that can be asked for at all?

A `VideoRequest` holds the user's words before any model is known. Its limits are those of the
program (a frame count that is a number, a size that is a picture), not those of a model: what a
model can do is the planner's question, and the planner adjusts where this module refuses.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
import unicodedata
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from kinoloom.errors import InvalidRequest, Problem

Task = Literal["t2v", "i2v", "flf2v", "extend"]
Tier = Literal["preview", "standard", "premium", "auto"]
Format = Literal["mp4", "webm", "gif", "png"]

MAX_PROMPT = 2000
"""Characters of a prompt. Text encoders read 77 to 512 tokens; the longest of them hold about
2000 characters of English, and what follows is cut off unseen."""
MIN_SIDE, MAX_SIDE = 16, 8192
MAX_FRAMES = 100_000
MIN_DURATION, MAX_DURATION = 0.01, 3600.0
MIN_FPS, MAX_FPS = 1.0, 120.0
MAX_STEPS = 200
MAX_GUIDANCE = 50.0
MAX_SEED = 2**63 - 1
"""The largest seed that torch.Generator.manual_seed takes as a positive number."""

SIZE_NAMES: Mapping[str, tuple[int, int]] = {
    "240p": (426, 240),
    "360p": (640, 360),
    "480p": (848, 480),
    "540p": (960, 540),
    "720p": (1280, 720),
    "1080p": (1920, 1080),
}
"""Names of landscape 16:9 sizes, width and height in pixels."""

_SIZE_ALLOWED = (
    f"WIDTHxHEIGHT with sides from {MIN_SIDE} to {MAX_SIDE}, or one of {', '.join(SIZE_NAMES)}"
)
_NAME_LENGTH = 200


class VideoRequest(BaseModel):
    """One clip as the user asks for it.

    Whatever is None is chosen by the planner. Construction checks everything and raises
    `InvalidRequest` with every mistake at once. The JSON of a request
    (``model_dump(mode="json")``) builds the same request again.

    Fields:
        prompt: up to 2000 characters; may be empty only with an image or a video.
        negative: what should not be seen; only models with guidance use it.
        model, backend: ids; None lets the planner choose.
        tier: how much work to spend; `auto` fits the steps to the prompt.
        size: width and height in pixels; also "512x320" or "720p".
        frames or duration: the length as frames or as seconds, not both.
        fps: frames a second of the finished clip, 1 to 120.
        steps: denoising steps; 0 fits them to the prompt, None lets the tier decide.
        guidance: how strongly the prompt is followed, 0 to 50.
        seed: same seed, same frames; None draws one.
        image, last_image, video: inputs; they decide the `task`.
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
    format: Format = "mp4"
    output: Path | None = None

    @property
    def task(self) -> Task:
        """What is asked for, as it follows from the inputs given."""
        if self.video is not None:
            return "extend"
        if self.last_image is not None:
            return "flf2v"
        return "t2v" if self.image is None else "i2v"

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


class _Wrong(Exception):
    """A field's value is not allowed; carries what is, and the nearest valid value."""

    def __init__(self, allowed: str, nearest: Any = None) -> None:
        super().__init__(allowed)
        self.allowed = allowed
        self.nearest = nearest


def _examine(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[Problem]]:
    """The values in their proper types, and every mistake among them."""
    clean: dict[str, Any] = {}
    problems: list[Problem] = []
    for name, value in values.items():
        check = _CHECKS.get(name)
        if check is None:
            close = difflib.get_close_matches(str(name), list(_CHECKS), n=1, cutoff=0.5)
            allowed = "one of the fields " + ", ".join(_CHECKS)
            problems.append(Problem(str(name), _shown(value), allowed, close[0] if close else None))
            continue
        if value is None and name in _OPTIONAL:
            clean[name] = None
            continue
        try:
            clean[name] = check(value)
        except _Wrong as wrong:
            problems.append(Problem(name, _shown(value), wrong.allowed, wrong.nearest))
    problems.extend(_conflicts(clean, values))
    return clean, problems


def _conflicts(clean: Mapping[str, Any], values: Mapping[str, Any]) -> list[Problem]:
    """The mistakes that lie between fields; a field that is wrong in itself still counts."""
    problems = []
    given = {name for name, value in values.items() if value is not None}
    prompt = clean.get("prompt", None if "prompt" in values else "")
    if prompt == "" and not given & {"image", "video"}:
        allowed = f"1 to {MAX_PROMPT} characters, or an image or a video to start from"
        problems.append(Problem("prompt", prompt, allowed))
    if {"frames", "duration"} <= given:
        allowed = "either frames or duration, not both"
        problems.append(Problem("duration", _shown(values["duration"]), allowed))
    if "video" in given:
        for name in ("image", "last_image"):
            if name in given:
                allowed = "nothing beside a video, which is continued from its own last frames"
                problems.append(Problem(name, _shown(values[name]), allowed))
    elif "last_image" in given and "image" not in given:
        allowed = "a last image only together with a first one in `image`"
        problems.append(Problem("last_image", _shown(values["last_image"]), allowed))
    return problems


def _shown(value: Any) -> Any:
    """A value as an error may repeat it: short, and something that JSON can hold."""
    if isinstance(value, int) and value.bit_length() > 64:
        return f"a number of {value.bit_length()} bits"  # Python may refuse to print it
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    text = value if isinstance(value, str) else str(value)
    text = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
    return text if len(text) <= 48 else f"{text[:40]}... ({len(text)} characters)"


def _text(value: Any) -> str:
    """A prompt with its line breaks as spaces."""
    if not isinstance(value, str):
        raise _Wrong(f"text of at most {MAX_PROMPT} characters")
    text = re.sub(r"[\t\r\n]+", " ", value).strip()
    if len(text) > MAX_PROMPT:
        over = len(text) - MAX_PROMPT
        raise _Wrong(
            f"at most {MAX_PROMPT} characters; this has {len(text)}"
            f" ({len(text.split())} words), {over} too many"
        )
    # Cc: control characters. Cs: half of a surrogate pair, which no file or encoder can hold.
    bad = sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cs")})
    if bad:
        found = ", ".join(f"U+{ord(c):04X}" for c in bad[:5])
        cleaned = "".join(c for c in text if c not in bad)
        raise _Wrong(f"text without control characters; found {found}", _shown(cleaned))
    return text


def _name(value: Any) -> str:
    """The id of a model or a backend; whether it exists is the planner's question."""
    allowed = f"a name of 1 to {_NAME_LENGTH} printable characters"
    if not isinstance(value, str):
        raise _Wrong(allowed)
    name = value.strip()
    if not name or len(name) > _NAME_LENGTH or not name.isprintable():
        raise _Wrong(allowed)
    return name


def _choice(choices: tuple[str, ...]) -> Callable[[Any], str]:
    def check(value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return value
        close = difflib.get_close_matches(str(value)[:32].lower(), choices, n=1, cutoff=0.4)
        raise _Wrong("one of " + ", ".join(choices), close[0] if close else None)

    return check


def _as_number(value: Any) -> float | None:
    """A finite number, or None for what is none; text that reads as one is a suggestion only."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value) if isinstance(value, Real | str) else math.nan
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _whole(low: int, high: int) -> Callable[[Any], int]:
    def check(value: Any) -> int:
        allowed = f"a whole number from {low} to {high}"
        number = _as_number(value)
        if number is None:
            # An integer beyond what a float holds is still a number, and has a nearest one.
            if isinstance(value, int) and not isinstance(value, bool):
                raise _Wrong(allowed, high if value > 0 else low)
            raise _Wrong(allowed)
        try:
            exact = operator.index(value)  # a seed near 2**63 would lose digits as a float
        except TypeError:
            exact = round(number)
        nearest = min(max(exact, low), high)
        if isinstance(value, str) or nearest != value:
            raise _Wrong(allowed, nearest)
        return int(nearest)

    return check


def _number(low: float, high: float, unit: str = "") -> Callable[[Any], float]:
    def check(value: Any) -> float:
        allowed = f"a number from {low:g} to {high:g}{unit}"
        number = _as_number(value)
        if number is None:
            raise _Wrong(allowed)
        nearest = min(max(number, low), high)
        if isinstance(value, str) or nearest != number:
            raise _Wrong(allowed, nearest)
        return nearest

    return check


def _size(value: Any) -> tuple[int, int]:
    """Width and height from a pair, from "512x320" or from a name such as "720p"."""
    sides: list[Any]
    if isinstance(value, str):
        text = value.strip().lower()
        if text in SIZE_NAMES:
            return SIZE_NAMES[text]
        match = re.fullmatch(r"(-?\d{1,9}) ?[x\u00d7*, ] ?(-?\d{1,9})", text)
        if match is None:
            close = difflib.get_close_matches(text[:32], list(SIZE_NAMES), n=1, cutoff=0.5)
            raise _Wrong(_SIZE_ALLOWED, close[0] if close else None)
        sides = [int(match[1]), int(match[2])]
    elif isinstance(value, list | tuple) and len(value) == 2:
        sides = list(value)
    else:
        raise _Wrong(_SIZE_ALLOWED)
    side = _whole(MIN_SIDE, MAX_SIDE)
    try:
        return side(sides[0]), side(sides[1])
    except _Wrong:
        numbers = [_as_number(s) for s in sides]
        if None in numbers:
            raise _Wrong(_SIZE_ALLOWED) from None
        width, height = (min(max(round(n or 0), MIN_SIDE), MAX_SIDE) for n in numbers)
        raise _Wrong(_SIZE_ALLOWED, f"{width}x{height}") from None


def _path(value: Any) -> str:
    """A path as text, which pydantic makes a Path of also where it reads JSON.

    Whether something is there is found out when it is opened.
    """
    allowed = "the path of a file or folder"
    if not isinstance(value, str | Path):
        raise _Wrong(allowed)
    text = str(value)
    # Path("") is ".", which nobody means as a picture or as a result.
    if text in ("", ".") or not text.strip() or "\0" in text:
        raise _Wrong(allowed)
    return text


_CHECKS: Mapping[str, Callable[[Any], Any]] = {
    "prompt": _text,
    "negative": _text,
    "model": _name,
    "backend": _name,
    "tier": _choice(get_args(Tier)),
    "size": _size,
    "frames": _whole(1, MAX_FRAMES),
    "duration": _number(MIN_DURATION, MAX_DURATION, " seconds"),
    "fps": _number(MIN_FPS, MAX_FPS),
    "steps": _whole(0, MAX_STEPS),
    "guidance": _number(0.0, MAX_GUIDANCE),
    "seed": _whole(0, MAX_SEED),
    "image": _path,
    "last_image": _path,
    "video": _path,
    "format": _choice(get_args(Format)),
    "output": _path,
}
_OPTIONAL = frozenset(_CHECKS) - {"prompt", "tier", "format"}
