"""How is a take asked for at a server that speaks /v1/videos?

OpenAI's own form has words, a model, whole seconds, a size and a picture. Engines that serve open
weights (vLLM-Omni, SGLang, FastVideo, Kinoloom) take the numbers of the sampler beside these under
the same names; a gateway to closed models refuses or ignores them. Which of the two a server is for
a model follows from the card: only open weights let anybody choose the steps. OpenRouter has the
same routes and a body of its own, in JSON.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinoloom.backends.base import Order, Take
from kinoloom.catalog.card import ModelCard

Part = tuple[str | None, str | bytes] | tuple[str, bytes, str]


def parts_of(card: ModelCard, order: Order) -> list[tuple[str, Part]]:
    """The parts of the form for an order, as httpx takes them.

    Engines want `seconds` as a whole number and compute the frames from it unless they are told
    these, so that they are told the frames instead.
    """
    take = order.take
    said: dict[str, object] = {
        "prompt": take.prompt,
        "model": card.source.service,
        "size": f"{take.width}x{take.height}",
    }
    if card.steps.maximum:
        said |= {
            "num_frames": take.frames,
            "fps": _number(take.fps),
            "num_inference_steps": take.steps,
            "guidance_scale": take.guidance,
            "seed": take.seed,
        }
        if take.negative:
            said["negative_prompt"] = take.negative
    else:
        said["seconds"] = _seconds(take)
    parts: list[tuple[str, Part]] = [(name, (None, str(value))) for name, value in said.items()]
    if (picture := order.inputs.get("image")) is not None:
        parts.append(("input_reference", ("image.png", picture.read_bytes(), "image/png")))
    return parts


def openrouter_body(card: ModelCard, order: Order) -> dict[str, Any]:
    """The JSON body for an order at OpenRouter (openrouter.ai/docs, "Video generation")."""
    take = order.take
    body: dict[str, Any] = {
        "model": card.source.service,
        "prompt": take.prompt,
        "size": f"{take.width}x{take.height}",
        "duration": _seconds(take),
        "seed": take.seed,
    }
    if (picture := order.inputs.get("image")) is not None:
        address = {"url": _data_uri(picture)}
        body["frame_images"] = [
            {"type": "image_url", "image_url": address, "frame_type": "first_frame"}
        ]
    return body


def is_openrouter(listing: Mapping[str, Any]) -> bool:
    """Whether what a server answers at ``/videos/models`` is OpenRouter's list of models.

    Elsewhere that is a video which does not exist.
    """
    models = listing.get("data")
    return isinstance(models, list) and any(
        isinstance(model, dict) and any(str(key).startswith("supported_") for key in model)
        for model in models
    )


def _seconds(take: Take) -> int:
    return max(1, round(take.frames / take.fps))


def _number(value: float) -> float | int:
    """Without a fraction where there is none: engines read the rate as a whole number."""
    return int(value) if float(value).is_integer() else value


def _data_uri(picture: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(picture.read_bytes()).decode("ascii")
