"""Models elsewhere that tests plan with: what a service's card says, as short as it can be."""

from __future__ import annotations

from typing import Any

from kinoloom.catalog.card import ModelCard

PRICE = {
    "rates": [{"amount": "0.10", "per": "second"}],
    "source": "https://example.org/prices",
    "date": "2026-11-01",
}


def elsewhere(id_: str = "shop-one", **changes: Any) -> ModelCard:
    """A model of 5 or 10 seconds at 24 frames a second, in two sizes."""
    data: dict[str, Any] = {
        "id": id_,
        "title": id_.replace("-", " ").title(),
        "family": "shop",
        "summary": "A model elsewhere.",
        "backend": "runway",
        "source": {"service": id_},
        "remote": {},
        "price": PRICE,
        "standing": 50,
        "pipelines": {
            "t2v": {"class": "text_to_video"},
            "i2v": {"class": "image_to_video", "inputs": {"image": "image"}},
        },
        "sizes": {
            "multiple_of": 16,
            "minimum": 720,
            "maximum": 1280,
            "native": [[1280, 720], [720, 1280]],
            "default": [1280, 720],
            "only_native": True,
        },
        "frames": {"multiple": 120, "offset": 0, "minimum": 120, "maximum": 240, "default": 120},
        "fps": {"default": 24, "minimum": 24, "maximum": 24},
        "negative": False,
        "licence": {"id": "terms", "url": "https://example.org/terms"},
    }
    return ModelCard.model_validate(data | changes)
