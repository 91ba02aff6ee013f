"""How does any video model of Replicate become a model of the user's?

Its input schema says which tasks it does, which sizes and lengths it takes, and by which names.
What a schema does not say (frames a second, the price, what a size is in pixels) is put down as
usual, and as unverified; the card is a file of the user's, to be corrected by hand.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from pydantic import ValidationError

from kinoloom.backends.replicate.backend import ReplicateBackend, document_of
from kinoloom.backends.replicate.paths import MODEL
from kinoloom.backends.replicate.pictures import aspect_of, pixels_of, short_side_of
from kinoloom.backends.replicate.schema import Field, fields_of, named
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest, ModelBroken, Problem
from kinoloom.request_checks import MAX_FRAMES
from kinoloom.weights.add import Added, card_file, write_card

PREFIX = "replicate:"
"""What a target of `kinoloom models add` begins with when it is one of Replicate's models."""

_FPS = 24
_SHORT_SIDE = 720
_ASPECT = 16 / 9
_MOST_SECONDS = 60
_MOST_NATIVE = 24
# They change the words or the frames behind the user's back, and may cost more.
_SWITCHED_OFF = frozenset({"prompt_optimizer", "interpolate_output", "enhance_prompt"})


def add(target: str, settings: Settings, catalog: Catalog, *, id_: str | None = None) -> Added:
    """Write a card for ``replicate:OWNER/NAME``, or one version of it (``:VERSION`` behind it).

    Raises InvalidRequest for a name or an id that cannot be used, NotAuthenticated without a token,
    ModelNotFound, and ModelBroken for a model that makes no video from words or a picture.
    """
    model = target.removeprefix(PREFIX)
    found = MODEL.fullmatch(model)
    if found is None:
        raise InvalidRequest([Problem("model", target, f"{PREFIX}OWNER/NAME")])
    name, file = card_file(f"replicate-{found[2]}", settings, catalog, id_=id_)
    api = ReplicateBackend(settings).api()
    service = model if found[3] else _pinned(model, api.read(f"/v1/models/{found[1]}/{found[2]}"))
    card = card_from_schema(service, document_of(api, service), name)
    write_card(file, card)
    hints = (
        f"its rules are in {file}; correct what is listed there as unverified",
        f'kinoloom generate "..." --model {name} --dry-run',
    )
    return Added(name, file, model.partition(":")[0], tuple(card["pipelines"]), hints)


