"""How does a tiny model follow the card of the real one, and how are its weights made to matter?"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import torch
import yaml

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.reading import read_cards

_NOT_TINY = ("presets", "memory", "timing", "unverified")


def card(file: str, model: str) -> ModelCard:
    """The card `model` in the packaged file of a family."""
    place = resources.files("kinoloom.catalog") / "cards" / f"{file}.yaml"
    found = {c.id: c for c in read_cards(Path(str(place)))}
    return found[model]


def write_card(folder: Path, name: str, file: str, model: str, changes: Mapping[str, Any]) -> None:
    """Write ``tiny-<name>.yaml``: the packaged card of `model`, with `changes`.

    Its weights are expected in the folder ``tiny-<name>`` beside it.
    """
    real = card(file, model).model_dump(mode="json", exclude_unset=True, by_alias=True)
    data = {key: value for key, value in real.items() if key not in _NOT_TINY}
    data |= {"id": f"tiny-{name}", "title": f"Tiny {name}", "source": {"path": f"tiny-{name}"}}
    text = yaml.safe_dump(data | dict(changes), sort_keys=False, allow_unicode=True)
    folder.joinpath(f"tiny-{name}.yaml").write_text(text, encoding="utf-8")


def loud(model: torch.nn.Module) -> None:
    """Scale a model's weights so that its inputs matter: torch's defaults lose the signal."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Conv2d | torch.nn.Conv3d | torch.nn.Linear):
                module.weight.normal_(0.0, module.weight[0].numel() ** -0.5)
