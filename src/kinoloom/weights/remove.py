"""How does a model leave this disk, and what of it stays?

A user's card goes, the files that it points to stay. Of a model of Kinoloom's the downloaded
repositories go, except those that another model on this disk uses as well.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.reading import CatalogProblems, read_cards
from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest, KinoloomError, OutputFailed, Problem
from kinoloom.store.models import Models
from kinoloom.weights import cache
from kinoloom.weights.places import Places
from kinoloom.weights.pull import wishes


@dataclass(frozen=True)
class Removal:
    """What goes: files and folders, and their bytes; `kept` says what stays and why."""

    model: str
    paths: tuple[Path, ...]
    size: int
    kept: tuple[str, ...]


def plan(card: ModelCard, settings: Settings, catalog: Catalog) -> Removal:
    """What removing a model would remove, without doing it.

    Raises InvalidRequest for a model that cannot be removed: one that comes with Kinoloom, or a
    card in a file with others.
    """
    own = _card_file(card.id, settings.models)
    if own is not None:
        kept = [str(p) for p in (card.source.path, card.source.file) if p is not None]
        return Removal(card.id, (own,), own.stat().st_size, tuple(f"{k} is yours" for k in kept))
    repos = list(dict.fromkeys(w.repo for w in wishes(card)))
    if not repos:
        raise InvalidRequest(
            [Problem("model", card.id, "one that was pulled or added")],
            message=f"{card.id} comes with Kinoloom and cannot be removed.",
        )
    places = Places.of(settings)
    users = {r: _users_of(r, card, catalog, places) for r in repos}
    kept = [f"{r} is used by {', '.join(u)}" for r, u in users.items() if u]
    folders = [cache.repo_folder(r) for r in repos if not users[r]]
    there = tuple(f for f in folders if f.is_dir() and not f.is_symlink())
    if not there:
        raise InvalidRequest(
            [Problem("model", card.id, "one that was pulled")],
            message=f"Nothing of {card.id} is in {cache.cache_root()}.",
            hints=kept or ["See what is on this disk: kinoloom models list"],
        )
    return Removal(card.id, there, sum(map(_size, there)), tuple(kept))


def remove(removal: Removal, card: ModelCard, models: Models) -> None:
    """Carry a removal out, and forget the revisions that were pinned.

    Raises OutputFailed when something cannot be deleted.
    """
    for path in removal.paths:
        try:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        except OSError as error:
            raise OutputFailed(
                f"{path} cannot be removed.",
                cause=error.strerror or str(error),
                hints=["Check the folder's permissions, and that nothing uses it."],
            ) from error
    for wish in wishes(card):
        if cache.repo_folder(wish.repo) in removal.paths:
            models.unpin(wish.repo)


def _card_file(model: str, folder: Path) -> Path | None:
    """The user's file with that card; InvalidRequest when others stand in it too."""
    files = folder.iterdir() if folder.is_dir() else []
    for file in sorted(f for f in files if f.suffix in (".yaml", ".yml")):
        try:
            ids = [c.id for c in read_cards(file)]
        except CatalogProblems:
            continue
        if model in ids and len(ids) > 1:
            raise InvalidRequest(
                [Problem("model", model, "one with a card file of its own")],
                hints=[f"Take it out of {file} by hand: other models are in there too."],
            )
        if model in ids:
            return file
    return None


def _users_of(repo: str, card: ModelCard, catalog: Catalog, places: Places) -> list[str]:
    """The other models on this disk that use a repository."""
    found = []
    for other in catalog.list():
        if other.id != card.id and any(w.repo == repo for w in wishes(other)):
            try:
                places.find(other)
            except KinoloomError:
                continue
            found.append(other.id)
    return found


def _size(folder: Path) -> int:
    """Bytes of a folder's files; a link counts as itself."""
    return sum(f.lstat().st_size for f in folder.rglob("*") if f.is_symlink() or f.is_file())
