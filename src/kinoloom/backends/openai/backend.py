"""How does a server that speaks /v1/videos make a clip?

The servers are the user's own choice, so they may be anywhere, and each gets its own key and no
other. Every order carries our key in the header Idempotency-Key: another Kinoloom makes it once
however often it comes, and says the key in its list, so that an order can be found again there.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote, urlsplit

import httpx

from kinoloom.backends.base import Fetched, Order, Readiness, RemoteStatus, Ticket
from kinoloom.backends.openai.answers import (
    address_of,
    changes_of,
    document_of,
    error_of_answer,
    status_of,
)
from kinoloom.backends.openai.cards import PROBLEM, cards_of
from kinoloom.backends.openai.form import is_openrouter, openrouter_body, parts_of
from kinoloom.backends.remote.download import download
from kinoloom.backends.remote.keys import checked_key
from kinoloom.backends.remote.retired import retired
from kinoloom.backends.remote.retries import read_again
from kinoloom.backends.remote.sending import FRESH, unanswered
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.config_sections import OpenAIServer
from kinoloom.errors import (
    Conflict,
    KinoloomError,
    ModelNotFound,
    NetworkFailed,
    NotFound,
    OutputFailed,
    Uncertain,
    WorkerUnavailable,
)

_POLL_SECONDS = 2.0
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_QUICK = httpx.Timeout(3.0)
"""For readiness, for which nobody waits long."""
_READY_SECONDS = 5.0
"""How long an answer to "are you there" holds for the other models of a server."""
_PAGE, _MOST_PAGES = 100, 10
_LOOK_UP = "Look whether the server made the video."


class OpenAIBackend:
    """Makes clips on servers that speak /v1/videos. Threads may share it."""

    name = "openai"
    remote: ClassVar[bool] = True
    poll_seconds = _POLL_SECONDS

    def __init__(self, settings: Settings) -> None:
        self._servers = settings.backends.openai
        self._asked: dict[str, tuple[float, Readiness]] = {}
        self._openrouter: dict[str, bool] = {}

    def cards(self, known: Catalog) -> Sequence[ModelCard]:
        """The models that the settings name, each with the rules of the one that it is like."""
        return tuple(cards_of(self._servers, known))

    def readiness(self, card: ModelCard) -> Readiness:
        """Whether the settings name the model rightly and its server answers within seconds."""
        if (problem := _setting(card, PROBLEM)) is not None:
            hint = f"Correct `like` of {card.id} below backends.openai in kinoloom.yaml."
            return Readiness(False, (problem,), (hint,))
        if (gone := retired(card)) is not None:
            return gone
        try:
            name, server = self._server_of(card)
        except KinoloomError as error:
            return Readiness(False, (error.message,), error.hints)
        return self._reachable(name, server)

    def verify(self) -> Readiness:
        """Whether every server of the settings answers and takes its key; costs nothing."""
        told = [self._reachable(name, server) for name, server in self._servers.items()]
        reasons = tuple(reason for one in told for reason in one.reasons)
        hints = tuple(hint for one in told for hint in one.hints)
        return Readiness(bool(told) and all(one.ready for one in told), reasons, hints)

    def submit(self, order: Order, card: ModelCard) -> Ticket:
        """Hand in an order in one call.

        Raises Uncertain when the server may have taken it, else what its answer means.
        """
        name, server = self._server_of(card)
        body: dict[str, Any]
        try:
            if self._is_openrouter(name, server):
                body = {"json": openrouter_body(card, order)}
            else:
                body = {"files": parts_of(card, order)}
        except OSError as error:
            raise OutputFailed(
                "A picture of this clip cannot be read any more.", cause=error.strerror or ""
            ) from error
        headers = {**_key_of(server), "Idempotency-Key": order.key}
        try:
            answer = self._client.post(f"{server.url}/videos", headers=headers, **body)
        except httpx.HTTPError as error:
            raise unanswered(error, f"The server {name}", hints=[_LOOK_UP]) from None
        if 300 <= answer.status_code < 500:
            raise _refusal(answer, server)
        told = document_of(answer) if answer.is_success else {}
        if not (remote_id := _id_of(told)):
            raise Uncertain(
                f"The server {name} may have taken the order.",
                cause=f"It answered {answer.status_code}, and no id of a video.",
                hints=[_LOOK_UP],
            )
        return Ticket(remote_id, endpoint=name)

    def find(self, order: Order, card: ModelCard) -> Ticket | None:
        """The ticket of an order, looked up in the server's list by our key.

        Only another Kinoloom keeps the key. Elsewhere a list without any video of these words shows
        that the order never arrived, where making it again would cost nothing; all else is
        uncertain, since two takes of the same words look the same.
        """
        name, server = self._server_of(card)
        keeps_keys, alike = False, []
        for video in self._listed(server):
            own = video.get("kinoloom")
            if isinstance(own, dict) and "idempotency_key" in own:
                keeps_keys = True
                if own["idempotency_key"] == order.key:
                    return Ticket(str(video["id"]), endpoint=name)
            elif video.get("prompt", order.take.prompt) == order.take.prompt:
                alike.append(_id_of(video))
        if keeps_keys or (card.price == "free" and not alike):
            return None
        there = f" It may be {' or '.join(alike[:5])}." if alike else ""
        raise Uncertain(
            f"The server {name} may have taken the order.",
            cause=f"Its list does not say which order a video belongs to.{there}",
            hints=[_LOOK_UP],
        )

    def poll(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """How far a video is. Raises NotFound when the server does not know it (any more)."""
        return status_of(self._video(ticket), free=card.price == "free")

    def fetch(self, ticket: Ticket, card: ModelCard, folder: Path) -> Fetched:
        """Download a video: from the route for that, else from where its document says it lies."""
        server = self._server(ticket)
        video = self._video(ticket)
        target = folder / "openai.mp4"
        headers = _key_of(server)
        try:
            download(f"{_url(server, ticket)}/content", target, trusted=True, headers=headers)
        except (NotFound, NetworkFailed):
            if (address := address_of(video, server.url + "/")) is None:
                raise
            self._download_from(address, target, server, ticket)
        versions = {"server": urlsplit(server.url).netloc, "model": card.source.service or ""}
        return Fetched(target, versions=versions, notes=tuple(changes_of(video)))

    def cancel(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """Delete a video that is not finished; one that a server cannot stop goes on."""
        try:
            now = self.poll(ticket, card)
            if now.state in ("succeeded", "failed", "cancelled"):
                return now
            server = self._server(ticket)
            read_again(lambda: self._read("DELETE", _url(server, ticket), server))
        except Conflict:  # it cannot be stopped, or not any more
            return self.poll(ticket, card)
        except NotFound:  # somebody else deleted it
            pass
        return status_of({"status": "cancelled"}, free=card.price == "free")

    @cached_property
    def _client(self) -> httpx.Client:
        return httpx.Client(timeout=_TIMEOUT, limits=FRESH, follow_redirects=False)

    def _reachable(self, name: str, server: OpenAIServer) -> Readiness:
        """Whether a server answers, and takes the key; remembered for a moment."""
        now = time.monotonic()
        then, told = self._asked.get(name, (now - _READY_SECONDS, Readiness(False)))
        if now - then < _READY_SECONDS:
            return told
        try:
            headers = _key_of(server)
            answer = self._client.get(f"{server.url}/models", headers=headers, timeout=_QUICK)
            if answer.status_code in (401, 403):
                raise error_of_answer(answer)
            told = Readiness(True)  # some have no list of models; that they answer is enough
        except httpx.HTTPError as error:
            reason = f"The server {name} at {server.url} does not answer ({type(error).__name__})."
            told = Readiness(False, (reason,), ("Start it, or correct its address.",))
        except KinoloomError as error:
            told = Readiness(False, (f"{name} at {server.url}: {error.message}",), error.hints)
        self._asked[name] = (now, told)
        return told

    def _is_openrouter(self, name: str, server: OpenAIServer) -> bool:
        """Whether a server wants OpenRouter's body; asked once."""
        if name not in self._openrouter:
            try:
                listing = self._read("GET", f"{server.url}/videos/models", server)
            except NetworkFailed:
                raise
            except KinoloomError:  # which is what a video that does not exist is answered with
                return False
            self._openrouter[name] = is_openrouter(listing)
        return self._openrouter[name]

    def _listed(self, server: OpenAIServer) -> Iterator[Mapping[str, Any]]:
        """The server's videos. Raises Uncertain when it has no list, what may pass as it is."""
        try:
            yield from self._videos(server)
        except KinoloomError as error:
            if error.recovery.retry == "later":
                raise
            raise Uncertain(
                "The server may have taken the order, and cannot be asked.",
                cause=error.message,
                hints=[_LOOK_UP],
            ) from None

    def _videos(self, server: OpenAIServer) -> Iterator[Mapping[str, Any]]:
        """The server's videos, the newest first. Raises Uncertain when there are too many."""
        after: dict[str, str] = {}
        for _ in range(_MOST_PAGES):
            query = httpx.QueryParams({"limit": _PAGE, "order": "desc", **after})
            url = f"{server.url}/videos?{query}"
            page = read_again(partial(self._read, "GET", url, server))
            videos = [v for v in page.get("data") or () if isinstance(v, dict)]
            yield from videos
            if not page.get("has_more") or not videos:
                return
            after = {"after": str(page.get("last_id") or _id_of(videos[-1]))}
        raise Uncertain("The server's list of videos is too long.", hints=[_LOOK_UP])

    def _video(self, ticket: Ticket) -> Mapping[str, Any]:
        server = self._server(ticket)
        return read_again(lambda: self._read("GET", _url(server, ticket), server))

    def _download_from(
        self, address: str, target: Path, server: OpenAIServer, ticket: Ticket
    ) -> None:
        """Download from an address that the server named; our key stays with the server."""

        def anew() -> str:
            found = address_of(self._video(ticket), server.url + "/")
            if found is None:
                raise NotFound("The server does not have the finished video any more.")
            return found

        own = urlsplit(address)[:2] == urlsplit(server.url)[:2]
        headers = _key_of(server) if own else {}
        download(address, target, trusted=own, headers=headers, refresh=anew)

    def _read(self, method: str, url: str, server: OpenAIServer) -> Mapping[str, Any]:
        """One call that costs nothing. Raises KinoloomError of the kind that its answer means."""
        try:
            answer = self._client.request(method, url, headers=_key_of(server))
        except httpx.HTTPError as error:
            raise NetworkFailed(
                f"The server at {server.url} cannot be reached.",
                cause=type(error).__name__,
                hints=["Start it, or correct its address below backends.openai."],
            ) from None
        if answer.status_code >= 300:
            raise error_of_answer(answer)
        told = document_of(answer)
        if not told and method != "DELETE":
            raise WorkerUnavailable("The server's answer cannot be read.")
        return told

    def _server_of(self, card: ModelCard) -> tuple[str, OpenAIServer]:
        """The server that has a card's model, by the name that the settings give it."""
        name = _setting(card, "server")
        if name is None or name not in self._servers:
            raise ModelNotFound(
                f"No server of the settings has the model {card.id}.",
                hints=["Name it below backends.openai in kinoloom.yaml."],
            )
        return name, self._servers[name]

    def _server(self, ticket: Ticket) -> OpenAIServer:
        """The server that has an order. Raises WorkerUnavailable while the settings lack it: the
        order is not lost, and can be followed once they have it again."""
        if ticket.endpoint not in self._servers:
            raise WorkerUnavailable(
                f"The settings do not name the server {ticket.endpoint!r} any more.",
                hints=["Name it again below backends.openai in kinoloom.yaml."],
            )
        return self._servers[ticket.endpoint]


