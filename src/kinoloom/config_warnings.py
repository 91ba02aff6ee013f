"""Which settings are valid, and yet hardly what the user wants?"""

from __future__ import annotations

import stat
import sys
from collections.abc import Iterator
from decimal import Decimal
from ipaddress import ip_address
from urllib.parse import urlsplit

from pydantic import SecretStr

from kinoloom.backends import registry
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.config_load import Given, Loaded, dotted
from kinoloom.config_schema import annotation_at, holds_secret
from kinoloom.errors import nearest_names

_PAID = ("runway", "google", "replicate")
_CURRENCY = "USD"
"""The currency of every price that our own cards know."""


def warnings(loaded: Loaded) -> list[str]:
    """What to think about again, a sentence each."""
    settings = loaded.settings
    return [
        *_budgets(settings),
        *_chain(settings),
        *_same_names(settings),
        *_plain_http(settings),
        *_rewording(settings),
        *_webhooks(settings),
        *_readable(loaded),
    ]


def _budgets(settings: Settings) -> Iterator[str]:
    budgets = settings.budgets
    paid = [name for name in _PAID if registry.usable(name, settings)]
    priced = any(
        isinstance(model.price, Decimal)
        for server in settings.backends.openai.values()
        for model in server.models.values()
    )
    if budgets.any and not paid and not priced:
        yield "budgets: no backend that costs money is set up, so there is nothing to limit"
    if paid and not budgets.any and set(paid) & set(settings.fallback.chain):
        yield (
            f"fallback.chain: {' and '.join(p for p in paid if p in settings.fallback.chain)} cost"
            " money, and without any budget a fallback never goes there"
        )
    if budgets.any and budgets.currency != _CURRENCY:
        yield (
            f"budgets.currency: prices are in {_CURRENCY}, so amounts in {budgets.currency} never"
            " cover one"
        )
    if budgets.day is not None and budgets.month is not None and budgets.day > budgets.month:
        yield "budgets.day: it is above budgets.month, which ends it first"
    if budgets.clip is not None and budgets.film is not None and budgets.clip > budgets.film:
        yield "budgets.clip: it is above budgets.film, which ends it first"


def _chain(settings: Settings) -> Iterator[str]:
    known, chain = registry.names(), settings.fallback.chain
    for name in chain:
        if name not in known:
            near = nearest_names(name, known, count=1)
            meant = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(known)}"
            yield f"fallback.chain: there is no backend {name!r}{meant}"
    for name in sorted({name for name in chain if chain.count(name) > 1}):
        yield f"fallback.chain: {name} stands in it twice"


def _same_names(settings: Settings) -> Iterator[str]:
    """Models of servers whose names are taken, so that nobody can ask for them."""
    taken = {
        card.id: f"a model of the backend {card.backend}" for card in Catalog.load(settings.models)
    }
    for name, server in settings.backends.openai.items():
        for model in server.models:
            where = f"backends.openai.{name}.models.{model}"
            if model in taken:
                yield f"{where}: {model} is the name of {taken[model]} already; choose another"
            else:
                taken[model] = f"a model of the server {name}"


def _plain_http(settings: Settings) -> Iterator[str]:
    """A key that anybody on the way can read."""
    backends = settings.backends
    asked: list[tuple[str, str | None, SecretStr | None]] = [
        (f"backends.openai.{name}.url", server.url, server.api_key)
        for name, server in backends.openai.items()
    ]
    for name in _PAID:
        section = getattr(backends, name)
        asked.append((f"backends.{name}.base_url", section.base_url, section.api_key))
    asked.append(("reword.url", settings.reword.url, settings.reword.api_key))
    for where, url, key in asked:
        if url is not None and key is not None and url.startswith("http:") and not _here(url):
            yield f"{where}: {url} is plain http, so its key can be read on the way; use https"


def _here(url: str) -> bool:
    """Whether an address is this machine's own."""
    host = urlsplit(url).hostname or ""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _rewording(settings: Settings) -> Iterator[str]:
    reword = settings.reword
    if reword.url is not None and reword.model is None:
        yield "reword.url: a chat endpoint needs to know which model; set reword.model"
    if reword.url is not None and not reword.enabled:
        yield "reword.url: nothing is reworded as long as reword.enabled is false"


def _webhooks(settings: Settings) -> Iterator[str]:
    if settings.backends.replicate.webhook_secret is not None and settings.public_url is None:
        yield (
            "backends.replicate.webhook_secret: without public_url Replicate cannot call, and is"
            " asked again and again instead"
        )


def _readable(loaded: Loaded) -> Iterator[str]:
    """Secrets that stand in a file which others on this machine can read."""
    if sys.platform == "win32":
        return
    for keys, given in loaded.given.items():
        if _written_out(given) and holds_secret(annotation_at(keys)) and _open_to_all(given):
            yield (
                f"{dotted(keys)}: everybody on this machine can read {given.file}; chmod 600 it, or"
                " take the secret from a variable: ${NAME}"
            )


def _written_out(given: Given) -> bool:
    return isinstance(given.value, str) and "${" not in given.value


def _open_to_all(given: Given) -> bool:
    if given.file is None:
        return False
    try:
        return bool(given.file.stat().st_mode & stat.S_IROTH)
    except OSError:  # gone meanwhile
        return False