def card_from_schema(model: str, document: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The card, with the id `name`, of the model whose OpenAPI `document` this is.

    `model` is its name there. Raises ModelBroken for a model that cannot make a clip from what a
    request says.
    """
    fields = fields_of(document, model)
    if named("prompt", fields) is None:
        raise ModelBroken(
            f"{model} takes no words.",
            cause="Its input schema has no field for a prompt.",
            hints=["Give a model that makes video from words, or from a picture and words."],
        )
    _check_output(model, document)
    guesses = ["the licence: look at the model's own page", "the price, which is not known"]
    pipelines = _pipelines(model, fields)
    fps = _rate(fields, guesses)
    card: dict[str, Any] = {
        "id": name,
        "title": model.partition(":")[0],
        "family": "replicate",
        "summary": "Your own model on Replicate; its rules are those of its input schema.",
        "backend": "replicate",
        "source": {"service": model},
        "pipelines": pipelines,
        "sizes": _sizes(fields, guesses),
        "frames": _frames(fields, fps["default"], guesses),
        "fps": fps,
        "negative": named("negative", fields) is not None,
        "licence": {"id": "unknown", "url": f"https://replicate.com/{model.partition(':')[0]}"},
        "remote": _remote(fields),
        "unverified": guesses,
    }
    steps, guidance = _steps(fields), _guidance(fields)
    card |= {"steps": steps} if steps else {}
    card |= {"guidance": guidance} if guidance else {}
    try:
        ModelCard.model_validate(card)  # what is written can be read
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise ModelBroken(
            f"What {model} says it takes makes no model card.",
            cause=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
            hints=["Write a card for it by hand."],
        ) from error
    plain: dict[str, Any] = json.loads(json.dumps(card))  # no part twice: YAML would refer to it
    return plain


def _pinned(model: str, answer: Mapping[str, Any]) -> str:
    """The name by which predictions are made: an official model has no versions, of another one
    the newest is kept."""
    version = answer.get("latest_version")
    identity = version.get("id") if isinstance(version, dict) else None
    official = answer.get("is_official") is True
    return model if official or not isinstance(identity, str) else f"{model}:{identity}"


def _check_output(model: str, document: Mapping[str, Any]) -> None:
    """Refuse a model that gives no file: it makes words or numbers."""
    components = document.get("components")
    schemas = components.get("schemas") if isinstance(components, dict) else None
    output = schemas.get("Output") if isinstance(schemas, dict) else None
    if isinstance(output, dict) and "uri" not in str(output) and "$ref" not in str(output):
        raise ModelBroken(
            f"{model} makes no video.",
            cause="Its output is no file.",
            hints=["Give another model."],
        )


def _pipelines(model: str, fields: Mapping[str, Field]) -> dict[str, Any]:
    first, last = named("image", fields), named("last_image", fields)
    several = named("references", fields)
    arguments = {f.name: False for f in fields.values() if f.name in _SWITCHED_OFF}
    call: dict[str, Any] = {"class": "predictions"} | (
        {"arguments": arguments} if arguments else {}
    )
    pipelines: dict[str, Any] = {}
    needed = {f.name for f in fields.values() if f.required and f.file}
    if not needed:
        pipelines["t2v"] = dict(call)
    if first is not None and needed <= {first.name}:
        pipelines["i2v"] = call | {"inputs": {"image": first.name}}
    if first is not None and last is not None and needed <= {first.name, last.name}:
        both = {"image": first.name, "last_image": last.name}
        pipelines["flf2v"] = call | {"inputs": both}
    if several is not None and several.kind == "array" and needed <= {several.name}:
        pipelines["r2v"] = call | {"inputs": {"references": several.name}}
    if not pipelines:
        raise ModelBroken(
            f"{model} needs more than words and pictures.",
            cause=f"It does not run without {', '.join(sorted(needed))}.",
            hints=["Write a card for it by hand."],
        )
    return pipelines


def _rate(fields: Mapping[str, Field], guesses: list[str]) -> dict[str, float]:
    place = named("fps", fields)
    if place is None:
        guesses.append(f"the frame rate: {_FPS} is assumed")
        return {"default": _FPS, "minimum": _FPS, "maximum": _FPS}
    numbers = [float(c) for c in place.choices if _is_number(c)]
    default = float(place.default) if _is_number(place.default) else (numbers or [_FPS])[0]
    low = min(numbers) if numbers else (place.minimum if place.minimum else default)
    high = max(numbers) if numbers else (place.maximum if place.maximum else default)
    low, high = max(1.0, low), min(120.0, high)
    return {"default": min(max(default, low), high), "minimum": low, "maximum": high}


def _frames(fields: Mapping[str, Field], fps: float, guesses: list[str]) -> dict[str, int]:
    """The lengths: counted in frames where the model counts so, else whole seconds of them."""
    count = named("frames", fields)
    if count is not None:
        numbers = sorted(int(c) for c in count.choices if _is_number(c))
        default = int(count.default) if _is_number(count.default) else (numbers or [81])[0]
        if numbers:
            return _rule(numbers, default)
        low = int(count.minimum) if count.minimum else default
        high = int(count.maximum) if count.maximum else default
        # Four frames become one latent, and the first stands alone: nearly every model's rule.
        if default % 4 == 1:
            guesses.append("that frames are four times a number and one more")
            low, high = -(-(low - 1) // 4) * 4 + 1, (high - 1) // 4 * 4 + 1
            return {"multiple": 4, "offset": 1, "minimum": low, "maximum": high, "default": default}
        return {"multiple": 1, "offset": 0, "minimum": low, "maximum": high, "default": default}
    rate = round(fps)
    seconds = named("duration", fields)
    if seconds is None:
        guesses.append("the length: 5 seconds are assumed, and nothing is asked for")
        return _rule([5 * rate], 5 * rate)
    told = [_seconds(c) for c in seconds.choices]
    wanted = _seconds(seconds.default)
    numbers = sorted({int(s) for s in told if s is not None and s == int(s) and s > 0})
    if not numbers:
        low = max(1, math.ceil(seconds.minimum)) if seconds.minimum is not None else 1
        high = math.floor(seconds.maximum) if seconds.maximum is not None else low
        numbers = list(range(low, min(max(low, high), _MOST_SECONDS) + 1))
    default = int(wanted) if wanted is not None and int(wanted) in numbers else numbers[0]
    return _rule([n * rate for n in numbers], default * rate)


def _rule(counts: list[int], default: int) -> dict[str, int]:
    """The frame rule that gives just these counts, or as many of them as one rule can."""
    counts = [c for c in counts if 1 <= c <= MAX_FRAMES] or [default]
    steps = [b - a for a, b in pairwise(counts)]
    step = steps[0] if steps and len(set(steps)) == 1 and steps[0] <= 1024 else 0
    if not step:  # uneven: only the default is sure to be allowed
        low = high = default if default in counts else counts[0]
        step = min(low, 1024)
    else:
        low, high = counts[0], counts[-1]
    offset = low % step
    chosen = default if low <= default <= high and default % step == offset else low
    return {"multiple": step, "offset": offset, "minimum": low, "maximum": high, "default": chosen}


def _sizes(fields: Mapping[str, Field], guesses: list[str]) -> dict[str, Any]:
    wide, high = named("width", fields), named("height", fields)
    if wide is not None and high is not None and wide.maximum and high.maximum:
        return _free_sizes(wide, high, guesses)
    whole = named("size", fields)
    native = [s for c in whole.choices if (s := pixels_of(c))] if whole is not None else []
    preferred = pixels_of(whole.default) if whole is not None else None
    if not native:
        shape, lines = named("aspect", fields), named("resolution", fields)
        shapes = [a for c in shape.choices if (a := aspect_of(c))] if shape is not None else []
        shorts = [n for c in lines.choices if (n := short_side_of(c))] if lines is not None else []
        usual = aspect_of(shape.default) if shape is not None else None
        short = short_side_of(lines.default) if lines is not None else None
        preferred = _pixels(usual or _ASPECT, short or _SHORT_SIDE)
        native = [_pixels(a, n) for n in shorts or [_SHORT_SIDE] for a in shapes or [_ASPECT]]
        guesses.append("the exact pixels of each size")
    native = list(dict.fromkeys(native))[:_MOST_NATIVE]
    sides = [side for size in native for side in size]
    default = preferred if preferred in native else native[0]
    return {
        "multiple_of": 2 if all(side % 2 == 0 for side in sides) else 1,
        "minimum": min(sides),
        "maximum": max(sides),
        "native": [list(size) for size in native],
        "default": list(default),
        "only_native": True,
    }


def _free_sizes(wide: Field, high: Field, guesses: list[str]) -> dict[str, Any]:
    """Any size within the limits, on a grid of sixteen pixels."""
    low = max(16, int(max(wide.minimum or 256, high.minimum or 256)))
    most = int(min(wide.maximum or low, high.maximum or low))
    low, most = -(-low // 16) * 16, most // 16 * 16
    default = [
        min(max(int(f.default) // 16 * 16, low), most) if _is_number(f.default) else low
        for f in (wide, high)
    ]
    guesses.append("that sides are multiples of 16")
    return {
        "multiple_of": 16,
        "minimum": low,
        "maximum": most,
        "native": [default],
        "default": default,
    }


def _remote(fields: Mapping[str, Field]) -> dict[str, Any]:
    remote: dict[str, Any] = {"audio": "optional" if named("audio", fields) else "never"}
    without = [] if named("seed", fields) else ["seed"]
    if named("frames", fields) is None and named("duration", fields) is None:
        without.append("duration")
    return remote | ({"settings": {"without": without}} if without else {})


def _steps(fields: Mapping[str, Field]) -> dict[str, int]:
    place = named("steps", fields)
    if place is None or not _is_number(place.default):
        return {}
    default = int(place.default)
    low, high = int(place.minimum or 1), int(place.maximum or default)
    quick = max(low, default // 2)
    return {
        "default": default,
        "minimum": low,
        "maximum": high,
        "preview": quick,
        "standard": default,
        "premium": default,
    }


def _guidance(fields: Mapping[str, Field]) -> dict[str, float]:
    place = named("guidance", fields)
    if place is None or not _is_number(place.default):
        return {}
    default = float(place.default)
    low = default if place.minimum is None else max(0.0, place.minimum)
    return {"default": default, "minimum": low, "maximum": place.maximum or default}


def _pixels(aspect: float, short: int) -> tuple[int, int]:
    """The size of a shape whose shorter side is so long, of even sides."""
    if aspect >= 1:
        return round(short * aspect / 2) * 2, short
    return short, round(short / aspect / 2) * 2


def _seconds(word: Any) -> float | None:
    text = str(word).strip().lower().removesuffix("s").strip()
    try:
        return float(text)
    except ValueError:
        return None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
