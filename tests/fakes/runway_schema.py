"""Which bodies does Runway take? As the types in its own SDK say, and not as our cards do."""

from __future__ import annotations

import typing
from functools import cache
from typing import Any, Literal, get_args, get_origin

import typing_extensions
from runwayml.types.image_to_video_create_params import ImageToVideoCreateParams
from runwayml.types.text_to_video_create_params import TextToVideoCreateParams

MAX_DATA_URI = 5_000_000
# What the descriptions in the SDK say of lengths, in seconds, and of prompts, in UTF-16 units.
LENGTHS = {"gen4.5": (2, 10), "gemini_omni_flash": (3, 10), "gemini_omni_flash_1.1": (3, 10)}
PROMPTS = {
    **dict.fromkeys(("gen4.5", "gen4_turbo", "veo3.1", "veo3.1_fast"), 1000),
    "happyhorse_1_0": 2500,
    **dict.fromkeys(("seedance2", "seedance2_fast", "seedance2_mini"), 3500),
    "seedance2_5": 15000,
}


def mistakes(endpoint: str, body: dict[str, Any]) -> list[str]:
    """What Runway would refuse in a body for an endpoint; empty for a good one."""
    models = _models(endpoint)
    model = body.get("model")
    if model not in models:
        return [f"model: {model!r} is not one of {sorted(models)}"]
    fields, required = models[model]
    found = [f"{name}: Unrecognized key" for name in body if name not in fields]
    found += [f"{name}: Required" for name in sorted(required - body.keys())]
    found += [
        f"{name}: {value!r:.60} is not valid"
        for name, value in body.items()
        if name in fields and not _fits(value, fields[name])
    ]
    return found + _documented(model, body)


def _documented(model: str, body: dict[str, Any]) -> list[str]:
    """Rules that the SDK has in words only."""
    found = []
    low, high = LENGTHS.get(model, (1, 60))
    if isinstance(body.get("duration"), int) and not low <= body["duration"] <= high:
        found.append(f"duration: must be from {low} to {high}")
    prompt = str(body.get("promptText", "."))
    if not prompt or len(prompt.encode("utf-16-le")) // 2 > PROMPTS.get(model, 5000):
        found.append("promptText: too long or empty")
    pictures = body.get("promptImage", [])
    entries = [{"uri": pictures}] if isinstance(pictures, str) else pictures
    positions = [entry.get("position") for entry in entries]
    if "last" in positions and "first" not in positions:
        found.append("promptImage: a last frame needs a first frame")
    for entry in entries:
        uri = str(entry.get("uri", ""))
        if uri.startswith("data:image/") and len(uri) <= MAX_DATA_URI:
            continue
        if not uri.startswith(("runway://", "https://")):
            found.append("promptImage: the image is too large or no image")
    return found


@cache
def _models(endpoint: str) -> dict[str, tuple[dict[str, Any], frozenset[str]]]:
    """By model the types of its fields by their names on the wire, and the required ones."""
    union = {"text_to_video": TextToVideoCreateParams, "image_to_video": ImageToVideoCreateParams}
    found = {}
    for variant in get_args(union[endpoint]):
        fields, required = _fields(variant)
        found[get_args(_bare(fields["model"]))[0]] = (fields, required)
    return found


def _fields(variant: Any) -> tuple[dict[str, Any], frozenset[str]]:
    hints = typing_extensions.get_type_hints(variant, include_extras=True)
    names = {name: _alias(hint, name) for name, hint in hints.items()}
    # Postponed annotations hide `Required` from the class, but not from its hints.
    needed = {
        names[n] for n, hint in hints.items() if get_origin(hint) is typing_extensions.Required
    }
    return {names[n]: hint for n, hint in hints.items()}, frozenset(needed)


def _alias(hint: Any, name: str) -> str:
    while get_origin(hint) is typing_extensions.Required:
        hint = get_args(hint)[0]
    if get_origin(hint) is typing.Annotated:
        return next((i.alias for i in get_args(hint)[1:] if getattr(i, "alias", None)), name)
    return name


def _bare(hint: Any) -> Any:
    while get_origin(hint) in (typing_extensions.Required, typing.Annotated):
        hint = get_args(hint)[0]
    return hint


def _fits(value: Any, hint: Any) -> bool:
    hint = _bare(hint)
    origin = get_origin(hint)
    if hint is object:
        return True
    if origin is typing.Union:
        return any(_fits(value, part) for part in get_args(hint))
    if origin is Literal:
        return value in get_args(hint) and not isinstance(value, bool)
    if typing_extensions.is_typeddict(hint):
        fields, required = _fields(hint)
        return (
            isinstance(value, dict)
            and required <= value.keys() <= fields.keys()
            and all(_fits(value[name], fields[name]) for name in value)
        )
    if origin is not None:  # Iterable[...]
        return isinstance(value, list) and all(_fits(v, get_args(hint)[0]) for v in value)
    if hint in (int, float):
        kinds = int if hint is int else int | float
        return isinstance(value, kinds) and not isinstance(value, bool)
    return isinstance(value, hint)
