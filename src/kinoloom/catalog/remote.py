"""What is known about a model that runs elsewhere, beside what is known about every model?"""

from __future__ import annotations

import datetime
from decimal import Decimal
from typing import Literal

from pydantic import Field, model_validator

from kinoloom.catalog.section import Scalar, Section, Text

Audio = Literal["never", "always", "optional"]


class Rate(Section):
    """What a second of video, or a clip, costs under some conditions.

    `up_to` is the longest that a picture's shorter side may be, in pixels; `audio` whether it holds
    with sound or without; None: either.
    """

    amount: Decimal = Field(ge=0, max_digits=12, decimal_places=6)
    per: Literal["second", "clip"]
    up_to: int | None = Field(default=None, ge=1)
    audio: bool | None = None

    def holds(self, size: tuple[int, int], audio: bool) -> bool:
        """Whether this is the rate of clips of a size in pixels, with sound or without."""
        fits = self.up_to is None or min(size) <= self.up_to
        return fits and self.audio in (None, audio)


class Price(Section):
    """A service's prices: the first rate that holds is the one; where none does, it is unknown.

    `verified` is whether the service itself says so, and not somebody else.
    """

    currency: str = Field(default="USD", pattern=r"^[A-Z]{3}$")
    rates: list[Rate] = Field(min_length=1)
    source: str = Field(pattern=r"^https?://\S+$")
    date: datetime.date
    verified: bool = True

    def of_clip(self, size: tuple[int, int], seconds: float, audio: bool) -> Decimal | None:
        """What a clip costs, rounded up to a millionth; None when no rate holds."""
        for rate in self.rates:
            if rate.holds(size, audio):
                amount = rate.amount * (Decimal(repr(seconds)) if rate.per == "second" else 1)
                return amount.quantize(Decimal("0.000001"), rounding="ROUND_CEILING")
        return None


class Remote(Section):
    """How a model elsewhere differs from one that runs here.

    Fields:
        audio: whether the video has sound: never, always, or as asked.
        prompt_limit: characters of a prompt, counted as UTF-16 units as services do.
        rewording: whether the service lets words that it rejected be tried again in other words.
        files: on a ComfyUI server, the files that the graph loads: for each role the names that
            will do, the best first.
        nodes: on a ComfyUI server, the classes of nodes that the graph needs.
        settings: what only the backend's own code understands.
    """

    audio: Audio = "never"
    prompt_limit: int | None = Field(default=None, ge=1)
    rewording: bool = True
    files: dict[Text, list[Text]] = {}
    nodes: list[Text] = []
    settings: dict[Text, Scalar | list[Scalar]] = {}

    @model_validator(mode="after")
    def _named(self) -> Remote:
        if any(not names for names in self.files.values()):
            raise ValueError("each role of `files` needs at least one name")
        return self
