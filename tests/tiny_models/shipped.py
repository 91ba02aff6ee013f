"""How does a tiny model follow the card of the real one?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog

STEPS = {"default": 2, "minimum": 1, "maximum": 8, "preview": 2, "standard": 2, "premium": 3}
"""Few steps, in place of the real model's."""

_NOT_TINY = ("presets", "memory", "timing", "notes", "unverified", "suggests")


def card(model: str) -> ModelCard:
    """The packaged card of a model."""
    return _catalog().get(model)


def write_card(folder: Path, name: str, model: str, changes: Mapping[str, Any]) -> None:
    """Write ``tiny-<name>.yaml``: the packaged card of `model`, with `changes` and few steps.

    Its weights are expected in the folder ``tiny-<name>`` beside it, unless the changes say where.
    Sections are merged with the real card's, but for the source.
    """
    real = card(model).model_dump(mode="json", exclude_unset=True, by_alias=True)
    data = {key: value for key, value in real.items() if key not in _NOT_TINY}
    data |= {"id": f"tiny-{name}", "title": f"Tiny {name}", "source": {"path": f"tiny-{name}"}}
    for key, value in {"steps": STEPS, **changes}.items():
        merge = key != "source" and isinstance(data.get(key), dict)
        data[key] = {**data[key], **value} if merge else value
    text = yaml.safe_dump(data, sort_keys=False, allow_unicode=True)
    folder.joinpath(f"tiny-{name}.yaml").write_text(text, encoding="utf-8")


@cache
def _catalog() -> Catalog:
    return Catalog.load()
