"""How is an order written into a model's own form?

Every number of the order goes into the field that takes it, in the type and the values that the
field allows. What the order says and no field takes is a mistake that is named, unless the card
says that the model goes without it (`remote.settings.without`): nothing is left out silently, and
nothing that costs more (sound) is left to a default.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kinoloom.backends.base import Order, Take
from kinoloom.backends.replicate.pictures import aspect_of, pixels_of, short_side_of
from kinoloom.backends.replicate.schema import Field, named
from kinoloom.catalog.card import ModelCard
from kinoloom.errors import InvalidRequest, Problem

_ASPECT_TOLERANCE = 0.05
"""A clip of 854x480 is one of 16:9 for a service."""
_SIDE_TOLERANCE = 0.05
"""One of 1248x704 is called 720p."""


@dataclass
class Form:
    """What is sent: the values by field, and the files of the fields that take any."""

    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path | list[Path]] = field(default_factory=dict)


def fill(order: Order, card: ModelCard, fields: Mapping[str, Field]) -> Form:
    """The form of a model with these `fields` for `order`.

    Raises InvalidRequest that lists everything that the model does not take, with the nearest
    value that it does.
    """
    writer = _Writer(order, card, fields)
    writer.words()
    writer.pictures()
    writer.length()
    writer.size()
    writer.sampling()
    writer.sound()
    writer.fixed()
    writer.rest()
    if writer.problems:
        raise InvalidRequest(
            writer.problems,
            message=f"{card.title} on Replicate does not take this.",
            hints=[
                "Ask for the nearest value, or use another model.",
                f"Its form: https://replicate.com/{(card.source.service or '').partition(':')[0]}",
            ],
        )
    return writer.form


def fit(place: Field, value: Any) -> Any:
    """`value` as the field takes it: of its type, one of its choices, within its limits.

    Raises ValueError with what is allowed.
    """
    if place.choices:
        for choice in place.choices:
            if _same(choice, value):
                return choice
        raise ValueError("one of " + ", ".join(map(str, place.choices)))
    if isinstance(value, bool) or place.kind == "boolean":
        if place.kind not in ("boolean", "") or not isinstance(value, bool):
            raise ValueError(f"of the type {place.kind}")
        return value
    if isinstance(value, int | float):
        if place.kind == "string":
            return f"{value:g}" if value == int(value) else str(value)
        if place.kind == "integer" and value != int(value):
            raise ValueError("a whole number")
        low, high = place.minimum, place.maximum
        if (low is not None and value < low) or (high is not None and value > high):
            raise ValueError(_limits(low, high))
        return int(value) if place.kind == "integer" else value
    if place.kind not in ("string", "array", ""):
        raise ValueError(f"of the type {place.kind}")
    return value


class _Writer:
    """Fills a form part by part, and collects what does not fit."""

    def __init__(self, order: Order, card: ModelCard, fields: Mapping[str, Field]) -> None:
        self.form = Form()
        self.problems: list[Problem] = []
        self._order = order
        self._take: Take = order.take
        self._card = card
        self._fields = fields
        self._pipeline = card.pipelines[order.take.task]
        without = card.remote.settings.get("without", []) if card.remote is not None else []
        self._without = {str(w) for w in without} if isinstance(without, list) else {str(without)}

    def words(self) -> None:
        """The prompt, and what the clip should not show."""
        self._put("prompt", self._take.prompt)
        if self._take.negative:
            self._put("negative", self._take.negative)

    def pictures(self) -> None:
        """The files, each in the field that the card names for it."""
        groups: dict[str, list[Path]] = {}
        for name in sorted(self._order.inputs, key=_by_number):
            groups.setdefault(name.partition(".")[0], []).append(self._order.inputs[name])
        for name, files in groups.items():
            given: Mapping[str, str] = {str(k): v for k, v in self._pipeline.inputs.items()}
            place = self._fields.get(given.get(name, ""))
            if place is None and name in ("image", "last_image", "references"):
                place = named(name, self._fields)
            if place is None:
                self._miss(name, f"{len(files)} file(s)")
            elif place.kind == "array":
                if place.most is not None and len(files) > place.most:
                    self._wrong(name, len(files), f"at most {place.most} files", place.most)
                self.form.files[place.name] = files
            elif len(files) > 1:
                self._wrong(name, len(files), "one file", 1)
            else:
                self.form.files[place.name] = files[0]

    def length(self) -> None:
        """Frames, seconds, frames a second: whichever of them the model is asked for."""
        take, card = self._take, self._card
        frames, seconds = named("frames", self._fields), named("duration", self._fields)
        if frames is not None:
            self._write(frames, "frames", take.frames)
        elif seconds is not None:
            wanted = take.frames / take.fps
            self._write(seconds, "duration", int(wanted) if wanted == int(wanted) else wanted)
        elif card.frames.minimum != card.frames.maximum:
            self._miss("duration", f"{take.frames / take.fps:g} s")
        rate = named("fps", self._fields)
        if rate is not None:
            self._write(rate, "fps", int(take.fps) if take.fps == int(take.fps) else take.fps)
        elif card.fps.minimum != card.fps.maximum:
            self._miss("fps", take.fps)

    def size(self) -> None:
        """The size, as two sides, as one word, or as a shape and a number of lines."""
        wide, high = named("width", self._fields), named("height", self._fields)
        whole = named("size", self._fields)
        if wide is not None and high is not None:
            self._write(wide, "width", self._take.width)
            self._write(high, "height", self._take.height)
        elif whole is not None and any(pixels_of(c) for c in whole.choices):
            self._choose(whole, "size", self._size, pixels_of, _far_sizes, 0.0)
        else:
            self._shape()
            self._lines()

    def sampling(self) -> None:
        """Seed, steps, guidance and shift."""
        take, card = self._take, self._card
        self._put("seed", take.seed)
        if take.steps:
            self._put("steps", take.steps)
        if card.guidance.maximum > 0:
            self._put("guidance", take.guidance)
        if take.shift is not None:
            self._put("shift", take.shift)
        if take.loras:
            self._miss("loras", len(take.loras))

    def sound(self) -> None:
        """Whether sound is made; said in any case, since it may cost."""
        place = named("audio", self._fields)
        if place is not None:
            self._write(place, "audio", self._order.audio)
            return
        kind = self._card.remote.audio if self._card.remote is not None else "never"
        if self._order.audio and kind != "always":
            self._miss("audio", True)

    def fixed(self) -> None:
        """What the card says is sent with every order of this task."""
        for name, value in self._pipeline.arguments.items():
            place = self._fields.get(name)
            if place is None:
                allowed = f"an argument that the model has (the card of {self._card.id} names it)"
                self.problems.append(Problem(name, value, allowed))
            else:
                self._write(place, name, value)

    def rest(self) -> None:
        """Whatever else the model cannot do without."""
        sent = {*self.form.values, *self.form.files}
        for place in self._fields.values():
            wrong = {str(p.field) for p in self.problems}
            if place.required and place.name not in sent and place.name not in wrong:
                allowed = "something, which the model needs: name it in the card's `arguments`"
                self.problems.append(Problem(place.name, None, allowed))

    @property
    def _size(self) -> tuple[int, int]:
        return self._take.width, self._take.height

    def _shape(self) -> None:
        shapes = {round(w / h, 3) for w, h in self._card.sizes.native}
        place = named("aspect", self._fields)
        if place is None:
            from_picture = "image" in self._order.inputs
            if len(shapes) > 1 and not from_picture:
                self._miss("aspect_ratio", f"{self._take.width}x{self._take.height}")
            return
        ratio = self._take.width / self._take.height
        self._choose(place, "aspect_ratio", ratio, aspect_of, _far_ratios, _ASPECT_TOLERANCE)

    def _lines(self) -> None:
        lines = {min(size) for size in self._card.sizes.native}
        place = named("resolution", self._fields)
        if place is None or not any(short_side_of(c) for c in place.choices):
            if len(lines) > 1:
                self._miss("resolution", f"{min(self._size)}p")
            return
        wanted = min(self._size)
        self._choose(place, "resolution", wanted, short_side_of, _far_ratios, _SIDE_TOLERANCE)

    def _choose(
        self,
        place: Field,
        what: str,
        wanted: Any,
        read: Callable[[Any], Any],
        apart: Callable[[Any, Any], float],
        tolerance: float,
    ) -> None:
        """The nearest of a field's choices, if it is near enough to be what was asked for."""
        known = [(apart(found, wanted), c) for c in place.choices if (found := read(c)) is not None]
        if not known:
            self._miss(what, wanted)
            return
        distance, nearest = min(known, key=lambda pair: pair[0])
        if distance > tolerance:
            shown = f"{self._take.width}x{self._take.height}"
            allowed = "one of " + ", ".join(str(c) for _, c in known)
            self._wrong(what, shown, allowed, nearest)
            return
        self.form.values[place.name] = nearest

    def _put(self, what: str, value: Any) -> None:
        place = named(what, self._fields)
        if place is None:
            self._miss(what, value)
        else:
            self._write(place, what, value)

    def _write(self, place: Field, what: str, value: Any) -> None:
        try:
            self.form.values[place.name] = fit(place, value)
        except ValueError as error:
            self._wrong(what, value, str(error), _nearest(place, value))

    def _miss(self, what: str, value: Any) -> None:
        if what not in self._without:
            self.problems.append(Problem(what, value, "nothing: the model has no field for it"))

    def _wrong(self, what: str, value: Any, allowed: str, nearest: Any = None) -> None:
        self.problems.append(Problem(what, value, allowed, nearest))


