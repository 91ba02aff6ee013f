"""Which models are there, what do they need, and how do they come and go?

The command line's `models` commands call these functions; so may a program.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, get_args

from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest, KinoloomError, Problem, nearest_names
from kinoloom.jobs.planning import backend_for
from kinoloom.request import Task

if TYPE_CHECKING:
    from kinoloom.catalog.card import ModelCard
    from kinoloom.weights.add import Added
    from kinoloom.weights.inventory import Inventory
    from kinoloom.weights.places import Places
    from kinoloom.weights.pull import Progress, Pulled
    from kinoloom.weights.remove import Removal

_ASKING = 5.0  # seconds that a check waits for the Hub to say whether there is something newer


def list_models(
    settings: Settings, *, task: str | None = None, family: str | None = None
) -> tuple[list[dict[str, Any]], list[str]]:
    """The models as JSON-ready rows with their readiness, and what is wrong with other cards.

    `state` is ready; found, when weights are here but something is missing; or missing. Raises
    InvalidRequest for a task or family that there is not.
    """
    from kinoloom.weights.places import Places

    catalog = Catalog.load(settings.models)
    families = sorted({card.family for card in catalog})
    _known("--task", task, get_args(Task))
    _known("--family", family, families)
    places = Places.of(settings)
    wanted = [c for c in catalog.list() if task in (None, *c.tasks) and family in (None, c.family)]
    rows = [_row(card, settings, places) for card in wanted]
    return rows, [*map(str, catalog.problems), *catalog.notices]


def show_model(model: str, settings: Settings) -> dict[str, Any]:
    """Everything that a model's card says, as JSON-ready data. Raises ModelNotFound."""
    card = Catalog.load(settings.models).get(model)
    return card.model_dump(mode="json", by_alias=True, exclude_none=True) | {
        "tasks": list(card.tasks)
    }


def check_model(model: str, settings: Settings, *, ask: bool = True) -> Inventory:
    """What a model needs of this machine and has; with `ask`, the Hub is asked for what is newer.

    Raises ModelNotFound for a model without a card.
    """
    from kinoloom.backends.local import hardware
    from kinoloom.store.store import Store
    from kinoloom.weights import inventory
    from kinoloom.weights.places import Places

    card = Catalog.load(settings.models).get(model)
    missing, install = _packages(card, settings)
    memory = hardware.memory(hardware.device_label(settings.device))
    with Store.of(settings) as store:
        pins = store.models.pins()
        accepted = store.models.accepted(card.id, card.licence.id)
    return inventory.take(
        card,
        Places.of(settings),
        packages=missing,
        install=install,
        vram_free=None if memory is None else memory[0],
        accepted=accepted,
        pinned=pins,
        newer=_newer(card, pins) if ask else None,
    )


def pull_model(
    model: str,
    settings: Settings,
    *,
    accept_licence: bool = False,
    update: bool = False,
    on_progress: Callable[[Progress], None] = lambda _: None,
) -> Pulled:
    """Download what a model lacks on this disk; see `weights.pull`. Raises KinoloomError."""
    from kinoloom.store.store import Store
    from kinoloom.weights import pull

    card = Catalog.load(settings.models).get(model)
    with Store.of(settings) as store:
        return pull.pull(
            card,
            settings,
            store.models,
            accept=accept_licence,
            update=update,
            on_progress=on_progress,
        )


def add_model(target: str, settings: Settings, *, model: str | None = None) -> Added:
    """Make a card, with the id `model`, of a folder, file or repository; see `weights.add`."""
    from kinoloom.weights.add import add

    return add(target, settings, Catalog.load(settings.models), id_=model)


def remove_model(model: str, settings: Settings, *, yes: bool = False) -> Removal:
    """Remove a user's card, or the downloaded files of a model; see `weights.remove`.

    Raises InvalidRequest that says what would go, unless `yes` is given.
    """
    from kinoloom.store.store import Store
    from kinoloom.weights import remove

    catalog = Catalog.load(settings.models)
    card = catalog.get(model)
    removal = remove.plan(card, settings, catalog)
    if not yes:
        listed = ", ".join(map(str, removal.paths))
        raise InvalidRequest(
            [Problem("--yes", False, f"given, to remove {listed} ({removal.size / 1e9:.2f} GB)")],
            message=f"Removing {model} has to be confirmed.",
            hints=[f"kinoloom models remove {model} --yes", *removal.kept],
        )
    with Store.of(settings) as store:
        remove.remove(removal, card, store.models)
    return removal


def _row(card: ModelCard, settings: Settings, places: Places) -> dict[str, Any]:
    ready = backend_for(card.backend, settings).readiness(card)
    state = "ready"
    if not ready.ready:
        try:
            places.find(card)
            state = "found"
        except KinoloomError:
            state = "missing"
    return {
        "id": card.id,
        "title": card.title,
        "family": card.family,
        "summary": card.summary,
        "tasks": list(card.tasks),
        "backend": card.backend,
        "sizes": [f"{w}x{h}" for w, h in card.sizes.native],
        "frames": [card.frames.minimum, card.frames.maximum],
        "licence": card.licence.id,
        "state": state,
        "ready": ready.ready,
        "reasons": list(ready.reasons),
        "hints": list(ready.hints),
    }


def _packages(card: ModelCard, settings: Settings) -> tuple[tuple[str, ...], str]:
    """The packages that the card's backend lacks, and what installs them."""
    from kinoloom.backends.local.backend import missing_packages

    missing = tuple(missing_packages())
    hints = backend_for(card.backend, settings).readiness(card).hints if missing else ()
    return missing, "".join(hints[:1])


def _newer(card: ModelCard, pins: dict[str, str]) -> dict[str, str]:
    from kinoloom.weights.hub import Hub
    from kinoloom.weights.pull import newer

    if not pins:
        return {}
    try:
        return newer(card, pins, Hub(card.id), timeout=_ASKING)
    except KinoloomError:  # without huggingface_hub nobody can be asked
        return {}


def _known(flag: str, value: str | None, known: tuple[str, ...] | list[str]) -> None:
    if value is not None and value not in known:
        near = nearest_names(value, known, count=1)
        allowed = f"one of {', '.join(known)}"
        raise InvalidRequest([Problem(flag, value, allowed, near[0] if near else None)])
