"""How does Runway make a clip?

Its SDK carries the calls; what they mean is decided here. Orders are tasks that are looked at until
they end. A task cannot be looked up by anything but the id that the create answered with, so a
create that got no answer stays uncertain.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from decimal import Decimal
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import quote, urlsplit

import httpx

from kinoloom.backends.base import Fetched, Order, Readiness, RemoteStatus, Ticket
from kinoloom.backends.remote.download import download
from kinoloom.backends.remote.error_table import ErrorTable
from kinoloom.backends.remote.keys import checked_key
from kinoloom.backends.remote.retired import retired
from kinoloom.backends.remote.retries import read_again, wait_asked
from kinoloom.backends.remote.sending import FRESH, unanswered
from kinoloom.backends.runway.form import endpoint_of, form_of
from kinoloom.backends.runway.pictures import data_uri, upload
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import (
    KinoloomError,
    MissingPackage,
    NetworkFailed,
    NotAuthenticated,
    NotFound,
    Uncertain,
    WorkerUnavailable,
)

if TYPE_CHECKING:
    from runwayml import RunwayML

_ADDRESS = "https://api.dev.runwayml.com"
_KEY, _BASE_URL = "RUNWAYML_API_SECRET", "RUNWAYML_BASE_URL"
_CREDIT = Decimal("0.01")
"""US dollars of a credit (docs.dev.runwayml.com, "Pricing")."""
_POLL_SECONDS = 5.0
"""The shortest that Runway wants between two looks at a task."""
_POLL_SECONDS_HERE = 0.2
"""The same where the address is this machine's, which is a stand-in for Runway."""
_TIMEOUT = httpx.Timeout(60.0, connect=10.0)
_LOOK_UP = "Look for it among the generations at https://dev.runwayml.com."
_WAITING = {
    "PENDING": "waiting at Runway",
    "THROTTLED": "waiting: this Runway account makes no more at once (THROTTLED)",
}


