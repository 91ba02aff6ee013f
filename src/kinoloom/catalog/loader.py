"""Which model cards are there, Kinoloom's own and the user's, and what is wrong with a broken one?

The packaged cards come first, then every ``*.yaml`` of the user's folder. A card that cannot be
read is left out and reported in `Catalog.problems`; it never hides the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib import resources
from pathlib import Path

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.reading import CardProblem, CatalogProblems, os_reason, read_cards
from kinoloom.errors import ModelNotFound, nearest_names
from kinoloom.request import Task


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
        cards = dict(_packaged())
        problems: list[CardProblem] = []
        notices: list[str] = []
        own: dict[str, Path] = {}
        try:
            files = _users(extra) if extra is not None else []
        except OSError as error:
            problems.append(CardProblem(str(extra), "", os_reason(error)))
            files = []
        for file in files:
            try:
                found = read_cards(file)
            except CatalogProblems as broken:
                problems.extend(broken.problems)
                continue
            for card in found:
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

    def with_cards(self, more: Iterable[ModelCard]) -> Catalog:
        """These models and `more`, which do not take the place of one that is there."""
        added = {card.id: card for card in more if card.id not in self._cards}
        return Catalog(self._cards | added, self.problems, self.notices)

    def get(self, model: str) -> ModelCard:
        """The card of a model.

        Raises ModelNotFound for an unknown id, with the ids that look most like it.
        """
        if model in self._cards:
            return self._cards[model]
        close = nearest_names(model, self._cards)
        hints = [f"Did you mean {' or '.join(close)}?"] if close else []
        hints.append("See all models: kinoloom models list")
        cause = f"It is none of the {len(self._cards)} that are known here."
        if not close:
            cause = f"Known models: {', '.join(sorted(self._cards)) or 'none'}."
        broken = [p for p in self.problems if Path(p.file).stem == model]
        if broken:
            cause += "".join(f"\nA card of that name cannot be read: {p}" for p in broken)
        raise ModelNotFound(f"There is no model {model!r}.", cause=cause, hints=hints)

    def list(self) -> tuple[ModelCard, ...]:
        """All cards, by id."""
        return tuple(card for _, card in sorted(self._cards.items()))

    def doing(self, task: Task) -> tuple[ModelCard, ...]:
        """The cards of the models that can do a task, by id."""
        able = (card for card in self._cards.values() if task in card.pipelines)
        return tuple(sorted(able, key=lambda card: card.id))

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


@cache
def _packaged() -> Mapping[str, ModelCard]:
    """Our own cards by id, which stay what they are while a program runs.

    A broken one is a bug, not something to skip.
    """
    folder = resources.files("kinoloom.catalog") / "cards"
    files = sorted(Path(str(f)) for f in folder.iterdir() if f.name.endswith(".yaml"))
    return {card.id: card for file in files for card in read_cards(file)}


def _users(folder: Path) -> list[Path]:
    if not folder.exists():
        return []
    return sorted(f for f in folder.iterdir() if f.suffix in (".yaml", ".yml") and f.is_file())
