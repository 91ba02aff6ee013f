"""Which of Google's two services makes a clip, and can it be used now?

A card's pipelines say it by their class: `omni` is Gemini Omni, asked with an API key; `veo` is Veo
on Vertex AI, asked with the credentials of a project.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar

from kinoloom.backends.base import Fetched, Order, Readiness, RemoteStatus, Ticket
from kinoloom.backends.google.access import (
    KEY_VARIABLES,
    PROJECT_VARIABLE,
    Access,
    installed,
    missing_package,
)
from kinoloom.backends.google.omni import Omni
from kinoloom.backends.google.veo import Veo
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import KinoloomError, ModelBroken, ProviderRetired

_CHECKED_MODEL = "veo-3.1-generate-001"
"""A model of Vertex AI that is asked for to see whether the credentials work."""


class GoogleBackend:
    """Google's models. Threads may share it; it remembers nothing of an order."""

    name = "google"
    remote: ClassVar[bool] = True
    poll_seconds = 10.0

    def __init__(self, settings: Settings) -> None:
        self._access = Access(settings.backends.google)
        self._omni = Omni(self._access)
        self._veo = Veo(self._access)

    def cards(self, known: Catalog) -> Sequence[ModelCard]:
        """None beside the packaged ones."""
        return ()

    def readiness(self, card: ModelCard) -> Readiness:
        """Whether the card's service is set up; nothing is asked of Google."""
        retired = _retired(card)
        if retired is not None:
            return Readiness(False, (retired.message,), retired.hints)
        if not installed():
            missing = missing_package()
            return Readiness(False, (missing.cause,), missing.hints)
        return self._configured(_class(card))

    def verify(self) -> Readiness:
        """Whether Google accepts the key, the credentials or both, by one free call for each."""
        if not installed():
            missing = missing_package()
            return Readiness(False, (missing.cause,), missing.hints)
        checks: dict[str, Callable[[], None]] = {
            "omni": self._omni.check,
            "veo": lambda: self._veo.check(_CHECKED_MODEL),
        }
        setup = {name: self._configured(name) for name in checks}
        if not any(each.ready for each in setup.values()):
            return Readiness(
                False,
                tuple(reason for each in setup.values() for reason in each.reasons),
                tuple(hint for each in setup.values() for hint in each.hints),
            )
        reasons: list[str] = []
        hints: list[str] = []
        for name, check in checks.items():
            if not setup[name].ready:
                continue
            try:
                check()
            except KinoloomError as error:
                reasons.append(f"{_SERVICES[name]}: {error.message} {error.cause}".strip())
                hints += error.hints or error.recovery.next
        return Readiness(not reasons, tuple(reasons), tuple(dict.fromkeys(hints)))

    def submit(self, order: Order, card: ModelCard) -> Ticket:
        """Hand in an order, in one call that is made once; see `RemoteBackend`."""
        retired = _retired(card)
        if retired is not None:
            raise retired
        return self._service(card).submit(order, card)

    def find(self, order: Order, card: ModelCard) -> Ticket | None:
        """The ticket of an order that was sent and not answered; see `RemoteBackend`."""
        return self._service(card).find(order)

    def poll(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """How far an order is; see `RemoteBackend`."""
        return self._service(card).poll(ticket, card)

    def fetch(self, ticket: Ticket, card: ModelCard, folder: Path) -> Fetched:
        """Download a finished order's video; see `RemoteBackend`."""
        return self._service(card).fetch(ticket, card, folder)

    def cancel(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """Stop an order as far as Google can; see `RemoteBackend`."""
        return self._service(card).cancel(ticket, card)

    def _service(self, card: ModelCard) -> Omni | Veo:
        name = _class(card)
        if name == "omni":
            return self._omni
        if name == "veo":
            return self._veo
        raise ModelBroken(
            f"The card of {card.title} names no service of Google's.",
            cause=f"The class of its pipelines is {name!r}; there are: omni, veo.",
            hints=["Correct the card, or remove it."],
        )

    def _configured(self, name: str) -> Readiness:
        """Whether what a service needs is set."""
        if name == "omni":
            if self._access.key is None:
                return Readiness(
                    False,
                    ("There is no key for the Gemini API.",),
                    (
                        f"Set {KEY_VARIABLES[1]}, or backends.google.api_key in kinoloom.yaml;"
                        " keys are made at https://aistudio.google.com/apikey",
                    ),
                )
            return Readiness(True)
        reasons: list[str] = []
        hints: list[str] = []
        if self._access.project is None:
            reasons.append("There is no Google Cloud project for Vertex AI.")
            hints.append(f"Set {PROJECT_VARIABLE}, or backends.google.project in kinoloom.yaml.")
        missing = self._access.credentials_missing()
        if missing is not None:
            reasons.append(missing)
            hints.append(
                "Set backends.google.credentials to the key file of a service account, or sign in:"
                " gcloud auth application-default login"
            )
        return Readiness(not reasons, tuple(reasons), tuple(hints))


_SERVICES = {"omni": "Gemini API", "veo": "Vertex AI"}


def _class(card: ModelCard) -> str:
    """What the card's pipelines name, which is the same for all its tasks."""
    return next(iter(card.pipelines.values())).class_name


def _retired(card: ModelCard) -> ProviderRetired | None:
    """The error of a model that Google has switched off."""
    if card.retirement is None or _today() < card.retirement:
        return None
    hint = f"Use {card.successor}." if card.successor else "Use another model."
    return ProviderRetired(
        f"{card.title} was switched off on {card.retirement.isoformat()}.", hints=[hint]
    )


def _today() -> datetime.date:
    return datetime.date.today()
