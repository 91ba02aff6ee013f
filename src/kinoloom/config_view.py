"""How are the settings shown: as a file to begin with, and as they hold?"""

from __future__ import annotations

import json
import os
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from kinoloom import config_schema
from kinoloom.config import FILE_NAME, Settings
from kinoloom.config_load import HIDDEN, Loaded, dotted, variable, without_secrets
from kinoloom.config_schema import Keys

_WIDTH = 96
_HEAD = f"""\
## The settings of Kinoloom. It reads the {FILE_NAME} of the current folder, else that of your
## configuration folder; `kinoloom config check` explains mistakes in it, and `kinoloom config show`
## says what holds and where it comes from.
##
## Lines that begin with ## explain. Every other line is a setting with its default or an example:
## take its first # away, and those of the sections that it stands in, to set it.
##
## ${{NAME}} anywhere in a value is that environment variable, which must be set; ${{NAME:-else}} is
## `else` where it is not. Paths are relative to this file. An environment variable may set each of
## these as well, and is stronger: KINOLOOM_DEVICE=cpu, KINOLOOM_BUDGETS__DAY=5.
"""


def sample() -> str:
    """A settings file with every setting in a comment: what it is, its default or an example."""
    lines = [_HEAD.rstrip()]
    for name, info in Settings.model_fields.items():
        lines += ["", *_entry((name,), info, 0)]
    return "\n".join(lines) + "\n"


def rows(loaded: Loaded) -> list[dict[str, Any]]:
    """Every setting as it holds, JSON-ready: its name, value, and who says so.

    Secrets are shown as ``***``. A service's own variable is named where it counts.
    """
    return list(_rows((), loaded.settings, loaded))


def _entry(keys: Keys, info: FieldInfo, depth: int) -> Iterator[str]:
    """A setting's lines, or a section's with all below it."""
    indent = "  " * depth
    below = config_schema.fields_of(info.annotation)
    named = config_schema.named_values(info.annotation)
    default = _default(info)
    told = (info.description or "") + _defaults_words(info, default)
    for line in textwrap.wrap(told, _WIDTH - len(indent)):
        yield f"## {indent}{line}"
    if below is None and named is None:
        examples = info.examples or [""]
        value = examples[0] if default in (None, ()) else default
        yield f"#{indent}{keys[-1]}: {_yaml(value)}".rstrip()
        return
    yield f"#{indent}{keys[-1]}:"
    if named is not None:
        name = (info.examples or ["name"])[0]
        below, indent, depth = config_schema.fields_of(named), indent + "  ", depth + 1
        yield f"#{indent}{name}:"
        keys = (*keys, name)
    for name, field in (below or {}).items():
        yield from _entry((*keys, name), field, depth + 1)


def _default(info: FieldInfo) -> Any:
    if info.default_factory is not None:
        home = Settings.model_fields["home"].get_default(call_default_factory=True)
        return info.get_default(call_default_factory=True, validated_data={"home": home})
    return None if info.default is PydanticUndefined else info.default


def _defaults_words(info: FieldInfo, default: Any) -> str:
    if info.is_required():
        return "; it has to be set"
    if isinstance(default, BaseModel) or config_schema.is_section(info.annotation):
        return ""
    if default in (None, ()):
        return " (not set by default)"
    return f" (default: {_words(default)})"


def _words(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple | list):
        return ", ".join(map(_words, value))
    if isinstance(value, int) and value >= 1024**2 and value % 1024**2 == 0:
        whole = value % 1024**3 == 0
        return f"{value // 1024**3}GiB" if whole else f"{value // 1024**2}MiB"
    return f"{value:g}" if isinstance(value, float) else str(value)


def _yaml(value: Any) -> str:
    """A value as YAML of one line. JSON is YAML; plain words need no quotes."""
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_yaml(item) for item in value) + "]"
    text = _words(value)
    plain = (text[:1].isalnum() or text[:1] == "/") and not set(text) & set("#:{}[],&*!|>'\"%@`")
    return text if plain or text == "" else json.dumps(text, ensure_ascii=False)


def _rows(keys: Keys, section: BaseModel, loaded: Loaded) -> Iterator[dict[str, Any]]:
    for name, info in type(section).model_fields.items():
        value, here = getattr(section, name), (*keys, name)
        if isinstance(value, BaseModel):
            yield from _rows(here, value, loaded)
        elif isinstance(value, Mapping) and value:
            for key, item in value.items():
                yield from _rows((*here, key), item, loaded)
        else:
            yield _row(here, info, value, loaded)


def _row(keys: Keys, info: FieldInfo, value: Any, loaded: Loaded) -> dict[str, Any]:
    given = loaded.given.get(keys)
    source: dict[str, Any] = {"where": "default", "file": None, "line": None}
    if given is not None:
        place = given.where if given.file is None else f"{given.file}, line {given.line}"
        source = given.as_dict() | {"where": place}
    elif value is None:
        own = [name for name in config_schema.variables(info) if os.environ.get(name)]
        if own:
            source["where"] = f"the environment variable {own[0]}"
            value = HIDDEN if config_schema.holds_secret(info.annotation) else os.environ[own[0]]
    return {
        "name": dotted(keys),
        "value": _json(value),
        # A name with a dash or a dot cannot be that of a variable.
        "variable": variable(keys) if all(str(k).isidentifier() for k in keys) else None,
        **source,
    }


def _json(value: Any) -> Any:
    """A value as JSON has it. Money stays text, so that it stays exact."""
    if isinstance(value, SecretStr):
        return HIDDEN
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, tuple | list):
        return [_json(item) for item in value]
    if isinstance(value, Mapping):
        return {}
    return str(value) if isinstance(value, Path) else without_secrets(str(value))
