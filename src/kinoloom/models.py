"""Which models are there, what do they need, and how do they come and go?

The command line's `models` commands call these functions; so may a program.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, get_args

from kinoloom.backends.base import Readiness
from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest, KinoloomError, Problem, nearest_names
from kinoloom.jobs.planning import backend_for, load_catalog
from kinoloom.readiness import price_words, readiness_of
from kinoloom.request import Task

if TYPE_CHECKING:
    from kinoloom.catalog.card import ModelCard
    from kinoloom.weights.add import Added
    from kinoloom.weights.inventory import Inventory
    from kinoloom.weights.places import Places
    from kinoloom.weights.pull import Progress, Pulled
    from kinoloom.weights.remove import Removal

_ASKING = 5.0  # seconds that a check waits for the Hub to say whether there is something newer


@dataclass(frozen=True)
class Elsewhere:
    """What a model of another backend needs in place of files: a key, a server, a package.

    `price` is in words, `retirement` a date, `successor` the model to use then.
    """

    model: str
    backend: str
    service: str
    price: str
    retirement: str | None
    successor: str | None
    licence: dict[str, Any]
    ready: bool
    reasons: tuple[str, ...]
    hints: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """The same as JSON-ready data."""
        return asdict(self)


def list_models(
    settings: Settings,
    *,
    task: str | None = None,
    family: str | None = None,
    backend: str | None = None,
) -> tuple[list[dict[str, Any]], list[str]]:
    """The models as JSON-ready rows with their readiness, and what is wrong with other cards.

    Only those with a `task`, of a `family`, on a `backend`, where these are given; no other backend
    is asked then.

    `state` is ready; found, when weights are here but something is missing; missing, when they are
    not; or unavailable, of a model that another backend cannot run now. Raises InvalidRequest for
    a task or family that there is not.
    """
    from kinoloom.weights.places import Places

    catalog = load_catalog(settings)
    families = sorted({card.family for card in catalog})
    _known("--task", task, get_args(Task))
    _known("--family", family, families)
    places = Places.of(settings)
    wanted = [
        card
        for card in catalog.list()
        if task in (None, *card.tasks)
        and family in (None, card.family)
        and backend in (None, card.backend)
    ]
    ready = readiness_of(wanted, settings)
    rows = [_row(card, ready[card.id], places) for card in wanted]
    return rows, [*map(str, catalog.problems), *catalog.notices]


def show_model(model: str, settings: Settings) -> dict[str, Any]:
    """Everything that a model's card says, as JSON-ready data. Raises ModelNotFound."""
    card = load_catalog(settings).get(model)
    return card.model_dump(mode="json", by_alias=True, exclude_none=True) | {
        "tasks": list(card.tasks),
        "price_words": price_words(card),
    }


def check_model(model: str, settings: Settings, *, ask: bool = True) -> Inventory | Elsewhere:
    """What a model needs of this machine and has; with `ask`, the Hub is asked for what is newer.

    Raises ModelNotFound for a model without a card.
    """
    from kinoloom.backends.local import hardware
    from kinoloom.store.store import Store
    from kinoloom.weights import inventory
    from kinoloom.weights.places import Places

    card = load_catalog(settings).get(model)
    if card.backend != "local":
        return _elsewhere(card, settings)
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
    """Download what a model lacks on this disk; see `weights.pull`. Raises KinoloomError.

    Of a model of another backend nothing is downloaded.
    """
    from kinoloom.store.store import Store
    from kinoloom.weights import pull

    card = load_catalog(settings).get(model)
    if card.backend != "local":
        return pull.Pulled(card.id)
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
    """Make a card, with the id `model`, of a folder, file or repository (see `weights.add`), or of
    ``replicate:OWNER/NAME`` (see `backends.replicate.adding`)."""
    if target.startswith("replicate:"):
        from kinoloom.backends.replicate import adding

        return adding.add(target, settings, load_catalog(settings), id_=model)
    from kinoloom.weights.add import add

    return add(target, settings, load_catalog(settings), id_=model)


def remove_model(model: str, settings: Settings, *, yes: bool = False) -> Removal:
    """Remove a user's card, or the downloaded files of a model; see `weights.remove`.

    Raises InvalidRequest that says what would go, unless `yes` is given.
    """
    from kinoloom.store.store import Store
    from kinoloom.weights import remove

    catalog = load_catalog(settings)
    card = catalog.get(model)
    try:
        removal = remove.plan(card, settings, catalog)
    except InvalidRequest as error:
        if card.backend == "local":
            raise
        allowed = "one with a card of yours, or with files on this disk"
        raise InvalidRequest(
            [Problem("model", model, allowed)],
            message=f"{model} runs on {card.backend}: there is nothing here to remove.",
            hints=[f"To use it no more, take {card.backend} out of your settings."],
        ) from error
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


def _elsewhere(card: ModelCard, settings: Settings) -> Elsewhere:
    ready = readiness_of([card], settings)[card.id]
    return Elsewhere(
        model=card.id,
        backend=card.backend,
        service=card.source.service or "",
        price=price_words(card),
        retirement=None if card.retirement is None else card.retirement.isoformat(),
        successor=card.successor,
        licence=card.licence.model_dump(mode="json"),
        ready=ready.ready,
        reasons=ready.reasons,
        hints=ready.hints,
    )


def _row(card: ModelCard, ready: Readiness, places: Places) -> dict[str, Any]:
    state = "ready"
    if not ready.ready and card.backend != "local":
        state = "unavailable"
    elif not ready.ready:
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
        "remote": card.remote is not None,
        "price": price_words(card),
        "retirement": None if card.retirement is None else card.retirement.isoformat(),
        "successor": card.successor,
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
