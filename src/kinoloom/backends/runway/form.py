"""How is a take asked for in Runway's words?

Each model takes another set of fields, and says its sizes in another way. The card has all of it:
the endpoint of each task is its pipeline's class, and the pipeline's arguments are the fields that
say the size, with ``{width}``, ``{height}``, ``{tier}`` and ``{aspect}`` to be filled in.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from kinoloom.backends.base import Order
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.section import Scalar
from kinoloom.errors import InvalidRequest, Problem

_SEEDS = 2**32
"""Runway's seeds are 0 to 4294967295, says its reference."""

_TIER_PIXELS = {
    "480p": 854 * 480,
    "720p": 1280 * 720,
    "768p": 1366 * 768,
    "1080p": 1920 * 1080,
    "2k": 2560 * 1440,
}
"""What the names of resolutions stand for, in pixels of a 16:9 picture."""


def endpoint_of(card: ModelCard, order: Order) -> str:
    """The path of the call that a take's task needs."""
    return f"/v1/{card.pipelines[order.take.task].class_name}"


def form_of(card: ModelCard, order: Order, pictures: Mapping[str, str]) -> dict[str, Any]:
    """The JSON body for an order; `pictures` are the addresses of its inputs by their names.

    Raises InvalidRequest for a prompt that is longer than the model takes.
    """
    take, remote = order.take, card.remote
    assert remote is not None, "cards of this backend are remote"
    _check_prompt(take.prompt, remote.prompt_limit)
    size = _size_of(card, take.width, take.height)
    form: dict[str, Any] = {
        "model": card.source.service,
        "duration": round(take.frames / take.fps),
        **{
            name: value.format(**size) if isinstance(value, str) else value
            for name, value in card.pipelines[take.task].arguments.items()
        },
    }
    if take.prompt:
        form["promptText"] = take.prompt
    if take.negative and card.negative:
        form["negativePrompt"] = take.negative
    if remote.audio == "optional":
        form["audio"] = order.audio
    if remote.settings.get("seed"):
        form["seed"] = take.seed % _SEEDS
    if "image" in pictures:
        shown = [{"uri": pictures["image"], "position": "first"}]
        if "last_image" in pictures:
            shown.append({"uri": pictures["last_image"], "position": "last"})
        form["promptImage"] = shown
    return form


def _check_prompt(prompt: str, limit: int | None) -> None:
    length = len(prompt.encode("utf-16-le", "surrogatepass")) // 2
    if limit is not None and length > limit:
        raise InvalidRequest(
            [Problem("prompt", prompt, f"at most {limit} UTF-16 units; this has {length}")],
            hints=["Shorten the prompt, or choose a model that takes a longer one."],
        )


def _size_of(card: ModelCard, width: int, height: int) -> dict[str, str]:
    """A size in the ways that Runway's models name one.

    `tier` is the nearest resolution and `aspect` the nearest shape of those that the card lists.
    """
    assert card.remote is not None
    settings = card.remote.settings
    told = {"width": str(width), "height": str(height)}
    if tiers := _words(settings.get("tiers")):
        pixels = width * height
        told["tier"] = min(tiers, key=lambda t: abs(math.log(_TIER_PIXELS[t] / pixels)))
    if aspects := _words(settings.get("aspects")):
        told["aspect"] = min(aspects, key=lambda a: abs(math.log(_ratio(a) * height / width)))
    return told


def _words(value: Scalar | list[Scalar] | None) -> list[str]:
    return [str(v) for v in value] if isinstance(value, list) else []


def _ratio(aspect: str) -> float:
    across, _, down = aspect.partition(":")
    return int(across) / int(down)
