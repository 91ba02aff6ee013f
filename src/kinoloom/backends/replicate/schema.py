"""What does a model on Replicate take, as its own input schema says?

Each version of a model publishes an OpenAPI document whose schema ``Input`` has a property for each
thing that may be sent. Enumerations stand in schemas of their own, referred to by ``$ref``, alone
or within ``allOf``; what may be null is one way of an ``anyOf``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import yaml

from kinoloom.errors import ModelBroken

_DEEPEST = 8  # references that lead on to others; a circle has no end
Name = str


@dataclass(frozen=True)
class Field:
    """One thing that a model takes.

    `kind` is the JSON type, "" where the schema names none; `choices` what is allowed at all, in
    the order of the schema; `minimum` and `maximum` of a number; `most` of the items of an array.
    `file` is whether it, or each of its items, is a file.
    """

    name: str
    kind: str
    choices: tuple[Any, ...] = ()
    minimum: float | None = None
    maximum: float | None = None
    most: int | None = None
    file: bool = False
    required: bool = False
    default: Any = None


def fields_of(document: Mapping[str, Any], model: str) -> dict[str, Field]:
    """The fields of the model whose OpenAPI `document` this is, by name.

    Raises ModelBroken where there is no schema that can be read.
    """
    schemas = _mapping(_mapping(document, "components"), "schemas")
    entry = _mapping(schemas, "Input")
    properties = _mapping(entry, "properties")
    if not properties:
        raise ModelBroken(
            f"{model} does not say what it takes.",
            cause="Replicate has no input schema of it.",
            hints=["Take another version of the model, or another model."],
        )
    required = entry.get("required")
    needed = set(required) if isinstance(required, list) else set()
    return {
        name: _field(name, _resolved(found, schemas), name in needed)
        for name, found in properties.items()
        if isinstance(found, dict)
    }


@cache
def known_names() -> Mapping[str, tuple[Name, ...]]:
    """The names by which models take what an order says, ``fields.yaml``."""
    file = resources.files("kinoloom.backends.replicate") / "fields.yaml"
    entries = yaml.safe_load(file.read_text(encoding="utf-8"))
    return {what: tuple(names) for what, names in entries.items()}


def named(what: str, fields: Mapping[str, Field]) -> Field | None:
    """The field that takes `what`, an entry of ``fields.yaml``; None where the model has none."""
    for name in known_names()[what]:
        if name in fields:
            return fields[name]
    return None


def _field(name: str, schema: Mapping[str, Any], required: bool) -> Field:
    items = _mapping(schema, "items")
    choices = schema.get("enum")
    return Field(
        name=name,
        kind=str(schema.get("type", "")),
        choices=tuple(choices) if isinstance(choices, list) else (),
        minimum=_number(schema.get("minimum")),
        maximum=_number(schema.get("maximum")),
        most=int(most) if (most := _number(schema.get("maxItems"))) is not None else None,
        file="uri" in (schema.get("format"), items.get("format")),
        required=required and "default" not in schema,
        default=schema.get("default"),
    )


def _resolved(
    schema: Mapping[str, Any], schemas: Mapping[str, Any], depth: int = 0
) -> Mapping[str, Any]:
    """A schema with what it refers to put in; what stands beside a reference counts more."""
    if depth > _DEEPEST:
        return {}
    merged: dict[str, Any] = {}
    reference = schema.get("$ref")
    if isinstance(reference, str):
        target = schemas.get(reference.rpartition("/")[2])
        if isinstance(target, dict):
            merged |= _resolved(target, schemas, depth + 1)
    for part in schema.get("allOf") or ():
        if isinstance(part, dict):
            merged |= _resolved(part, schemas, depth + 1)
    for ways in ("anyOf", "oneOf"):
        found = [w for w in schema.get(ways) or () if isinstance(w, dict)]
        real = [w for w in found if w.get("type") != "null"]
        if real:
            merged |= _resolved(real[0], schemas, depth + 1)
    own = {k: v for k, v in schema.items() if k not in ("$ref", "allOf", "anyOf", "oneOf")}
    if isinstance(own.get("items"), dict):
        own["items"] = _resolved(own["items"], schemas, depth + 1)
    return merged | own


def _mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    found = parent.get(key)
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None
