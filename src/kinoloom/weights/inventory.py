"""What does a model need of this machine, and which command gives what is not here?"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from kinoloom.catalog.card import ModelCard
from kinoloom.errors import KinoloomError
from kinoloom.weights import cache
from kinoloom.weights.layout import Need
from kinoloom.weights.places import Places, needs, remedy
from kinoloom.weights.pull import restricted, wishes


@dataclass(frozen=True)
class Inventory:
    """What a model needs and has. Sizes are in bytes, None where nobody knows.

    `place` is where its weights are, `disk_place` where the rest would be downloaded to, and
    `disk_needed` how much that is, as far as the card tells. `vram_needed` is what its largest
    component needs, `vram_all` all of them together. `pinned` maps repositories to the commit in
    use, `newer` to one that can be had.
    """

    model: str
    place: str | None
    files: tuple[Need, ...]
    size: int
    disk_place: str
    disk_needed: int | None
    disk_free: int | None
    vram_needed: int | None
    vram_all: int | None
    vram_free: int | None
    packages: tuple[str, ...]
    licence: dict[str, Any]
    pinned: dict[str, str]
    newer: dict[str, str]
    ready: bool
    reasons: tuple[str, ...]
    hints: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The inventory as JSON-ready data."""
        return asdict(self)


def take(
    card: ModelCard,
    places: Places,
    *,
    packages: Sequence[str] = (),
    install: str = "",
    vram_free: int | None = None,
    accepted: datetime | None = None,
    pinned: dict[str, str] | None = None,
    newer: dict[str, str] | None = None,
) -> Inventory:
    """Look at every file of a card's model and at what it asks of this machine.

    `packages` are the missing ones, `install` what installs them; `vram_free` the device's free
    bytes where they are known; `accepted` when the user accepted the licence. No file is loaded.
    """
    found, place, problem = files_of(card, places)
    bad = [n for n in found if n.state != "found"]
    size = sum(n.size or 0 for n in found if n.state == "found")
    reasons, hints, notes = [], [], []
    if packages:
        reasons.append(f"not installed: {', '.join(packages)}")
        hints.append(install)
    if problem is not None:
        reasons.append(problem.message)
        hints.append(problem.hints[0] if problem.hints else remedy(card))
    elif bad:
        count = f"{len(bad)} file{'s' if len(bad) != 1 else ''}"
        first = f"{bad[0].path}: {bad[0].reason or bad[0].state}"
        reasons.append(f"{count} missing or damaged, {first}")
        hints.append(remedy(card))
    complete = problem is None and not bad
    disk_place, disk_free = _disk(card)
    memory = card.memory
    disk_needed = 0 if complete else None if memory is None else max(0, memory.total - size)
    if disk_needed and disk_free is not None and wishes(card) and disk_needed > disk_free:
        reasons.append(
            f"about {_gb(disk_needed)} are needed in {disk_place}, {_gb(disk_free)} free"
        )
        hints.append("free some space, or set HF_HOME to a folder on another disk")
    vram_needed = max(memory.components.values()) if memory else None
    if vram_needed and vram_free is not None and vram_needed > vram_free:
        notes.append(
            f"its largest component takes {_gb(vram_needed)}, {_gb(vram_free)} are free on the"
            " device: it runs in parts, slowly, or not at all"
        )
    if restricted(card) and accepted is None and wishes(card) and not complete:
        reasons.append(f"its licence does not hold everywhere: {card.licence.territory}")
        hints = [h.replace(remedy(card), f"{remedy(card)} --accept-licence") for h in hints]
    for repo, commit in (newer or {}).items():
        notes.append(
            f"{repo} has a newer revision, {commit[:12]}: kinoloom models pull {card.id} --update"
        )
    repos = {w.repo for w in wishes(card)}
    return Inventory(
        model=card.id,
        place=None if place is None else str(place),
        files=tuple(found),
        size=size,
        disk_place=str(disk_place),
        disk_needed=disk_needed,
        disk_free=disk_free,
        vram_needed=vram_needed,
        vram_all=memory.total if memory else None,
        vram_free=vram_free,
        packages=tuple(packages),
        licence=card.licence.model_dump(mode="json")
        | {"accepted": None if accepted is None else accepted.isoformat()},
        pinned={r: c for r, c in (pinned or {}).items() if r in repos},
        newer=newer or {},
        ready=not reasons,
        reasons=tuple(reasons),
        hints=tuple(dict.fromkeys(h for h in hints if h)),
        notes=tuple(notes),
    )


def files_of(
    card: ModelCard, places: Places
) -> tuple[list[Need], Path | None, KinoloomError | None]:
    """The files of a card, where they are, and what keeps them from being listed, if anything."""
    try:
        located = places.find(card)
    except KinoloomError as error:
        return [], None, error
    try:
        return needs(located), located.main, None
    except KinoloomError as error:
        return [], located.main, error


def _disk(card: ModelCard) -> tuple[Path, int | None]:
    """Where a download would go (or the weights are), and the bytes that are free there."""
    place = card.source.folder or card.source.file or cache.cache_root()
    existing = place.absolute()
    try:
        while not existing.exists():
            existing = existing.parent
        return place, shutil.disk_usage(existing).free
    except OSError:
        return place, None


def _gb(size: int) -> str:
    return f"{size / 1e9:.1f} GB"
