"""The input schemas of the fake's models, in the shapes that Replicate publishes them in."""

from __future__ import annotations

import copy
from typing import Any

VERSION = "a" * 64
"""The version of the community model; official models have none."""


def _document(properties: dict[str, Any], required: list[str], **more: Any) -> dict[str, Any]:
    entry = {"type": "object", "title": "Input", "properties": properties, "required": required}
    output = {"type": "string", "title": "Output", "format": "uri"}
    return {
        "openapi": "3.0.2",
        "components": {"schemas": {"Input": entry, "Output": output, **more}},
    }


def _enum(name: str, kind: str, *choices: Any) -> dict[str, Any]:
    return {name: {"title": name, "type": kind, "enum": list(choices), "description": "Choose."}}


def _ref(name: str, default: Any, order: int) -> dict[str, Any]:
    return {
        "allOf": [{"$ref": f"#/components/schemas/{name}"}],
        "default": default,
        "x-order": order,
    }


_FILE = {"type": "string", "format": "uri"}
_SEED = {"type": "integer", "title": "Seed", "nullable": True}

_VEO = _document(
    {
        "prompt": {"type": "string", "title": "Prompt", "x-order": 0},
        "aspect_ratio": _ref("aspect_ratio", "16:9", 1),
        "duration": _ref("duration", 8, 2),
        "image": {**_FILE, "nullable": True},
        "last_frame": {"anyOf": [_FILE, {"type": "null"}], "title": "Last Frame"},
        "reference_images": {"type": "array", "items": _FILE, "default": [], "maxItems": 3},
        "negative_prompt": {"type": "string", "nullable": True},
        "resolution": _ref("resolution", "1080p", 7),
        "generate_audio": {"type": "boolean", "default": True},
        "seed": {**_SEED, "minimum": 0, "maximum": 4294967295},
    },
    ["prompt"],
    **_enum("aspect_ratio", "string", "16:9", "9:16"),
    **_enum("duration", "integer", 4, 6, 8),
    **_enum("resolution", "string", "720p", "1080p"),
)

_KLING = _document(
    {
        "prompt": {"type": "string"},
        "negative_prompt": {"type": "string", "default": ""},
        "start_image": {**_FILE},
        "end_image": {**_FILE},
        "aspect_ratio": _ref("aspect_ratio", "16:9", 4),
        "duration": _ref("duration", 5, 5),
    },
    ["prompt"],
    **_enum("aspect_ratio", "string", "16:9", "9:16", "1:1"),
    **_enum("duration", "integer", 5, 10),
)

_WAN = _document(
    {
        "prompt": {"type": "string"},
        "aspect_ratio": _ref("aspect_ratio", "16:9", 1),
        "num_frames": {"type": "integer", "default": 81, "minimum": 81, "maximum": 121},
        "frames_per_second": {"type": "integer", "default": 16, "minimum": 5, "maximum": 30},
        "resolution": _ref("resolution", "480p", 4),
        "interpolate_output": {"type": "boolean", "default": True},
        "go_fast": {"type": "boolean", "default": True},
        "sample_shift": {"type": "number", "default": 12, "minimum": 1, "maximum": 20},
        "seed": _SEED,
    },
    ["prompt"],
    **_enum("aspect_ratio", "string", "16:9", "9:16"),
    **_enum("resolution", "string", "480p", "720p"),
)

_WAN_PICTURE = copy.deepcopy(_WAN)
_wan = _WAN_PICTURE["components"]["schemas"]["Input"]
del _wan["properties"]["aspect_ratio"]
_wan["properties"] |= {"image": _FILE, "last_image": {**_FILE, "nullable": True}}
_wan["required"] = ["prompt", "image"]

_VEO_FAST = copy.deepcopy(_VEO)
del _VEO_FAST["components"]["schemas"]["Input"]["properties"]["reference_images"]

_KLING_26 = _document(
    {
        "prompt": {"type": "string"},
        "negative_prompt": {"type": "string", "default": ""},
        "start_image": _FILE,
        "aspect_ratio": _ref("aspect_ratio", "16:9", 3),
        "duration": _ref("duration", 5, 4),
        "generate_audio": {"type": "boolean", "default": True},
    },
    ["prompt"],
    **_enum("aspect_ratio", "string", "16:9", "9:16", "1:1"),
    **_enum("duration", "integer", 5, 10),
)

