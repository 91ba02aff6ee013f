"""Is a value of a request something that can be asked for, and if not, what is nearest?

Every check takes what a user gave and returns it in its proper type, or raises `Wrong` with what is
allowed. Text that reads as a number is a suggestion only.
"""

from __future__ import annotations

import difflib
import math
import operator
import re
import unicodedata
from collections.abc import Callable, Mapping
from decimal import Decimal
from numbers import Real
from pathlib import Path
from typing import Any

from kinoloom.errors import InvalidRequest
from kinoloom.lora_request import LoraRequest

MAX_PROMPT = 2000
"""Characters of a prompt. Text encoders read 77 to 512 tokens; the longest of them hold about
2000 characters of English, and what follows is cut off unseen."""
MIN_SIDE, MAX_SIDE = 16, 8192
MAX_FRAMES = 100_000
MIN_DURATION, MAX_DURATION = 0.01, 3600.0
MIN_FPS, MAX_FPS = 1.0, 120.0
MAX_STEPS = 200
MAX_GUIDANCE = 50.0
MAX_CANDIDATES = 16
MAX_REFERENCES = 8
MAX_KEYFRAMES = 32
MAX_LORAS = 8
MAX_MONEY = Decimal(1_000_000)
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


class Wrong(Exception):
    """A field's value is not allowed; carries what is, and the nearest valid value."""

    def __init__(self, allowed: str, nearest: Any = None) -> None:
        super().__init__(allowed)
        self.allowed = allowed
        self.nearest = nearest


def shown(value: Any) -> Any:
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


def text(value: Any) -> str:
    """A prompt with its line breaks as spaces."""
    if not isinstance(value, str):
        raise Wrong(f"text of at most {MAX_PROMPT} characters")
    text = re.sub(r"[\t\r\n]+", " ", value).strip()
    if len(text) > MAX_PROMPT:
        over = len(text) - MAX_PROMPT
        raise Wrong(
            f"at most {MAX_PROMPT} characters; this has {len(text)}"
            f" ({len(text.split())} words), {over} too many"
        )
    # Cc: control characters. Cs: half of a surrogate pair, which no file or encoder can hold.
    bad = sorted({c for c in text if unicodedata.category(c) in ("Cc", "Cs")})
    if bad:
        found = ", ".join(f"U+{ord(c):04X}" for c in bad[:5])
        cleaned = "".join(c for c in text if c not in bad)
        raise Wrong(f"text without control characters; found {found}", shown(cleaned))
    return text


def name(value: Any) -> str:
    """The id of a model or a backend; whether it exists is the planner's question."""
    allowed = f"a name of 1 to {_NAME_LENGTH} printable characters"
    if not isinstance(value, str):
        raise Wrong(allowed)
    name = value.strip()
    if not name or len(name) > _NAME_LENGTH or not name.isprintable():
        raise Wrong(allowed)
    return name


def choice(choices: tuple[str, ...]) -> Callable[[Any], str]:
    """A check for one of several words."""

    def check(value: Any) -> str:
        if isinstance(value, str) and value in choices:
            return value
        close = difflib.get_close_matches(str(value)[:32].lower(), choices, n=1, cutoff=0.4)
        raise Wrong("one of " + ", ".join(choices), close[0] if close else None)

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


def whole(low: int, high: int) -> Callable[[Any], int]:
    """A check for whole numbers within bounds."""

    def check(value: Any) -> int:
        allowed = f"a whole number from {low} to {high}"
        number = _as_number(value)
        if number is None:
            # An integer beyond what a float holds is still a number, and has a nearest one.
            if isinstance(value, int) and not isinstance(value, bool):
                raise Wrong(allowed, high if value > 0 else low)
            raise Wrong(allowed)
        try:
            exact = operator.index(value)  # a seed near 2**63 would lose digits as a float
        except TypeError:
            exact = round(number)
        nearest = min(max(exact, low), high)
        if isinstance(value, str) or nearest != value:
            raise Wrong(allowed, nearest)
        return int(nearest)

    return check


def number(low: float, high: float, unit: str = "") -> Callable[[Any], float]:
    """A check for numbers within bounds."""

    def check(value: Any) -> float:
        allowed = f"a number from {low:g} to {high:g}{unit}"
        number = _as_number(value)
        if number is None:
            raise Wrong(allowed)
        nearest = min(max(number, low), high)
        if isinstance(value, str) or nearest != number:
            raise Wrong(allowed, nearest)
        return nearest

    return check


def yes_or_no(value: Any) -> bool:
    """True or false, nothing that only reads as one."""
    if isinstance(value, bool):
        return value
    near = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    raise Wrong("true or false", near.get(str(value)[:8].lower()))


