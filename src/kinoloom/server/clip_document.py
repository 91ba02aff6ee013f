"""How is the body of a request for a clip described in the OpenAPI document?

It is read by `clip_request`, which lists every mistake at once and more kindly than a validator of
schemas; so its schema is made here, from that of `VideoRequest`, and cannot fall behind it.
"""

from __future__ import annotations

from typing import Any

from kinoloom import request_checks as check
from kinoloom.jobs.service import PRIORITY
from kinoloom.lora_request import LoraRequest
from kinoloom.request import VideoRequest
from kinoloom.server.bodies import KINDS, REQUEST_PART
from kinoloom.server.clip_request import MAX_ADDRESS, MAX_PRIORITY, MAX_TIMEOUT
from kinoloom.server.schemas import DIGEST

_WORDS = {
    "prompt": "What is seen; may be empty only with an image or a video.",
    "negative": "What should not be seen; only models with guidance use it.",
    "model": "The id of a model; without it the planner chooses.",
    "backend": "What runs the model; without it the planner chooses.",
    "tier": "How much work to spend; `auto` fits the steps to the prompt.",
    "size": 'Width and height in pixels: a pair, "512x320", or a name such as "720p".',
    "frames": "The length in frames; not together with `duration`.",
    "duration": "The length in seconds; not together with `frames`.",
    "fps": "Frames a second of the finished clip.",
    "steps": "Denoising steps; 0 fits them to the prompt, null lets the tier decide.",
    "guidance": "How strongly the prompt is followed.",
    "seed": "Same seed, same frames; null draws one.",
    "image": "The first picture: makes it image to video.",
    "last_image": "The last picture, together with the first.",
    "video": "A video: continued from its end, or made anew where `mask` is white.",
    "mask": "White where the video is to be made anew: one picture, or a video of them.",
    "references": "Pictures of what appears in the clip.",
    "keyframes": "Pictures that the clip shows at frames, counted from 0.",
    "loras": 'LoRAs with weights, also as text such as "film-look:0.8".',
    "preset": "A few-step preset of the model.",
    "acceleration": "What may change the frames for speed: nothing, a little, more.",
    "candidates": "Takes to make, of which the best by quality is kept.",
    "audio": "Whether the clip has sound, where the model lets one choose; null: the cheaper.",
    "max_cost": "The most that the clip may cost, in the currency of the model's price.",
    "unknown_price": "The explicit yes to a model whose price is not known.",
    "fallback": "Whether another backend is tried when one fails; null: as the settings say.",
    "reword": "Whether words that a service rejects are tried again in others; null: as set.",
    "cache": "`bypass` renders anew what was rendered before.",
    "format": "What the clip is written as.",
    "priority": "The lower, the sooner the job runs.",
    "timeout": "Seconds from now on after which the job is given up.",
    "webhook": "An address that is told when the job has ended.",
    "hold": "Whether the job waits until it is released.",
}
_EXAMPLE = {"prompt": "a red ball rolling to the right on green grass", "seed": 7}
_FILE = {"type": "string", "format": "binary"}
_FRAME = {"type": "integer", "minimum": 0, "maximum": check.MAX_FRAMES - 1}


def _media(*, picture: bool) -> dict[str, Any]:
    """The schema of one file that a request names."""
    digest = {"type": "string", "pattern": DIGEST}
    ways: list[dict[str, Any]] = [
        {
            "type": "object",
            "properties": {"asset": digest},
            "required": ["asset"],
            "additionalProperties": False,
        },
        digest,
    ]
    if picture:
        ways.append({"type": "string", "pattern": r"^data:(image/[a-z]+)?;base64,[A-Za-z0-9+/=]+$"})
        address = {"type": "string", "pattern": r"^https://", "maxLength": MAX_ADDRESS}
        ways.append(address | {"description": "Only where the server's settings allow it."})
    return {"anyOf": ways}


def or_null(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema of a field that may be null, which counts as not given."""
    return {"anyOf": [schema, {"type": "null"}], "default": None}


def _properties() -> dict[str, dict[str, Any]]:
    """The schemas of all fields of a JSON body."""
    found: dict[str, dict[str, Any]] = VideoRequest.model_json_schema()["properties"]
    del found["output"]
    found["format"]["enum"] = [name for name in found["format"]["enum"] if name != "png"]
    found["size"]["anyOf"].insert(
        1, {"type": "string", "pattern": r"^\d{2,4}x\d{2,4}$|^(240|360|480|540|720|1080)p$"}
    )
    lora = LoraRequest.model_json_schema()
    found["loras"] = {
        "type": "array",
        "maxItems": check.MAX_LORAS,
        "items": {"anyOf": [lora, {"type": "string", "minLength": 1, "maxLength": 1000}]},
        "default": [],
    }
    for name in ("image", "last_image", "mask", "video"):
        found[name] = or_null(_media(picture=name != "video"))
    found["references"] = {
        "type": "array",
        "maxItems": check.MAX_REFERENCES,
        "items": _media(picture=True),
        "default": [],
    }
    pair = {"type": "array", "prefixItems": [_FRAME, _media(picture=True)]}
    found["keyframes"] = {
        "type": "array",
        "maxItems": check.MAX_KEYFRAMES,
        "items": pair | {"minItems": 2, "maxItems": 2},
        "default": [],
        "examples": [[[24, {"asset": "sha256:" + "ab" * 32}]]],
    }
    for name in ("model", "backend", "preset"):
        found[name]["anyOf"][0] |= {"minLength": 1, "maxLength": 200}
    found |= {
        "priority": {
            "type": "integer",
            "minimum": 0,
            "maximum": MAX_PRIORITY,
            "default": PRIORITY,
        },
        "timeout": or_null({"type": "number", "minimum": 1, "maximum": MAX_TIMEOUT}),
        "webhook": or_null({"type": "string", "format": "uri", "maxLength": MAX_ADDRESS}),
        "hold": {"type": "boolean", "default": False},
    }
    return {name: schema | {"description": _WORDS[name]} for name, schema in found.items()}


def _form() -> dict[str, Any]:
    """The schema of a form: every field a part, media as files, or all fields as one JSON part."""
    parts = {name: schema for name, schema in _properties().items() if name not in KINDS}
    for name in KINDS:
        parts[name] = {**_FILE, "description": _WORDS[name]}
    parts["references"] = {"type": "array", "maxItems": check.MAX_REFERENCES, "items": _FILE}
    del parts["keyframes"]
    parts["keyframes[24]"] = {
        **_FILE,
        "description": _WORDS["keyframes"] + " The part's name has the frame in brackets.",
    }
    parts[REQUEST_PART] = {
        "type": "string",
        "contentMediaType": "application/json",
        "description": "All fields that are no files as one JSON object, in place of their parts.",
    }
    return {"type": "object", "properties": parts}


CLIP_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "title": "ClipRequest",
                    "type": "object",
                    "properties": _properties(),
                    "additionalProperties": False,
                },
                "examples": {
                    "words": {"summary": "Text to video", "value": _EXAMPLE},
                    "picture": {
                        "summary": "Image to video",
                        "value": {
                            "prompt": "the ball begins to roll",
                            "image": {"asset": "sha256:" + "ab" * 32},
                            "tier": "preview",
                        },
                    },
                },
            },
            "multipart/form-data": {"schema": _form()},
        },
    }
}
"""What a route that takes a request for a clip adds to its operation."""