class RunwayBackend:
    """Makes clips with Runway's API. Threads may share it."""

    name = "runway"
    remote: ClassVar[bool] = True

    def __init__(self, settings: Settings) -> None:
        own = settings.backends.runway
        self._secret = own.api_key.get_secret_value() if own.api_key else os.environ.get(_KEY, "")
        self._url = (own.base_url or os.environ.get(_BASE_URL) or _ADDRESS).rstrip("/")
        self._here = _is_here(self._url)
        self.poll_seconds = _POLL_SECONDS_HERE if self._here else _POLL_SECONDS

    def cards(self, known: Catalog) -> Sequence[ModelCard]:
        """None: all of its models are in the catalogue."""
        return ()

    def readiness(self, card: ModelCard) -> Readiness:
        """Whether the model is still offered, the SDK is there and a key is set; asks nobody."""
        if (gone := retired(card)) is not None:
            return gone
        try:
            self._key()
        except KinoloomError as error:
            return Readiness(False, (error.message,), error.hints)
        return Readiness(True)

    def verify(self) -> Readiness:
        """Whether Runway takes the key, and what credit the account has; costs nothing."""
        try:
            told = self._get("/v1/organization")
        except KinoloomError as error:
            reasons = tuple(text for text in (error.message, error.cause) if text)
            return Readiness(False, reasons, error.hints)
        balance = told.get("creditBalance")
        if not isinstance(balance, int | Decimal):
            return Readiness(True)
        credit = f"The account has {balance} credits ({balance * _CREDIT:.2f} USD)."
        if balance <= 0:
            return Readiness(False, (credit,), ("Add credit at https://dev.runwayml.com.",))
        return Readiness(True, (credit,))

    def submit(self, order: Order, card: ModelCard) -> Ticket:
        """Hand in an order: pictures first, which costs nothing, then the one paid call.

        Raises InvalidRequest for a prompt that is too long, InvalidMedia for a picture that is too
        large, Uncertain when Runway may have taken the order.
        """
        form_of(card, order, {})  # what is wrong with the words is found before any upload
        pictures = {name: self._picture(file) for name, file in order.inputs.items()}
        told = self._create(endpoint_of(card, order), form_of(card, order, pictures))
        return Ticket(str(told["id"]), cost=_dollars(told.get("estimatedCost")))

    def find(self, order: Order, card: ModelCard) -> Ticket | None:
        """Never known: Runway lists no tasks. Raises Uncertain, which says where to look."""
        raise Uncertain(
            "Runway may have taken the order, and cannot be asked.",
            cause="Its API finds a task by its id only.",
            hints=[_LOOK_UP],
        )

    def poll(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """How far a task is. Raises NotFound when it was deleted."""
        return _status(self._task(ticket))

    def fetch(self, ticket: Ticket, card: ModelCard, folder: Path) -> Fetched:
        """Download a task's video; an address that expired is asked for anew."""

        def address() -> str:
            output = self._task(ticket).get("output")
            if not isinstance(output, list) or not output or not isinstance(output[0], str):
                raise NotFound("Runway has no video for this task.", hints=["Look at its state."])
            return output[0]

        file = folder / "runway.mp4"
        video = download(address(), file, here=self._here, refresh=address)
        return Fetched(video, versions={"runway": card.source.service or card.id})

    def cancel(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """Delete a task that has not ended, after which Runway does not know it any more.

        One that was running is not refunded.
        """
        try:
            task = self._task(ticket)
            now = _status(task)
            if now.state in ("succeeded", "failed", "cancelled"):
                return now
            read_again(lambda: self._call("DELETE", _path(ticket)))
        except NotFound:
            return RemoteStatus("cancelled")
        charged = _dollars(task.get("estimatedCost")) if now.state == "running" else None
        return RemoteStatus("cancelled", charged=charged)

    def _key(self) -> str:
        """The key. Raises MissingPackage without the SDK and NotAuthenticated without a key."""
        if find_spec("runwayml") is None:
            raise MissingPackage(
                "Runway's SDK is not installed.", hints=["pip install 'kinoloom[runway]'"]
            )
        hint = f"Set {_KEY}, or backends.runway.api_key in kinoloom.yaml."
        if key := checked_key(self._secret, "Runway", hint=hint):
            return key
        raise NotAuthenticated("There is no key for Runway.", hints=[hint])

    @cached_property
    def _client(self) -> RunwayML:
        """The SDK's client, which repeats nothing by itself and keeps no connection."""
        key = self._key()
        import runwayml

        try:
            http = runwayml.DefaultHttpxClient(
                base_url=self._url, limits=FRESH, timeout=_TIMEOUT, follow_redirects=False
            )
        except (httpx.InvalidURL, ValueError) as error:
            raise NetworkFailed(
                "The address of Runway's API is none.",
                cause=str(error),
                hints=[f"Correct {_BASE_URL}, or unset it."],
            ) from None
        return runwayml.RunwayML(
            api_key=key, base_url=self._url, max_retries=0, http_client=http, timeout=_TIMEOUT
        )

    def _create(self, path: str, form: Mapping[str, Any]) -> Mapping[str, Any]:
        """What Runway answers to the one call that costs something."""
        client = self._client
        import runwayml

        try:
            answer = client.post(path, body=dict(form), cast_to=httpx.Response)
        except runwayml.APIStatusError as error:
            if error.status_code < 500:
                raise _error(error.response) from None
            raise Uncertain(
                "Runway answered with an error of its own, and may have taken the order.",
                cause=f"It answered {error.status_code}.",
                hints=[_LOOK_UP],
            ) from None
        except runwayml.APIConnectionError as error:
            raise unanswered(error.__cause__, "Runway", hints=[_LOOK_UP]) from None
        told = _document(answer)
        if not isinstance(told.get("id"), str) or not told["id"]:
            raise Uncertain(
                "Runway took the order, and its answer cannot be read.", hints=[_LOOK_UP]
            )
        return told

    def _call(
        self, method: str, path: str, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        """One call that costs nothing. Raises KinoloomError of the kind that its answer means."""
        client = self._client
        import runwayml

        try:
            if method == "DELETE":
                return client.delete(path, cast_to=httpx.Response)
            if body is not None:
                return client.post(path, body=dict(body), cast_to=httpx.Response)
            return client.get(path, cast_to=httpx.Response)
        except runwayml.APIStatusError as error:
            raise _error(error.response) from None
        except runwayml.APIConnectionError as error:
            raise NetworkFailed(
                "Runway cannot be reached.",
                cause=type(error.__cause__ or error).__name__,
                hints=["Check the connection and the address."],
            ) from None

    def _get(self, path: str) -> Mapping[str, Any]:
        return read_again(lambda: _read(self._call("GET", path)))

    def _task(self, ticket: Ticket) -> Mapping[str, Any]:
        return self._get(_path(ticket))

    def _picture(self, file: Path) -> str:
        """The address under which Runway gets a picture: the picture itself, or an upload."""
        inline = data_uri(file)
        if inline is not None:
            return inline
        wanted = {"filename": file.name, "type": "ephemeral"}
        place = read_again(lambda: _read(self._call("POST", "/v1/uploads", wanted)))
        url, fields, uri = (place.get(name) for name in ("uploadUrl", "fields", "runwayUri"))
        if not isinstance(url, str) or not isinstance(uri, str) or not isinstance(fields, dict):
            raise WorkerUnavailable("Runway named no place for a picture to be uploaded to.")
        upload(file, url, {str(k): str(v) for k, v in fields.items()}, here=self._here)
        return uri


def _is_here(url: str) -> bool:
    """Whether an address is this machine's; one that is none is nobody's."""
    try:
        return urlsplit(url).hostname in ("127.0.0.1", "::1", "localhost")
    except ValueError:  # a bracket too many
        return False


def _path(ticket: Ticket) -> str:
    return f"/v1/tasks/{quote(ticket.remote_id, safe='')}"


def _document(answer: httpx.Response) -> Mapping[str, Any]:
    """The JSON object of an answer; empty when it is none."""
    try:
        told = json.loads(answer.content, parse_float=Decimal)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}


def _read(answer: httpx.Response) -> Mapping[str, Any]:
    if told := _document(answer):
        return told
    raise WorkerUnavailable(
        "Runway's answer cannot be read.", cause=f"It answered {answer.status_code}."
    )


def _dollars(cost: object) -> Decimal | None:
    """The dollars of a cost in credits; None where it names none."""
    credits_ = cost.get("credits") if isinstance(cost, dict) else None
    if isinstance(credits_, bool) or not isinstance(credits_, int | Decimal):
        return None
    return Decimal(credits_) * _CREDIT


def _status(task: Mapping[str, Any]) -> RemoteStatus:
    """What a task's document says."""
    word = str(task.get("status", ""))
    charged = _dollars(task.get("cost"))
    if word in _WAITING:
        return RemoteStatus("queued", detail=_WAITING[word])
    if word == "SUCCEEDED":
        return RemoteStatus("succeeded", progress=1.0, charged=charged)
    if word == "CANCELLED":
        return RemoteStatus("cancelled", charged=charged)
    if word == "FAILED":
        code, text = str(task.get("failureCode") or ""), str(task.get("failure") or "")
        error = ErrorTable.of("runway").error(status=word, code=code, text=text)
        return RemoteStatus("failed", detail=code, error=error, charged=charged)
    progress = task.get("progress")
    share = None
    if isinstance(progress, int | Decimal) and not isinstance(progress, bool):
        share = min(max(float(progress), 0.0), 1.0)
    return RemoteStatus("running", progress=share, detail="" if word == "RUNNING" else word)


def _error(answer: httpx.Response) -> KinoloomError:
    """The error that an answer stands for."""
    told = _document(answer)
    text = told.get("error") if isinstance(told.get("error"), str) else ""
    issues = told.get("issues")
    if isinstance(issues, list) and issues:
        text = f"{text} {json.dumps(issues, default=str)}"
    return ErrorTable.of("runway").error(
        status=answer.status_code,
        text=text or "",
        retry_after=wait_asked(answer.headers.get("retry-after")),
    )
