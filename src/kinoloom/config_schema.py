"""What does the schema of the settings say of a setting at any depth?

A setting is named by its keys from the outermost section on, ``("backends", "runway", "api_key")``;
where the user gives names (servers, models), any name is a key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from kinoloom.config import Settings

Keys = tuple[str | int, ...]
"""The names that lead to a setting; a number counts the items of a list."""


def annotation_at(keys: Keys) -> Any:
    """The type of a setting or section, of a list for an item of it; None for one there is not."""
    found: Any = Settings
    for key in (key for key in keys if isinstance(key, str)):
        fields = fields_of(found)
        if fields is not None:
            info = fields.get(key)
            found = None if info is None else info.annotation
        else:
            found = named_values(found)
        if found is None:
            return None
    return found


def info_at(keys: Keys) -> FieldInfo | None:
    """What is known of a setting beside its type; that of the list for an item of one."""
    for length in range(len(keys), 0, -1):
        fields = fields_of(annotation_at(keys[: length - 1])) or {}
        if (info := fields.get(str(keys[length - 1]))) is not None:
            return info
    return None


def fields_of(annotation: Any) -> Mapping[str, FieldInfo] | None:
    """The settings of a section; None for what is no section."""
    for part in _parts(annotation):
        if isinstance(part, type) and issubclass(part, BaseModel):
            return part.model_fields
    return None


def named_values(annotation: Any) -> Any:
    """The type of what users name themselves; None where they name nothing."""
    for part in _parts(annotation):
        if get_origin(part) is dict:
            return get_args(part)[1]
    return None


def is_section(annotation: Any) -> bool:
    """Whether there are settings below, and no value of its own."""
    return fields_of(annotation) is not None or named_values(annotation) is not None


def holds_secret(annotation: Any) -> bool:
    """Whether a setting, or any below it, is a secret."""
    return any(part is SecretStr for part in _all_parts(annotation))


def is_path(keys: Keys) -> bool:
    """Whether a setting names a place on the disk, which a file gives relative to itself."""
    extra = extra_of(info_at(keys))
    return bool(extra.get("place")) or any(
        part is Path for part in _parts(annotation_at(keys), lists=True)
    )


def choices(keys: Keys) -> tuple[str, ...]:
    """The words that a setting may be, where there are only some."""
    told = extra_of(info_at(keys)).get("choices", ())
    literals = (
        word
        for part in _parts(annotation_at(keys))
        if get_origin(part) is Literal
        for word in get_args(part)
    )
    return (*told, *literals)


def variables(info: FieldInfo) -> tuple[str, ...]:
    """The environment variables of a service's own SDK that count where a setting is left out."""
    return tuple(extra_of(info).get("variables", ()))


def extra_of(info: FieldInfo | None) -> Mapping[str, Any]:
    """What a field's definition says beyond pydantic's own words."""
    extra = info.json_schema_extra if info is not None else None
    return extra if isinstance(extra, dict) else {}


def _parts(annotation: Any, *, lists: bool = False) -> Iterator[Any]:
    """A type and, of a union or an annotated type, its members; with `lists` those of tuples."""
    origin = get_origin(annotation)
    if annotation is None:
        return
    yield annotation
    if origin is None or origin is Literal or (origin in (dict, tuple, list) and not lists):
        return
    for part in get_args(annotation):
        if isinstance(part, type) or get_origin(part) is not None:
            yield from _parts(part, lists=lists)


def _all_parts(annotation: Any) -> Iterator[Any]:
    """Every type that values within a setting or section have."""
    for part in _parts(annotation, lists=True):
        yield part
        if isinstance(part, type) and get_origin(part) is None and issubclass(part, BaseModel):
            for info in part.model_fields.values():
                yield from _all_parts(info.annotation)
