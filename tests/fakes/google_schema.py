"""What Google's two video services refuse: unknown fields, wrong types, values of no meaning.

The shapes are those of google-genai 3.4's types and of Google's documentation.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Container, Mapping
from typing import Any

PNG = b"\x89PNG\r\n\x1a\n"
OMNI_MODELS = ("gemini-omni-1.2-flash", "gemini-omni-1.1-flash")
VEO_MODELS = ("veo-3.1-generate-001", "veo-3.1-fast-generate-001", "veo-3.1-lite-generate-001")


class Refused(Exception):
    """A request that the real service would refuse."""

    def __init__(self, status: int, word: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.status = status
        self.body = {"error": {"code": status, "message": message, "status": word, **more}}


def check_interaction(body: Mapping[str, Any], uploads: Container[str]) -> str:
    """The words of a request to create an interaction. Raises Refused."""
    _only(body, "model input response_format generation_config background store stream")
    if body.get("model") not in OMNI_MODELS:
        raise Refused(404, "NOT_FOUND", f"Model {body.get('model')!r} was not found.")
    if body.get("background") and body.get("store") is False:
        raise Refused(400, "INVALID_ARGUMENT", "background requires store")
    shape = body.get("response_format", {})
    _only(shape, "type delivery aspect_ratio resolution duration", "response_format")
    _one_of(shape, "type", ("video",))
    _one_of(shape, "delivery", ("inline", "uri"))
    _one_of(shape, "aspect_ratio", ("16:9", "9:16"))
    _one_of(shape, "resolution", ("360p", "720p", "1080p", "4k"))
    if not re.fullmatch(r"([3-9]|1[0-5])s", str(shape.get("duration"))):
        raise Refused(400, "INVALID_ARGUMENT", "Invalid value at 'response_format.duration'")
    config = body.get("generation_config", {})
    _only(config, "seed video_config", "generation_config")
    seed = config.get("seed")
    if not isinstance(seed, int) or not 0 <= seed < 2**31:
        raise Refused(400, "INVALID_ARGUMENT", "Invalid value at 'generation_config.seed'")
    task = config.get("video_config", {}).get("task")
    if task not in (None, "text_to_video", "image_to_video", "reference_to_video"):
        raise Refused(400, "INVALID_ARGUMENT", "Invalid value at 'video_config.task'")
    return _words(body, uploads)


def _words(body: Mapping[str, Any], uploads: Container[str]) -> str:
    steps = body.get("input")
    if not isinstance(steps, list) or any(s.get("type") != "user_input" for s in steps):
        raise Refused(400, "INVALID_ARGUMENT", "Invalid value at 'input'")
    parts = [part for step in steps for part in step["content"]]
    words = [part for part in parts if part.get("type") == "text"]
    for part in parts:
        if part in words:
            _only(part, "type text", "input")
            continue
        _only(part, "type mime_type data uri", "input")
        _one_of(part, "type", ("image",))
        _one_of(part, "mime_type", ("image/png", "image/jpeg", "image/webp"))
        if "uri" in part:
            if part["uri"].rpartition("/")[2] not in uploads:
                raise Refused(400, "INVALID_ARGUMENT", "The file does not exist.")
        else:
            _png(part.get("data"))
    if len(words) != 1 or parts[-1] is not words[0]:
        raise Refused(400, "INVALID_ARGUMENT", "The words come last, once.")
    return str(words[0]["text"])


def check_operation(model: str, body: Mapping[str, Any]) -> str:
    """The words of a request for a video of Veo. Raises Refused."""
    if model not in VEO_MODELS:
        raise Refused(404, "NOT_FOUND", f"Publisher Model `{model}` was not found.")
    _only(body, "instances parameters labels")
    (instance,) = body["instances"]
    _only(instance, "prompt image lastFrame referenceImages", "instances[0]")
    parameters = body.get("parameters", {})
    _only(
        parameters,
        "sampleCount durationSeconds seed aspectRatio resolution generateAudio negativePrompt"
        " storageUri personGeneration",
        "parameters",
    )
    if not isinstance(parameters.get("generateAudio"), bool):
        raise Refused(400, "INVALID_ARGUMENT", "generateAudio must be a boolean")
    if parameters.get("durationSeconds") not in (4, 6, 8):
        raise Refused(400, "INVALID_ARGUMENT", "durationSeconds must be 4, 6 or 8")
    if not isinstance(parameters.get("seed"), int) or not 0 <= parameters["seed"] < 2**32:
        raise Refused(400, "INVALID_ARGUMENT", "seed must be a uint32")
    _one_of(parameters, "aspectRatio", ("16:9", "9:16"))
    _one_of(parameters, "resolution", ("720p", "1080p", "4k"))
    _one_of(parameters, "sampleCount", (1,))
    for key, value in body.get("labels", {}).items():
        if not re.fullmatch(r"[a-z][a-z0-9_-]{0,62}", key) or len(value) > 63:
            raise Refused(400, "INVALID_ARGUMENT", f"Invalid label {key}")
    references = instance.get("referenceImages", [])
    if references and parameters["durationSeconds"] != 8:
        raise Refused(400, "INVALID_ARGUMENT", "reference images need 8 seconds")
    pictures = [each["image"] for each in references]
    pictures += [instance[n] for n in ("image", "lastFrame") if n in instance]
    for each in references:
        _one_of(each, "referenceType", ("ASSET",))
    for each in pictures:
        _only(each, "bytesBase64Encoded mimeType", "image")
        _png(each.get("bytesBase64Encoded"))
    if "lastFrame" in instance and "image" not in instance:
        raise Refused(400, "INVALID_ARGUMENT", "lastFrame needs an image")
    return str(instance.get("prompt", ""))


def _only(body: Mapping[str, Any], names: str, where: str = "") -> None:
    unknown = set(body) - set(names.split())
    if unknown:
        message = f"Invalid JSON payload received. Unknown name \"{min(unknown)}\" at '{where}'"
        raise Refused(400, "INVALID_ARGUMENT", message)


def _one_of(body: Mapping[str, Any], name: str, known: tuple[Any, ...]) -> None:
    if body.get(name) not in known:
        raise Refused(400, "INVALID_ARGUMENT", f"Invalid value at '{name}': {body.get(name)!r}")


def _png(data: Any) -> None:
    try:
        raw = base64.b64decode(data, validate=True)
    except (TypeError, ValueError):
        raise Refused(400, "INVALID_ARGUMENT", "Invalid base64.") from None
    if not raw.startswith(PNG):
        raise Refused(400, "INVALID_ARGUMENT", "Unable to process input image.")
