"""A service within the tests' own process: what a backend elsewhere does, without any network.

`PlainService` is the far side with its bill, `PlainBackend` the near one. A test decides what goes
wrong, and may look at, or die at, every step.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any, ClassVar

import pytest

from kinoloom.backends import registry
from kinoloom.backends.base import Fetched, Order, Readiness, RemoteStatus, Ticket
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import NotFound, Uncertain

CARD = """\
id: {name}-1
title: {name} One
family: {name}
summary: Made by the tests.
backend: {name}
source: {{service: one}}
pipelines:
  t2v: {{class: Make}}
  i2v: {{class: Make, inputs: {{image: image}}}}
sizes:
  {{multiple_of: 2, minimum: 64, maximum: 96, native: [[64, 64]], default: [64, 64],
    only_native: true}}
frames: {{multiple: 12, offset: 0, minimum: 12, maximum: 48, default: 12}}
fps: {{default: 12, minimum: 12, maximum: 12}}
negative: false
licence: {{id: of the tests, url: "https://example.com/"}}
remote: {{rewording: {rewording}}}
{price}
"""
PRICE = (
    "price: {rates: [{amount: '0.5', per: second}], source: 'https://example.com/',"
    " date: 2026-11-21}"
)
STOPPED = RemoteStatus("cancelled", charged=Decimal("0.1"))
"""What an order that was stopped is, unless a test says otherwise."""


def write_card(
    folder: Path, name: str = "plain", *, price: str = PRICE, rewording: bool = True
) -> None:
    """Write the card of a service's only model, ``NAME-1``; a second of it costs half a dollar."""
    text = CARD.format(name=name, price=price, rewording="true" if rewording else "false")
    folder.joinpath(f"{name}.yaml").write_text(text, encoding="utf-8")


@dataclass
class PlainService:
    """The far side.

    `orders` by their keys, `bill` how often each was charged. `answers` are what the next submits
    end with: None accepts, an exception is raised without accepting, and a pair ("accepted",
    exception) after accepting. `looks` are the states of an order, look by look; the last one
    stays. `video` is a real one, in place of a few words. `findable` is whether it can be asked for
    an order by its key. `at` is called with the name of each step before it is done, and with
    "NAME done" after it.
    """

    orders: dict[str, Order] = field(default_factory=dict)
    tickets: dict[str, str] = field(default_factory=dict)
    bill: Counter[str] = field(default_factory=Counter)
    answers: deque[Any] = field(default_factory=deque)
    looks: Sequence[RemoteStatus | Exception] = (
        RemoteStatus("queued", detail="2nd in line"),
        RemoteStatus("running", progress=0.5, preview=b"\xff\xd8 half \xff\xd9"),
        RemoteStatus("succeeded", charged=Decimal("0.5")),
    )
    fetches: deque[Exception] = field(default_factory=deque)
    findable: bool = True
    finds: deque[Exception] = field(default_factory=deque)
    cancels: list[str] = field(default_factory=list)
    cancelled: RemoteStatus | Exception = STOPPED
    looked: Counter[str] = field(default_factory=Counter)
    at: Callable[[str], None] = lambda _step: None
    ready: bool = True
    video: bytes | None = None

    @property
    def most_paid(self) -> int:
        """How often the order was charged that was charged most often."""
        return max(self.bill.values(), default=0)

    def remote_id(self, key: str) -> str:
        return next(found for found, known in self.tickets.items() if known == key)


class PlainBackend:
    """The near side of a `PlainService`."""

    remote: ClassVar[bool] = True
    poll_seconds = 0.01

    def __init__(self, name: str, service: PlainService) -> None:
        self.name = name
        self._service = service

    def cards(self, known: Catalog) -> Sequence[ModelCard]:
        return ()

    def readiness(self, card: ModelCard) -> Readiness:
        return Readiness(self._service.ready, () if self._service.ready else ("It is closed.",))

    def submit(self, order: Order, card: ModelCard) -> Ticket:
        with self._step("submit") as service:
            for name, path in order.inputs.items():
                assert path.exists(), name
            answer = service.answers.popleft() if service.answers else None
            if isinstance(answer, Exception):
                raise answer
            number = f"remote-{len(service.orders) + 1}"
            service.orders[order.key] = order
            service.tickets[number] = order.key
            service.bill[order.key] += 1
            service.at("submit charged")
            if answer is not None:
                raise answer[1]
            return Ticket(number, "east", {"n": 1})

    def find(self, order: Order, card: ModelCard) -> Ticket | None:
        with self._step("find") as service:
            if service.finds:
                raise service.finds.popleft()
            if not service.findable:
                raise Uncertain(f"{self.name} cannot be asked for an order.")
            if order.key not in service.orders:
                return None
            return Ticket(service.remote_id(order.key), "east", {"n": 1})

    def poll(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        with self._step("poll") as service:
            self._order(ticket)
            look = service.looks[min(service.looked[ticket.remote_id], len(service.looks) - 1)]
            service.looked[ticket.remote_id] += 1
            if isinstance(look, Exception):
                raise look
            return look

    def fetch(self, ticket: Ticket, card: ModelCard, folder: Path) -> Fetched:
        with self._step("fetch") as service:
            order = self._order(ticket)
            if service.fetches:
                raise service.fetches.popleft()
            file = folder / f"{ticket.remote_id}.mp4"
            words = f"video of {order.take.prompt}, seed {order.take.seed}"
            file.write_bytes(words.encode() if service.video is None else service.video)
            return Fetched(file, {self.name: "1"}, ("It was made in the tests.",))

    def cancel(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        with self._step("cancel") as service:
            service.cancels.append(ticket.remote_id)
            if isinstance(service.cancelled, Exception):
                raise service.cancelled
            return service.cancelled

    def _order(self, ticket: Ticket) -> Order:
        if ticket.remote_id not in self._service.tickets:
            raise NotFound(f"There is no order {ticket.remote_id}.")
        return self._service.orders[self._service.tickets[ticket.remote_id]]

    @contextmanager
    def _step(self, name: str) -> Iterator[PlainService]:
        self._service.at(name)
        yield self._service
        self._service.at(f"{name} done")


@dataclass(frozen=True)
class _Entry:
    """What an entry point is to the registry."""

    name: str
    service: PlainService

    def load(self) -> Callable[[object], PlainBackend]:
        return lambda _settings: PlainBackend(self.name, self.service)


def offer(monkeypatch: pytest.MonkeyPatch, **services: PlainService) -> None:
    """Let these be the backends of other packages, by their names."""
    entries = {name: _Entry(name, service) for name, service in services.items()}
    monkeypatch.setattr(registry, "_others", lambda: entries)
