"""Which models do the user's servers offer?

The settings name each and the card of a model that it is like, whose rules it shares: an engine
that serves the same weights makes the same sizes and lengths. Nobody is asked.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from typing import Any

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config_sections import OpenAIModel, OpenAIServer
from kinoloom.errors import ModelNotFound

PROBLEM = "problem"
"""The setting of a card that says why there is no such model after all."""

_SHARED = (
    "family",
    "sizes",
    "frames",
    "fps",
    "steps",
    "guidance",
    "negative",
    "licence",
    "standing",
)
_INPUTS: Mapping[str, dict[str, str]] = {"t2v": {}, "i2v": {"image": "input_reference"}}
"""What this API can be asked for, with the name of the field that takes each input."""


def cards_of(servers: Mapping[str, OpenAIServer], known: Catalog) -> Iterator[ModelCard]:
    """A card for each model that the settings name, by their order.

    One whose `like` is of no use gets a card as well, which says so in its settings: a model that
    is listed with its reason is easier to mend than one that is missing.
    """
    for name, server in servers.items():
        for ours, model in server.models.items():
            try:
                like = known.get(model.like)
            except ModelNotFound as error:
                near = next((h for h in error.hints if h.startswith("Did you")), "")
                yield _broken(name, ours, model, f"{error.message} {near}".strip())
                continue
            if not set(_INPUTS) & set(like.tasks):
                reason = f"{like.id} makes a clip neither from words nor from a picture."
                yield _broken(name, ours, model, reason)
                continue
            yield _card(name, server, ours, model, like)


def _card(
    name: str, server: OpenAIServer, ours: str, model: OpenAIModel, like: ModelCard
) -> ModelCard:
    rules = like.model_dump(include=set(_SHARED))
    sound = like.audio or (like.remote is not None and like.remote.audio != "never")
    remote: dict[str, Any] = {
        "audio": "always" if sound else "never",
        "settings": {"server": name, "like": like.id},
    }
    if like.remote is not None:
        remote |= {"prompt_limit": like.remote.prompt_limit, "rewording": like.remote.rewording}
    return ModelCard.model_validate(
        {
            **rules,
            "id": ours,
            "title": f"{like.title} on {name}",
            "summary": f"{like.title}, made by the server {name}.",
            "backend": "openai",
            "source": {"service": model.model},
            "pipelines": {
                task: {"class": "videos", "inputs": inputs}
                for task, inputs in _INPUTS.items()
                if task in like.pipelines
            },
            "same_as": like.id if like.backend == "local" else like.same_as,
            "remote": remote,
            "price": _price(server, model),
            "unverified": [f"that {model.model} has the rules of {like.id}, as the settings say"],
        }
    )


def _price(server: OpenAIServer, model: OpenAIModel) -> dict[str, Any] | str | None:
    """The price as the user says it, who may be wrong."""
    if model.price is None or isinstance(model.price, str):
        return model.price
    return {
        "rates": [{"amount": model.price, "per": "second"}],
        "source": server.url,
        "date": datetime.datetime.now(datetime.UTC).date(),
        "verified": False,
    }


def _broken(name: str, ours: str, model: OpenAIModel, problem: str) -> ModelCard:
    """A card that is never ready. Its rules are of no meaning."""
    return ModelCard.model_validate(
        {
            "id": ours,
            "title": f"{model.model} on {name}",
            "family": "unknown",
            "summary": "A model of the settings that cannot be used.",
            "backend": "openai",
            "source": {"service": model.model},
            "pipelines": {"t2v": {"class": "videos"}},
            "sizes": {
                "multiple_of": 16,
                "minimum": 512,
                "maximum": 512,
                "native": [(512, 512)],
                "default": (512, 512),
            },
            "frames": {"multiple": 1, "offset": 0, "minimum": 1, "maximum": 1, "default": 1},
            "fps": {"default": 1, "minimum": 1, "maximum": 1},
            "negative": False,
            "licence": {"id": "unknown", "url": "https://example.invalid"},
            "remote": {"settings": {"server": name, PROBLEM: problem}},
            "unverified": [problem],
        }
    )