def _same(choice: Any, value: Any) -> bool:
    """Whether a choice is the value: 5 is also "5" and "5s", but true is not 1."""
    if isinstance(choice, bool) or isinstance(value, bool):
        return choice is value
    if isinstance(value, int | float):
        number = _as_number(choice)
        return number is not None and number == value
    return bool(choice == value)


def _as_number(choice: Any) -> float | None:
    if isinstance(choice, int | float):
        return choice
    text = str(choice).strip().lower().removesuffix("seconds").removesuffix("s").strip()
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _nearest(place: Field, value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    if place.choices:
        numbers = [(abs(n - value), c) for c in place.choices if (n := _as_number(c)) is not None]
        return min(numbers, key=lambda pair: pair[0])[1] if numbers else None
    low = -math.inf if place.minimum is None else place.minimum
    high = math.inf if place.maximum is None else place.maximum
    inside = min(max(value, low), high)
    return round(inside) if place.kind == "integer" else inside


def _limits(low: float | None, high: float | None) -> str:
    if low is None:
        return f"at most {high:g}"
    return f"at least {low:g}" if high is None else f"{low:g} to {high:g}"


def _far_ratios(found: float, wanted: float) -> float:
    return abs(math.log(found / wanted))


def _far_sizes(found: tuple[int, int], wanted: tuple[int, int]) -> float:
    return float(abs(found[0] - wanted[0]) + abs(found[1] - wanted[1]))


def _by_number(name: str) -> tuple[str, int]:
    base, _, number = name.partition(".")
    return base, int(number) if number.isdecimal() else 0