def _refusal(answer: httpx.Response, server: OpenAIServer) -> KinoloomError:
    """The error of a create that was refused; there is no video yet that could be missing."""
    error = error_of_answer(answer)
    if not isinstance(error, NotFound):
        return error
    return NotFound(
        f"There is no /v1/videos at {server.url}.",
        cause=error.cause,
        hints=["Correct the address below backends.openai; it usually ends in /v1."],
    )


def _setting(card: ModelCard, name: str) -> str | None:
    value = None if card.remote is None else card.remote.settings.get(name)
    return None if value is None else str(value)


def _key_of(server: OpenAIServer) -> dict[str, str]:
    """The header with a server's key, if it has one. Raises NotAuthenticated for what is none."""
    secret = "" if server.api_key is None else server.api_key.get_secret_value()
    hint = "Correct its api_key below backends.openai in kinoloom.yaml."
    key = checked_key(secret, f"the server at {server.url}", hint=hint)
    return {"Authorization": f"Bearer {key}"} if key else {}


def _id_of(video: Mapping[str, Any]) -> str:
    found = video.get("id")
    return found if isinstance(found, str) else ""


def _url(server: OpenAIServer, ticket: Ticket) -> str:
    return f"{server.url}/videos/{quote(ticket.remote_id, safe='')}"
