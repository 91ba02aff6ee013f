"""How does Google name a take's size, length and seed, and which pictures go with it?"""

from __future__ import annotations

from pathlib import Path

from kinoloom.backends.base import Order, Take
from kinoloom.catalog.card import ModelCard
from kinoloom.errors import InvalidMedia, InvalidRequest, Problem

_RESOLUTIONS = {360: "360p", 720: "720p", 1080: "1080p", 2160: "4k"}
"""By the shorter side in pixels."""


def resolution(take: Take) -> str:
    """Such as ``720p``."""
    return _RESOLUTIONS[min(take.width, take.height)]


def aspect_ratio(take: Take) -> str:
    """``16:9`` or ``9:16``."""
    return "16:9" if take.width >= take.height else "9:16"


def seconds(take: Take) -> int:
    """Whole seconds, as the cards' frame rules make them."""
    return round(take.frames / take.fps)


def seed(take: Take, bits: int) -> int:
    """The seed that fits into so many bits: a larger one is cut to its last bits."""
    return take.seed % (1 << bits)


def check(order: Order, card: ModelCard) -> None:
    """Raise InvalidRequest for what the planner does not settle: the number of references, which
    the pipeline's argument `most_references` bounds."""
    told = card.pipelines[order.take.task].arguments
    problems: list[Problem] = []
    count = len(references(order))
    limit = int(str(told.get("most_references", 0)))
    if limit and count > limit:
        problems.append(
            Problem("references", f"{count} pictures", f"at most {limit} with {card.title}")
        )
    if problems:
        raise InvalidRequest(problems, message=f"{card.title} cannot make this clip.")


def references(order: Order) -> list[Path]:
    """The reference pictures, in their order."""
    names = [name for name in order.inputs if name.startswith("references.")]
    return [order.inputs[name] for name in sorted(names, key=lambda n: int(n.partition(".")[2]))]


def pictures(order: Order) -> list[Path]:
    """Every picture of an order in the order that Google wants: first, last, references."""
    ends = [order.inputs[name] for name in ("image", "last_image") if name in order.inputs]
    return ends + references(order)


def picture(file: Path, order: Order, card: ModelCard, limit: int) -> bytes:
    """A picture's bytes. Raises InvalidMedia for more than `limit` of them."""
    size = file.stat().st_size
    if size > limit:
        smaller = [
            s for s in card.sizes.native if min(s) < min(order.take.width, order.take.height)
        ]
        if file in references(order) or not smaller:
            hint = "Give it smaller, or with less detail."
        else:
            fits = max(smaller, key=lambda s: (s[0] * s[1], s))
            hint = f"Ask for a smaller clip, as its pictures are made to fit: {fits[0]}x{fits[1]}."
        raise InvalidMedia(
            f"A picture has {size} bytes as PNG; {card.title} takes {limit}.",
            cause="Google's own limit.",
            hints=[hint],
        )
    return file.read_bytes()
