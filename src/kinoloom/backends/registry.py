"""Which backends are there, Kinoloom's own and those of other packages?

A package adds one by an entry point of the group ``kinoloom.backends``, whose name is the
backend's and which leads to a class that is called with the settings; see docs/backends.md. One
that cannot be loaded is reported and hides no other. Nothing is loaded before it is asked for.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module, metadata
from typing import Any

from kinoloom.backends.base import Backend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import KinoloomError, MissingPackage, ModelBroken, NotFound, nearest_names

GROUP = "kinoloom.backends"

_OWN: Mapping[str, str] = {
    "local": "kinoloom.backends.local.backend:LocalBackend",
    "comfyui": "kinoloom.backends.comfyui.backend:ComfyUIBackend",
    "openai": "kinoloom.backends.openai.backend:OpenAIBackend",
    "runway": "kinoloom.backends.runway.backend:RunwayBackend",
    "google": "kinoloom.backends.google.backend:GoogleBackend",
    "replicate": "kinoloom.backends.replicate.backend:ReplicateBackend",
}

KEY_VARIABLES: Mapping[str, tuple[str, ...]] = {
    "runway": ("RUNWAYML_API_SECRET",),
    "google": ("GOOGLE_API_KEY", "GEMINI_API_KEY", "GOOGLE_CLOUD_PROJECT"),
    "replicate": ("REPLICATE_API_TOKEN",),
}
"""The variables in which the services' own programs look for a key, or a project."""

_lock = threading.Lock()
_making: dict[tuple[str, Settings], threading.Lock] = {}
_made: dict[tuple[str, Settings], Backend] = {}


def names() -> tuple[str, ...]:
    """Every backend's name, our own first."""
    return (*_OWN, *sorted(_others()))


def backend(name: str, settings: Settings) -> Backend:
    """The backend of that name; the same object for the same settings.

    Raises NotFound for a name that there is not, MissingPackage for one that cannot be loaded.
    """
    known = (name, settings)
    if known in _made:
        return _made[known]
    with _lock:
        making = _making.setdefault(known, threading.Lock())
    with making:  # one that takes its time keeps nobody from the others
        if known not in _made:
            _made[known] = _new(name, settings)
        return _made[known]


def cards(known: Catalog, settings: Settings) -> Iterator[ModelCard]:
    """The models that the backends bring beside the known ones; `known` may hold others of theirs.

    A backend that cannot be loaded brings none; its readiness says why.
    """
    for name in names():
        if name in ("local", "runway", "google") or not usable(name, settings):
            continue  # it brings none, or nothing is set from which it could make any
        try:
            yield from cards_of(name, known, settings)
        except KinoloomError:
            continue


def cards_of(name: str, known: Catalog, settings: Settings) -> Sequence[ModelCard]:
    """The models that one backend brings. Raises KinoloomError where it cannot say."""
    made = backend(name, settings)
    if name in _OWN:
        return made.cards(known)
    try:
        brought = list(made.cards(known))
    except KinoloomError:
        raise
    except Exception as error:  # whatever another package's code does
        raise _broken(name, error) from error
    if strange := [card.id for card in brought if card.backend != name]:
        raise ModelBroken(
            f"The backend {name} brings models of another backend: {', '.join(strange)}.",
            cause="a card's `backend` has to be the name of who brings it",
            hints=[f"Correct the cards of {_package(name)}."],
        )
    return brought


def usable(name: str, settings: Settings) -> bool:
    """Whether anything is set without which a backend can do nothing: a server, a key.

    Nothing is loaded for it. Of another package's backend only that package knows: True.
    """
    own = settings.backends
    found: dict[str, Any] = {
        "comfyui": own.comfyui.servers,
        "openai": own.openai,
        "runway": own.runway.api_key,
        "google": own.google.api_key or own.google.project,
        "replicate": own.replicate.api_key,
    }
    if name not in found:
        return True
    return bool(found[name]) or any(os.environ.get(v) for v in KEY_VARIABLES.get(name, ()))


def _new(name: str, settings: Settings) -> Backend:
    found = _class(name)
    if name in _OWN:
        made: Backend = found(settings)
        return made
    try:
        other: Backend = found(settings)
    except KinoloomError:
        raise
    except Exception as error:  # whatever another package's code does
        raise _broken(name, error) from error
    return other


def _class(name: str) -> type:
    if name in _OWN:
        module, _, attribute = _OWN[name].partition(":")
        try:
            found: type = getattr(import_module(module), attribute)
        except ImportError as error:
            raise MissingPackage(
                f"The backend {name} cannot be loaded.",
                cause=str(error),
                hints=[f"pip install 'kinoloom[{name}]'"],
            ) from error
        return found
    entry = _others().get(name)
    if entry is None:
        near = nearest_names(name, names(), count=1)
        raise NotFound(
            f"There is no backend {name!r}.",
            cause=f"There are: {', '.join(names())}.",
            hints=[*(f"Did you mean {n}?" for n in near), "See all: kinoloom backends"],
        )
    try:
        loaded: type = entry.load()
    except Exception as error:  # whatever another package's code does when it is imported
        raise _broken(name, error) from error
    return loaded


def _broken(name: str, error: Exception) -> MissingPackage:
    entry = _others()[name]
    return MissingPackage(
        f"The backend {name} cannot be loaded.",
        cause=f"{entry.value}: {type(error).__name__}: {error}",
        hints=[f"Install or repair the package {_package(name)}."],
    )


def _package(name: str) -> str:
    """The package that another backend comes from."""
    entry = _others()[name]
    return entry.dist.name if entry.dist else name


@cache
def _others() -> dict[str, metadata.EntryPoint]:
    found = metadata.entry_points(group=GROUP)
    return {entry.name: entry for entry in found if entry.name not in _OWN}
