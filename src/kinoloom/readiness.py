"""What can make clips now, and if something cannot, why?

Backends are asked side by side and each for a few seconds only, so that one that raises or hangs
hides no other. The command line and the API show what is found here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as WaitedTooLong
from decimal import Decimal
from time import monotonic
from typing import Any, TypeVar

from kinoloom.backends import registry
from kinoloom.backends.base import Readiness
from kinoloom.backends.remote.retired import retired
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.remote import Price
from kinoloom.config import Settings
from kinoloom.errors import KinoloomError
from kinoloom.jobs.planning import backend_for, load_catalog
from kinoloom.planner.cost import shown

PATIENCE = 4.0
"""Seconds that a backend has for its answer; each server is given up after 3 of them."""
_VERIFYING = 20.0
"""The same where a key is tried: an SDK is loaded for it, and the service is far away."""
_SHOWN = 10  # reasons; a machine without any model has one for each of them
_SERVER = ("url", "reachable", "reason", "version", "vram_free", "vram_total", "queue")

T = TypeVar("T")
_asked: dict[tuple[str, object], Future[Any]] = {}
_asking = threading.Lock()


def list_backends(
    settings: Settings, *, verify: bool = False, patience: float | None = None
) -> list[dict[str, Any]]:
    """Every backend as a JSON-ready row: whether it is ready, its models, servers and prices.

    With `verify` each that is set up and can do so makes one free call, to see whether its key is
    taken; `verified` is then whether it was, None where nobody was asked, and `account` what the
    service said of the account. `patience` is the seconds that each has.
    """
    if patience is None:
        patience = _VERIFYING if verify else PATIENCE
    catalog = load_catalog(settings)
    names = registry.names()
    work = {name: _survey_of(name, catalog, settings, verify) for name in names}
    found = _side_by_side(work, ("backends", verify, settings), patience)
    return [_with_defaults(name, found[name], settings) for name in names]


def readiness_of(
    cards: Sequence[ModelCard], settings: Settings, *, patience: float = PATIENCE
) -> dict[str, Readiness]:
    """Whether each card can run now, by its id."""
    backends: dict[str, list[ModelCard]] = {}
    for card in cards:
        backends.setdefault(card.backend, []).append(card)
    work = {name: _readiness_of_all(name, theirs, settings) for name, theirs in backends.items()}
    question = ("models", tuple(card.id for card in cards), settings)
    found = _side_by_side(work, question, patience)
    return {
        card.id: answer if isinstance(answer := found[card.backend], Readiness) else answer[card.id]
        for card in cards
    }


def price_words(card: ModelCard) -> str:
    """What a model costs, for people: ``free``, ``unknown`` or ``0.05 to 0.40 USD/s``."""
    return prices_words([card])


def prices_words(cards: Iterable[ModelCard]) -> str:
    """What several models cost: the range of their rates, and whether some are free or unknown."""
    rates: dict[tuple[str, str], list[Decimal]] = {}
    words: set[str] = set()
    for card in cards:
        price = "free" if card.remote is None else card.price
        if isinstance(price, Price):
            for rate in price.rates:
                unit = "s" if rate.per == "second" else rate.per
                rates.setdefault((price.currency, unit), []).append(rate.amount)
        else:
            words.add("unknown" if price is None else price)
    ranges = [_range(amounts, *unit) for unit, amounts in sorted(rates.items())]
    return ", ".join([*sorted(words & {"free"}), *ranges, *sorted(words & {"unknown"})])


def _range(amounts: Sequence[Decimal], currency: str, unit: str) -> str:
    low, high = min(amounts), max(amounts)
    highest = f"{shown(high, currency)}/{unit}"
    return highest if low == high else f"{shown(low, currency).split()[0]} to {highest}"


def _survey_of(
    name: str, catalog: Catalog, settings: Settings, verify: bool
) -> Callable[[], dict[str, Any]]:
    """What finds out about a backend; called in a thread of its own."""

    def survey() -> dict[str, Any]:
        backend = backend_for(name, settings)
        cards = [card for card in catalog if card.backend == name]
        if not cards and registry.usable(name, settings):
            registry.cards_of(name, catalog, settings)  # which says why there are none
        states = _readiness_of_all(name, cards, settings)()
        ready = [card.id for card in cards if states[card.id].ready]
        verified: bool | None = None
        account: tuple[str, ...] = ()
        # That one model was retired is said of the model, unless there is nothing else to say.
        gone = [states[card.id] for card in cards if _retired(card)]
        failing = [x for x in states.values() if not x.ready and x not in gone] or gone
        if verify and registry.usable(name, settings) and hasattr(backend, "verify"):
            answer: Readiness = backend.verify()
            verified = answer.ready
            if answer.ready:
                account = answer.reasons
            else:
                ready, failing = [], [answer]
        return {
            "remote": backend.remote,
            "ready": bool(ready),
            "verified": verified,
            "account": list(account),
            "models": ready,
            "all_models": len(cards),
            "prices": prices_words(cards),
            "servers": _servers(backend),
            "reasons": [] if ready else _first(state.reasons for state in failing),
            "hints": [] if ready else _first(state.hints for state in failing),
        } | (_device(settings) if name == "local" else {})

    return survey


def _with_defaults(
    name: str, found: dict[str, Any] | Readiness, settings: Settings
) -> dict[str, Any]:
    """A backend's row; of one that did not answer, why."""
    row: dict[str, Any] = {
        "name": name,
        "set_up": registry.usable(name, settings),
        "remote": name != "local",
        "ready": False,
        "verified": None,
        "account": [],
        "device": None,
        "memory_free": None,
        "memory_total": None,
        "models": [],
        "all_models": 0,
        "prices": "",
        "servers": [],
        "reasons": [],
        "hints": [],
    }
    if isinstance(found, Readiness):
        found = {"reasons": list(found.reasons), "hints": list(found.hints)}
    row |= found
    if not row["ready"] and not row["reasons"]:
        row["reasons"] = ["nothing is set up for it"]
        row["hints"] = [f"set backends.{name} in kinoloom.yaml; see: kinoloom config sample"]
    return row


