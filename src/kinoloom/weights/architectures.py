"""Which architecture is a model built by, as far as its names and shapes tell?"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from kinoloom.errors import KinoloomError
from kinoloom.weights.files import Header, read_json


@dataclass(frozen=True)
class Shape:
    """An axis of a tensor whose length is the product of fields of a component's config."""

    key: str
    axis: int
    component: str
    fields: tuple[str, ...]


@dataclass(frozen=True)
class Architecture:
    """A way to build a model: the tensors that tell it, and the pipelines that run it."""

    name: str
    keys: frozenset[str]
    without: frozenset[str]
    classes: frozenset[str]
    shapes: tuple[Shape, ...]


def of_file(header: Header) -> Architecture | None:
    """The architecture of a single file's tensors; None for one that is not known."""
    names = set(header.shapes)
    for known in _table()[0]:
        if _present(names, known.keys) and not _present(names, known.without):
            return known
    return None


def of_class(pipeline: str) -> Architecture | None:
    """The architecture that a pipeline class of diffusers runs; None for one that is not known."""
    return next((a for a in _table()[0] if pipeline in a.classes), None)


def is_lora(header: Header) -> bool:
    """Whether the tensors are those of a LoRA, which changes a model and is none."""
    marks = _table()[1]
    return any(mark in name for name in header.shapes for mark in marks)


def fits(architecture: Architecture, header: Header, folder: Path) -> bool:
    """Whether a folder in diffusers' layout describes a model of the file's shapes."""
    for shape in architecture.shapes:
        found = [
            header.shapes[p + shape.key] for p in _prefixes() if p + shape.key in header.shapes
        ]
        try:
            config = read_json(folder / shape.component / "config.json")
        except KinoloomError:
            return False
        numbers = [config.get(name) for name in shape.fields]
        if not found or len(found[0]) <= shape.axis or not all(type(n) is int for n in numbers):
            return False
        if found[0][shape.axis] != math.prod(n for n in numbers if n is not None):
            return False
    return True


def _present(names: set[str], keys: Iterable[str]) -> bool:
    return any(prefix + key in names for key in keys for prefix in _prefixes())


def _prefixes() -> tuple[str, ...]:
    return _table()[2]


@lru_cache(maxsize=1)
def _table() -> tuple[tuple[Architecture, ...], tuple[str, ...], tuple[str, ...]]:
    """The architectures, the marks of a LoRA's tensors, and the prefixes of names."""
    text = (resources.files("kinoloom.weights") / "architectures.yaml").read_text(encoding="utf-8")
    data: dict[str, Any] = yaml.safe_load(text)
    known = tuple(
        Architecture(
            entry["name"],
            frozenset(entry.get("any", ())),
            frozenset(entry.get("none", ())),
            frozenset(entry["classes"]),
            tuple(
                Shape(s["key"], s["axis"], s["component"], tuple(s["fields"]))
                for s in entry.get("shapes", ())
            ),
        )
        for entry in data["architectures"]
    )
    return known, tuple(data["lora"]), tuple(data["prefixes"])
