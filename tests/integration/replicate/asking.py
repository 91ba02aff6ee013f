"""How do tests order a video of Replicate, and wait for it?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from fakes.orders import order_of
from fakes.replicate import WEBHOOK_SECRET, FakeReplicate, Prediction
from kinoloom.backends.base import Order, RemoteStatus, Ticket
from kinoloom.backends.replicate.backend import ReplicateBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.config_sections import BackendsSettings, ReplicateSettings
from kinoloom.store.ids import new_id


def settings_of(fake: FakeReplicate, tmp_path: Path, **more: Any) -> Settings:
    own: dict[str, Any] = {"api_key": SecretStr(fake.token), "base_url": fake.url}
    own |= {"webhook_secret": SecretStr(WEBHOOK_SECRET)} | more
    return Settings(
        home=tmp_path / "home", backends=BackendsSettings(replicate=ReplicateSettings(**own))
    )


def card_of(model: str) -> ModelCard:
    return Catalog.load().get(model)


VEO = card_of("replicate-veo-3.1")
KLING = card_of("replicate-kling-v2.5-turbo-pro")
WAN = card_of("replicate-wan-2.2-t2v-fast")


def order(card: ModelCard = VEO, task: str | None = None, **changes: Any) -> Order:
    notify = changes.pop("notify", None)
    made = order_of(card, task, **changes)
    return dataclasses.replace(made, key=new_id(), notify=notify)


def only(fake: FakeReplicate) -> Prediction:
    (one,) = fake.predictions.values()
    return one


def ended(backend: ReplicateBackend, ticket: Ticket, card: ModelCard = VEO) -> RemoteStatus:
    for _ in range(10):
        status = backend.poll(ticket, card)
        if status.state not in ("queued", "running"):
            return status
    raise AssertionError("it does not end")
