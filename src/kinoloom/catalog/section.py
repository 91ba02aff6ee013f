"""What do all sections of a card have in common? They do not change, and know every field."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Scalar = bool | int | float | str
Text = Annotated[str, Field(min_length=1, max_length=1000)]
REPO = r"^[\w.-]+/[\w.-]+$"
"""A Hugging Face repository: owner and name."""


class Section(BaseModel):
    """A part of a card."""

    model_config = ConfigDict(frozen=True, extra="forbid", serialize_by_alias=True)