_SEEDANCE = _document(
    {
        "prompt": {"type": "string"},
        "image": _FILE,
        "last_frame_image": _FILE,
        "duration": {"type": "integer", "default": 5, "minimum": 2, "maximum": 12},
        "resolution": _ref("resolution", "1080p", 4),
        "aspect_ratio": _ref("aspect_ratio", "16:9", 5),
        "fps": _ref("fps", 24, 6),
        "camera_fixed": {"type": "boolean", "default": False},
        "seed": _SEED,
    },
    ["prompt"],
    **_enum("resolution", "string", "480p", "720p", "1080p"),
    **_enum("aspect_ratio", "string", "16:9", "4:3", "1:1", "3:4", "9:16", "21:9", "9:21"),
    **_enum("fps", "integer", 24),
)
_SEEDANCE_15 = copy.deepcopy(_SEEDANCE)
_SEEDANCE_15["components"]["schemas"]["Input"]["properties"] |= {
    "generate_audio": {"type": "boolean", "default": True}
}

_HAILUO = _document(
    {
        "prompt": {"type": "string"},
        "first_frame_image": _FILE,
        "duration": _ref("duration", 6, 2),
        "resolution": _ref("resolution", "768p", 3),
        "prompt_optimizer": {"type": "boolean", "default": True},
    },
    ["prompt"],
    **_enum("duration", "integer", 6, 10),
    **_enum("resolution", "string", "768p", "1080p"),
)

_COMMUNITY = _document(
    {
        "prompt": {"type": "string", "default": ""},
        "input_image": {**_FILE},
        "width": {"type": "integer", "default": 832, "minimum": 256, "maximum": 1280},
        "height": {"type": "integer", "default": 480, "minimum": 256, "maximum": 1280},
        "num_frames": {"type": "integer", "default": 49, "minimum": 9, "maximum": 129},
        "fps": {"type": "integer", "default": 24, "minimum": 8, "maximum": 30},
        "num_inference_steps": {"type": "integer", "default": 30, "minimum": 1, "maximum": 50},
        "guidance_scale": {"type": "number", "default": 6, "minimum": 0, "maximum": 20},
        "seed": _SEED,
    },
    ["input_image"],
)

_WORDS = _document({"prompt": {"type": "string"}}, ["prompt"])
_WORDS["components"]["schemas"]["Output"] = {"type": "array", "items": {"type": "string"}}

_OFFICIAL = {
    "google/veo-3.1": _VEO,
    "google/veo-3.1-fast": _VEO_FAST,
    "kwaivgi/kling-v2.5-turbo-pro": _KLING,
    "kwaivgi/kling-v2.6": _KLING_26,
    "bytedance/seedance-1-pro": _SEEDANCE,
    "bytedance/seedance-1.5-pro": _SEEDANCE_15,
    "minimax/hailuo-2.3": _HAILUO,
    "wan-video/wan-2.2-t2v-fast": _WAN,
    "wan-video/wan-2.2-i2v-fast": _WAN_PICTURE,
}
OFFICIAL = frozenset(_OFFICIAL)
"""The models that have no versions."""
_MODELS = _OFFICIAL | {"someone/animate": _COMMUNITY, "meta/words": _WORDS}


def models() -> dict[str, dict[str, Any]]:
    """The OpenAPI documents of the models by their names; each call gives new ones."""
    return copy.deepcopy(_MODELS)


def mistakes(document: dict[str, Any], sent: dict[str, Any]) -> list[str]:
    """What Replicate would refuse in an input, in words like its own."""
    schemas = document["components"]["schemas"]
    properties = schemas["Input"]["properties"]
    wrong = [
        f"input.{name}: Additional property is not allowed" for name in sent.keys() - properties
    ]
    wrong += [
        f"- input: {name} is required"
        for name in schemas["Input"]["required"]
        if name not in sent and "default" not in properties[name]
    ]
    for name, value in sent.items():
        if name in properties:
            wrong += [f"- input.{name}: {why}" for why in _wrong(properties[name], value, schemas)]
    return wrong


_TYPES: dict[str, Any] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
}


def _wrong(place: dict[str, Any], value: Any, schemas: dict[str, Any]) -> list[str]:
    for reference in place.get("allOf", []):
        return _wrong(schemas[reference["$ref"].rpartition("/")[2]], value, schemas)
    if "anyOf" in place:
        return _wrong(place["anyOf"][0], value, schemas)
    kind = place["type"]
    if not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
        return [f"Invalid type. Expected: {kind}, given: {type(value).__name__}"]
    if "enum" in place and value not in place["enum"]:
        return [f"Must be one of the following: {place['enum']}"]
    if value < place["minimum"] if "minimum" in place else False:
        return [f"Must be greater than or equal to {place['minimum']}"]
    if value > place["maximum"] if "maximum" in place else False:
        return [f"Must be less than or equal to {place['maximum']}"]
    if place.get("format") == "uri" and not value.startswith(("https://", "http://", "data:")):
        return ["Does not match format 'uri'"]
    if kind == "array":
        if len(value) > place.get("maxItems", len(value)):
            return [f"Array must have at most {place['maxItems']} items"]
        return [why for item in value for why in _wrong(place["items"], item, schemas)]
    return []
