"""Which size does a model's own word for one mean?"""

from __future__ import annotations

import re
from typing import Any

_NAMED_ASPECTS = {"landscape": 16 / 9, "portrait": 9 / 16, "square": 1.0}
_NAMED_SIDES = {"2k": 1440, "4k": 2160}


def aspect_of(word: Any) -> float | None:
    """The width over the height in ``16:9`` or ``portrait``; None for what names none."""
    found = re.fullmatch(r"(\d{1,4})[:x/](\d{1,4})", str(word).strip().lower())
    if found is None:
        return _NAMED_ASPECTS.get(str(word).strip().lower())
    width, height = int(found[1]), int(found[2])
    return width / height if width and height else None


def short_side_of(word: Any) -> int | None:
    """The shorter side in pixels in ``720p``, ``4k`` or 1080; None for what names none."""
    text = str(word).strip().lower()
    found = re.fullmatch(r"(\d{3,4})p?", text)
    return int(found[1]) if found else _NAMED_SIDES.get(text)


def pixels_of(word: Any) -> tuple[int, int] | None:
    """Width and height in ``1280x720`` or ``1280*720``; None for what names none."""
    found = re.fullmatch(r"(\d{2,5})\s*[x*×]\s*(\d{2,5})", str(word).strip().lower())
    return (int(found[1]), int(found[2])) if found else None