def money(value: Any) -> Decimal:
    """An amount of money from a number or its text, exact to a millionth."""
    allowed = f"an amount from 0 to {MAX_MONEY}, such as 2.50"
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        raise Wrong(allowed)
    try:
        amount = Decimal(str(value)[:40])
        exact = amount.quantize(Decimal("0.000001"))
    except ArithmeticError:
        raise Wrong(allowed) from None
    if not exact.is_finite() or not 0 <= exact <= MAX_MONEY:
        raise Wrong(allowed)
    # A float is no exact decimal, and nobody means its last digits.
    if exact != amount and not isinstance(value, float):
        raise Wrong("an amount with at most six decimals", str(exact))
    return Decimal(f"{exact:f}".rstrip("0").rstrip("."))


def size(value: Any) -> tuple[int, int]:
    """Width and height from a pair, from "512x320" or from a name such as "720p"."""
    sides: list[Any]
    if isinstance(value, str):
        text = value.strip().lower()
        if text in SIZE_NAMES:
            return SIZE_NAMES[text]
        match = re.fullmatch(r"(-?\d{1,9}) ?[x\u00d7*, ] ?(-?\d{1,9})", text)
        if match is None:
            close = difflib.get_close_matches(text[:32], list(SIZE_NAMES), n=1, cutoff=0.5)
            raise Wrong(_SIZE_ALLOWED, close[0] if close else None)
        sides = [int(match[1]), int(match[2])]
    elif isinstance(value, list | tuple) and len(value) == 2:
        sides = list(value)
    else:
        raise Wrong(_SIZE_ALLOWED)
    side = whole(MIN_SIDE, MAX_SIDE)
    try:
        return side(sides[0]), side(sides[1])
    except Wrong:
        numbers = [_as_number(s) for s in sides]
        if None in numbers:
            raise Wrong(_SIZE_ALLOWED) from None
        width, height = (min(max(round(n or 0), MIN_SIDE), MAX_SIDE) for n in numbers)
        raise Wrong(_SIZE_ALLOWED, f"{width}x{height}") from None


def path(value: Any) -> str:
    """A path as text, which pydantic makes a Path of also where it reads JSON.

    Whether something is there is found out when it is opened.
    """
    allowed = "the path of a file or folder"
    if not isinstance(value, str | Path):
        raise Wrong(allowed)
    text = str(value)
    # Path("") is ".", which nobody means as a picture or as a result.
    if text in ("", ".") or not text.strip() or "\0" in text:
        raise Wrong(allowed)
    return text


def paths(value: Any) -> list[str]:
    """Several paths; one alone counts as a list of it."""
    values = [value] if isinstance(value, str | Path) else value
    allowed = f"a list of 1 to {MAX_REFERENCES} paths of pictures"
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= MAX_REFERENCES:
        raise Wrong(allowed)
    return [path(v) for v in values]


def keyframes(value: Any) -> list[tuple[int, str]]:
    """Pictures at frames: a mapping or pairs of frame and path, or texts such as "24=end.png"."""
    allowed = f"1 to {MAX_KEYFRAMES} of FRAME=PATH, each frame once, counted from 0"
    entries = list(value.items()) if isinstance(value, Mapping) else value
    if not isinstance(entries, list | tuple) or not 1 <= len(entries) <= MAX_KEYFRAMES:
        raise Wrong(allowed)
    found: dict[int, str] = {}
    for entry in entries:
        pair = entry.split("=", 1) if isinstance(entry, str) else entry
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise Wrong(allowed)
        index = pair[0].strip() if isinstance(pair[0], str) else pair[0]
        if isinstance(index, str) and index.isdecimal() and len(index) < 8:
            index = int(index)
        frame = whole(0, MAX_FRAMES - 1)(index)
        if frame in found:
            raise Wrong(allowed)
        found[frame] = path(pair[1])
    return sorted(found.items())


def loras(value: Any) -> list[dict[str, Any]]:
    """LoRAs as `LoraRequest`, its JSON, or text such as "film-look:0.8"."""
    values = [value] if isinstance(value, str | LoraRequest | Mapping) else value
    allowed = f"1 to {MAX_LORAS} of NAME, PATH or OWNER/REPO[:FILE], each with or without :WEIGHT"
    if not isinstance(values, list | tuple) or not 1 <= len(values) <= MAX_LORAS:
        raise Wrong(allowed)
    found = []
    for entry in values:
        try:
            parsed = (
                LoraRequest.parse(entry)
                if isinstance(entry, str)
                else LoraRequest.model_validate(entry)
            )
        except InvalidRequest as error:
            raise Wrong(error.problems[0].allowed, error.problems[0].nearest) from None
        except ValueError as error:
            raise Wrong(allowed) from error
        found.append(parsed.model_dump())
    return found
