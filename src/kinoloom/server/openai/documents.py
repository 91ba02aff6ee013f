"""How are the bodies that the OpenAI routes read described in the API's documentation?

They are read by hand, since the same values come as a form or as JSON, so FastAPI cannot tell.
"""

from __future__ import annotations

from typing import Any

from kinoloom import request_checks as check

_FILE = {"type": "string", "format": "binary"}
_WHOLE = {"type": "integer"}
_PROMPT = {
    "type": "string",
    "maxLength": check.MAX_PROMPT,
    "examples": ["a red ball rolls to the right"],
}
_MORE: dict[str, dict[str, Any]] = {
    "width": _WHOLE | {"minimum": check.MIN_SIDE, "maximum": check.MAX_SIDE},
    "height": _WHOLE | {"minimum": check.MIN_SIDE, "maximum": check.MAX_SIDE},
    "num_frames": _WHOLE | {"minimum": 1, "maximum": check.MAX_FRAMES},
    "fps": {"type": "number", "minimum": check.MIN_FPS, "maximum": check.MAX_FPS},
    "num_inference_steps": _WHOLE | {"minimum": 0, "maximum": check.MAX_STEPS},
    "guidance_scale": {"type": "number", "minimum": 0, "maximum": check.MAX_GUIDANCE},
    "seed": _WHOLE | {"minimum": 0, "maximum": check.MAX_SEED},
    "negative_prompt": {"type": "string", "maxLength": check.MAX_PROMPT},
    "extra_params": {
        "type": "object",
        "description": "Any of the other parameters, and tier, preset, acceleration, candidates,"
        " cache, format and backend. In a form: extra_params[tier]=preview.",
    },
}
_MADE: dict[str, dict[str, Any]] = {
    "model": {
        "type": "string",
        "description": "The id of a model card, or default.",
        "examples": ["spark"],
    },
    "seconds": {"type": "string", "pattern": r"^\d{1,4}(\.\d{1,3})?$", "examples": ["2"]},
    "size": {"type": "string", "pattern": r"^\d{2,4}x\d{2,4}$", "examples": ["256x160"]},
    **_MORE,
}
_PICTURE = {
    "type": "object",
    "description": "The picture that the video begins with.",
    "required": ["image_url"],
    "properties": {
        "image_url": {"type": "string", "description": "A data URL in base64, or an address."}
    },
}
_VIDEO = {
    "type": "object",
    "description": "A completed video.",
    "required": ["id"],
    "properties": {"id": {"type": "string"}},
}


def _body(
    required: list[str], both: dict[str, Any], form: dict[str, Any], json: dict[str, Any] | None
) -> dict[str, Any]:
    """The documentation of a body: properties that are the same in a form and in JSON, and those
    that differ; None for no JSON at all."""

    def schema(own: dict[str, Any]) -> dict[str, Any]:
        return {"schema": {"type": "object", "required": required, "properties": both | own}}

    content = {"multipart/form-data": schema(form)}
    if json is not None:
        content["application/json"] = schema(json)
    return {"requestBody": {"required": True, "content": content}}


CREATE = _body(
    ["prompt"],
    {"prompt": _PROMPT, **_MADE},
    {"input_reference": _FILE},
    {"input_reference": _PICTURE},
)
REMIX = _body(["prompt"], {"prompt": _PROMPT, **_MADE}, {}, {})
EXTEND = _body(
    ["prompt", "video"], {"prompt": _PROMPT, **_MADE}, {"video": _FILE}, {"video": _VIDEO}
)
EDIT = _body(
    ["prompt", "video", "mask"],
    {"prompt": _PROMPT, **_MADE},
    {"video": _FILE, "mask": _FILE},
    None,
)