def _device(settings: Settings) -> dict[str, Any]:
    from kinoloom.backends.local import hardware

    device = hardware.device_label(settings.device)
    memory = hardware.memory(device)
    return {
        "device": device,
        "memory_free": None if memory is None else memory[0],
        "memory_total": None if memory is None else memory[1],
    }


def _servers(backend: object) -> list[dict[str, Any]]:
    """The servers of a backend that has several, as far as it tells."""
    servers = getattr(backend, "servers", None)
    if not callable(servers):
        return []
    return [{name: getattr(one, name, None) for name in _SERVER} for one in servers()]


def _readiness_of_all(
    name: str, cards: Sequence[ModelCard], settings: Settings
) -> Callable[[], dict[str, Readiness]]:
    def ask() -> dict[str, Readiness]:
        backend = backend_for(name, settings)
        return {card.id: _retired(card) or backend.readiness(card) for card in cards}

    return ask


def _retired(card: ModelCard) -> Readiness | None:
    """Why a model that somebody else offered is gone; weights on a disk never are."""
    return None if card.remote is None else retired(card)


def _first(lists: Iterable[Sequence[str]]) -> list[str]:
    """The different lines of several lists, as many as a person reads."""
    return list(dict.fromkeys(line for lines in lists for line in lines))[:_SHOWN]


def _side_by_side(
    work: Mapping[str, Callable[[], T]], question: object, patience: float
) -> dict[str, T | Readiness]:
    """What each answers within its time; a `Readiness` that says why where one does not.

    The local backend has no such limit: it looks at this machine only, however slow its disk is.
    """
    asked = {name: _ask(name, question, ask) for name, ask in work.items()}
    deadline = monotonic() + patience
    found: dict[str, T | Readiness] = {}
    for name, future in asked.items():
        left = None if name == "local" else max(0.0, deadline - monotonic())
        try:
            found[name] = future.result(left)
        except WaitedTooLong:
            reason = f"it did not answer within {patience:g} seconds"
            found[name] = Readiness(False, (reason,), ("try again; if it stays, restart it",))
        except KinoloomError as error:
            why = f"{error.message} {error.cause}".strip()
            found[name] = Readiness(False, (why,), error.hints)
        except Exception as error:  # whatever another package's code does
            why = f"it failed with {type(error).__name__}: {error}"
            found[name] = Readiness(False, (why,), (f"report it to who makes {name}",))
    return found


def _ask(name: str, question: object, ask: Callable[[], T]) -> Future[T]:
    """Ask in a thread that keeps nobody from leaving; whoever asks the same meanwhile shares it,
    so that a backend that hangs holds one thread and not one for each time it was asked."""
    key = (name, question)
    with _asking:
        if (going := _asked.get(key)) is not None:
            return going
        future: Future[T] = Future()
        _asked[key] = future

    def answer() -> None:
        try:
            future.set_result(ask())
        except BaseException as error:
            future.set_exception(error)
        finally:
            with _asking:
                _asked.pop(key, None)

    threading.Thread(target=answer, name=f"ask {name}", daemon=True).start()
    return future
