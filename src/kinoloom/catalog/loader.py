"""Which model cards are there, Kinoloom's own and the user's, and what is wrong with a broken one?

The packaged cards come first, then every ``*.yaml`` of the user's folder. A card that cannot be
read is left out and reported in `Catalog.problems`; it never hides the others.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from kinoloom.catalog.card import ModelCard, Source
from kinoloom.errors import ErrorKind, KinoloomError, ModelNotFound, nearest_names
from kinoloom.request import Task

MAX_CARD_BYTES = 64 * 1024
"""A card is a page of text; anything larger is another kind of file."""


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


class Catalog:
    """The models that Kinoloom knows, by id.

    `problems` are the cards left out and why; `notices` say what a user should know about the
    rest, such as a card of theirs that takes the place of a packaged one.
    """

    def __init__(
        self,
        cards: Mapping[str, ModelCard],
        problems: tuple[CardProblem, ...] = (),
        notices: tuple[str, ...] = (),
    ) -> None:
        self._cards = dict(cards)
        self.problems = problems
        self.notices = notices

    @classmethod
    def load(cls, extra: Path | None = None) -> Catalog:
        """The packaged cards and those in the folder `extra`, which need not exist.

        A user's card takes the place of a packaged one with the same id, and `notices` says so.
        """
        cards: dict[str, ModelCard] = {}
        problems: list[CardProblem] = []
        notices: list[str] = []
        for file in sorted(_packaged(), key=lambda f: f.name):
            card = read_card(file)  # a broken card of our own is a bug, not something to skip
            cards[card.id] = card
        own: dict[str, Path] = {}
        try:
            files = _users(extra) if extra is not None else []
        except OSError as error:
            problems.append(CardProblem(str(extra), "", _os_reason(error)))
            files = []
        for file in files:
            try:
                card = read_card(file)
            except CatalogProblems as broken:
                problems.extend(broken.problems)
                continue
            if card.id in own:
                reason = f"{card.id!r} is the id of {own[card.id].name} already"
                problems.append(CardProblem(str(file), "id", reason))
                continue
            if card.id in cards:
                notices.append(
                    f"The card {file} takes the place of Kinoloom's own model {card.id!r}."
                )
            own[card.id] = file
            cards[card.id] = card
        return cls(cards, tuple(problems), tuple(notices))

    def get(self, model: str) -> ModelCard:
        """The card of a model.

        Raises ModelNotFound for an unknown id, with the ids that look most like it.
        """
        if model in self._cards:
            return self._cards[model]
        known = ", ".join(sorted(self._cards)) or "none"
        close = nearest_names(model, self._cards)
        hints = [f"Did you mean {' or '.join(close)}?"] if close else []
        hints.append("See all models: kinoloom models list")
        cause = f"Known models: {known}."
        broken = [p for p in self.problems if Path(p.file).stem == model]
        if broken:
            cause += "".join(f"\nA card of that name cannot be read: {p}" for p in broken)
        raise ModelNotFound(f"There is no model {model!r}.", cause=cause, hints=hints)

    def list(self) -> tuple[ModelCard, ...]:
        """All cards, by id."""
        return tuple(card for _, card in sorted(self._cards.items()))

    def doing(self, task: Task) -> tuple[ModelCard, ...]:
        """The cards of the models that can do a task, by id."""
        return tuple(card for card in self.list() if task in card.pipelines)

    def check(self) -> None:
        """Raise CatalogProblems when any card could not be read."""
        if self.problems:
            raise CatalogProblems(self.problems)

    def __iter__(self) -> Iterator[ModelCard]:
        return iter(self.list())

    def __len__(self) -> int:
        return len(self._cards)

    def __contains__(self, model: object) -> bool:
        return model in self._cards


def read_card(file: Path) -> ModelCard:
    """The card in a YAML file, with a relative weights path resolved against the file's folder.

    Raises CatalogProblems listing every mistake in it.
    """
    try:
        stat = file.stat()
    except OSError as error:
        raise CatalogProblems((CardProblem(str(file), "", _os_reason(error)),)) from error
    return _read_card(file, stat.st_mtime_ns, stat.st_size)


@lru_cache(maxsize=256)
def _read_card(file: Path, modified: int, size: int) -> ModelCard:
    """`read_card`; time of change and size are there for the cache to notice changes."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_CARD_BYTES + 1)
        if len(raw) > MAX_CARD_BYTES:
            raise _CardError(f"larger than the {MAX_CARD_BYTES // 1024} kB a card may have")
        data = yaml.load(raw.decode("utf-8"), Loader=_CardLoader)  # noqa: S506 (a SafeLoader)
    except OSError as error:
        raise CatalogProblems((CardProblem(str(file), "", _os_reason(error)),)) from error
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
    try:
        card = ModelCard.model_validate(data)
    except ValidationError as error:
        raise CatalogProblems(tuple(_mistakes(file, error))) from error
    if card.source.path is not None:
        folder = (file.parent / card.source.path.expanduser()).absolute()
        card = card.model_copy(update={"source": Source(path=folder)})
    return card


class _CardError(Exception):
    """A file that is no card at all."""


class _CardLoader(yaml.SafeLoader):
    """YAML without its surprises: no aliases, which can grow without bound; no repeated keys."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            event = self.peek_event()  # type: ignore[no-untyped-call]
            raise yaml.constructor.ConstructorError(
                None, None, "aliases (*name) are not allowed in a card", event.start_mark
            )
        return super().compose_node(parent, index)

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
        return super().construct_mapping(node, deep)


def _packaged() -> list[Path]:
    folder = resources.files("kinoloom.catalog") / "cards"
    return [Path(str(f)) for f in folder.iterdir() if f.name.endswith(".yaml")]


def _users(folder: Path) -> list[Path]:
    if not folder.exists():
        return []
    return sorted(f for f in folder.iterdir() if f.suffix in (".yaml", ".yml") and f.is_file())


def _mistakes(file: Path, error: ValidationError) -> Iterator[CardProblem]:
    fields = list(ModelCard.model_fields)
    for mistake in error.errors(include_url=False, include_input=False, include_context=False):
        where = ".".join(str(part) for part in mistake["loc"])
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


def _os_reason(error: OSError) -> str:
    return f"cannot be read: {error.strerror or error}"
