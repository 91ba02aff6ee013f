"""Which LoRA does a user ask for, and how strongly is it to be applied?

As text it is a name, the path of a file, or a repository with or without the name of a file in it,
and a weight behind a colon: ``film-look``, ``film-look:0.8``, ``./looks/film.safetensors:0.8``,
``owner/repo:film.safetensors:0.8``.
"""

from __future__ import annotations

import math
import re
from typing import Self

from pydantic import BaseModel, ConfigDict, Field

from kinoloom.errors import InvalidRequest, Problem

MIN_WEIGHT, MAX_WEIGHT = -2.0, 2.0
MAX_NAME = 1000
ALLOWED = (
    "NAME, PATH or OWNER/REPO[:FILE], each with or without :WEIGHT"
    f" from {MIN_WEIGHT:g} to {MAX_WEIGHT:g}"
)

_WEIGHT = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.IGNORECASE)


class LoraRequest(BaseModel):
    """A LoRA as the user names it; where it is, and whether it fits the model, is found out later.

    A `name` with a file within a repository is written ``owner/repo:file``.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(min_length=1, max_length=MAX_NAME)
    weight: float = Field(default=1.0, ge=MIN_WEIGHT, le=MAX_WEIGHT, allow_inf_nan=False)

    @classmethod
    def parse(cls, text: str) -> Self:
        """The LoRA that a text names; InvalidRequest when it names none."""
        name, colon, last = text.strip().rpartition(":")
        weight = 1.0
        if colon and _WEIGHT.fullmatch(last.strip()):
            weight = float(last)
        else:
            name = text.strip()
        nearest = None
        if math.isfinite(weight) and name:
            nearest = min(max(weight, MIN_WEIGHT), MAX_WEIGHT)
        fine = name.strip(": ") and name.isprintable() and len(name) <= MAX_NAME
        if not fine or nearest != weight:
            shown = None if nearest is None or not fine else f"{name}:{nearest:g}"
            raise InvalidRequest([Problem("loras", text[:100], ALLOWED, shown)])
        return cls(name=name, weight=weight)

    def __str__(self) -> str:
        return self.name if self.weight == 1 else f"{self.name}:{self.weight:g}"
