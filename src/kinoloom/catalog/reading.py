"""What does a card file say, and what is wrong with it?

A file holds one card, or a family of them: ``shared`` has the fields that they have in common, and
each of ``models`` is a card on top of it. Mappings are merged, everything else takes the place of
what is shared.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.source import Part, Source
from kinoloom.errors import ErrorKind, KinoloomError, nearest_names

MAX_CARD_BYTES = 64 * 1024
"""A card file is a few pages of text; anything larger is another kind of file."""


@dataclass(frozen=True)
class CardProblem:
    """One mistake in a card: the file, the field within it (empty: all of it) and the reason."""

    file: str
    field: str
    reason: str

    def __str__(self) -> str:
        place = f"{self.file}: {self.field}" if self.field else self.file
        return f"{place}: {self.reason}"


class CatalogProblems(KinoloomError):
    """Some cards cannot be read; `problems` lists every mistake of every one of them."""

    kind = ErrorKind.INVALID_PARAMS

    def __init__(self, problems: tuple[CardProblem, ...]) -> None:
        self.problems = problems
        count = len({p.file for p in problems})
        super().__init__(
            f"{count} model card{'s' if count != 1 else ''} cannot be read.",
            cause="\n".join(str(p) for p in problems),
            hints=("Correct the file or remove it; the other models work meanwhile.",),
        )


def read_cards(file: Path) -> tuple[ModelCard, ...]:
    """The cards in a YAML file, with relative paths resolved against the file's folder.

    Raises CatalogProblems listing every mistake in it.
    """
    try:
        stat = file.stat()
    except OSError as error:
        raise CatalogProblems((CardProblem(str(file), "", os_reason(error)),)) from error
    return _read_cards(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _read_cards(file: Path, modified: int, size: int) -> tuple[ModelCard, ...]:
    """`read_cards`; time of change and size are there for the cache to notice changes."""
    data = read_mapping(file)
    cards: list[ModelCard] = []
    problems: list[CardProblem] = []
    for where, fields in _entries(file, data):
        try:
            cards.append(_resolved(ModelCard.model_validate(fields), file.parent))
        except ValidationError as error:
            problems.extend(_mistakes(file, where, error))
    ids = [card.id for card in cards]
    twice = sorted({n for n in ids if ids.count(n) > 1})
    problems += [CardProblem(str(file), "models", f"the id {n!r} stands twice") for n in twice]
    if problems:
        raise CatalogProblems(tuple(problems))
    return tuple(cards)


def read_mapping(file: Path) -> dict[str, Any]:
    """The mapping in a card file. Raises CatalogProblems for a file that is none."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_CARD_BYTES + 1)
        if len(raw) > MAX_CARD_BYTES:
            raise _CardError(f"larger than the {MAX_CARD_BYTES // 1024} kB a card may have")
        text = raw.decode("utf-8")
        for event in yaml.parse(text, Loader=_CardLoader):
            if isinstance(event, yaml.AliasEvent):  # they can grow without bound
                raise _CardError("aliases (*name) are not allowed in a card")
        data = yaml.load(text, Loader=_CardLoader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise CatalogProblems((CardProblem(str(file), "", os_reason(error)),)) from error
    except UnicodeDecodeError as error:
        raise CatalogProblems((CardProblem(str(file), "", "not UTF-8 text"),)) from error
    except _CardError as error:
        raise CatalogProblems((CardProblem(str(file), "", str(error)),)) from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        # ValueError: a date such as 2026-02-31 is refused by datetime, not by the YAML parser.
        reason = f"not valid YAML: {_yaml_reason(error)}"
        raise CatalogProblems((CardProblem(str(file), "", reason),)) from error
    if not isinstance(data, dict):
        problem = CardProblem(str(file), "", "must be a mapping of fields to values")
        raise CatalogProblems((problem,))
    return data


def _entries(file: Path, data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The fields of each card of a file, and where in it they stand."""
    if "models" not in data:
        yield "", data
        return
    shared, models = data.get("shared") or {}, data["models"]
    foreign = sorted(str(key) for key in data.keys() - {"shared", "models"})
    reason = None
    if foreign:
        reason = f"beside `models` only `shared` may stand, not {', '.join(foreign)}"
    elif not isinstance(shared, dict):
        reason = "`shared` must be a mapping of fields to values"
    elif not isinstance(models, list) or not all(isinstance(m, dict) for m in models):
        reason = "`models` must be a list of mappings"
    if reason is not None:
        raise CatalogProblems((CardProblem(str(file), "", reason),))
    for index, model in enumerate(models):
        yield f"models.{index}", _merged(shared, model)


def _merged(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Two mappings as one, `above` counting where both say something."""
    both = dict(below)
    for key, value in above.items():
        known = both.get(key)
        mappings = isinstance(known, dict) and isinstance(value, dict)
        both[key] = _merged(known, value) if mappings else value  # type: ignore[arg-type]
    return both


def _resolved(card: ModelCard, folder: Path) -> ModelCard:
    """The card with its paths made absolute; they are relative to the card's own folder."""

    def absolute(path: Path | None) -> Path | None:
        return None if path is None else (folder / path.expanduser()).absolute()

    source = card.source
    parts = {
        name: Part.model_validate(part.model_dump() | {"path": absolute(part.path)})
        for name, part in source.parts.items()
    }
    places = {name: absolute(getattr(source, name)) for name in ("path", "file", "config")}
    resolved = Source.model_validate(source.model_dump() | places | {"parts": parts})
    return card.model_copy(update={"source": resolved})


class _CardError(Exception):
    """A file that is no card at all."""


# The parser in C is ten times as fast; it comes with PyYAML's wheels.
class _CardLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """YAML in which a repeated key is a mistake."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[Any] = set()
        for key, _ in node.value:
            name = key.value
            if isinstance(name, str) and name in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"the key {name!r} stands twice", key.start_mark
                )
            if isinstance(name, str):
                seen.add(name)
        found: dict[Hashable, Any] = super().construct_mapping(node, deep)
        return found


def _mistakes(file: Path, place: str, error: ValidationError) -> Iterator[CardProblem]:
    fields = list(ModelCard.model_fields)
    for mistake in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join([*([place] if place else []), *map(str, mistake["loc"])])
        reason = mistake["msg"].removeprefix("Value error, ")
        if mistake["type"] == "extra_forbidden":
            reason = "no such field"
            close = nearest_names(str(mistake["loc"][-1]), fields, count=1)
            if close and len(mistake["loc"]) == 1:
                reason += f"; did you mean {close[0]}?"
        elif mistake["type"] == "missing":
            reason = "is missing"
        yield CardProblem(str(file), where, reason)


def _yaml_reason(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark
        line = f" in line {mark.line + 1}" if mark is not None else ""
        return f"{error.problem or error.context}{line}"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def os_reason(error: OSError) -> str:
    """Why a file or folder cannot be read, in words."""
    return f"cannot be read: {error.strerror or error}"
