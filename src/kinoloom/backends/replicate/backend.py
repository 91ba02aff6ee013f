"""How does Replicate make a clip?

Every model there publishes what it takes; `schema` reads that and `form` fills it in. The one
request that costs money is `Api.create`. So that an order can be found again, its key is in the
address of the webhook where there is one; and always the deadline that Replicate is given
(``Cancel-After``, which comes back as the prediction's `deadline`) ends with seconds that follow
from the key. By itself that says little, together with the same model and input it says enough.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import importlib.util
import os
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from kinoloom.backends.base import Fetched, Order, Readiness, RemoteStatus, Ticket
from kinoloom.backends.remote.retired import retired
from kinoloom.backends.replicate import prediction as predictions
from kinoloom.backends.replicate.form import Form, fill
from kinoloom.backends.replicate.paths import BASE_URL, model_path, prediction_path
from kinoloom.backends.replicate.schema import Field, fields_of
from kinoloom.catalog.card import ModelCard
from kinoloom.config import Settings
from kinoloom.config_sections import Address
from kinoloom.errors import (
    InvalidRequest,
    KinoloomError,
    MissingPackage,
    ModelBroken,
    ModelNotFound,
    NotAuthenticated,
    Problem,
    ProviderRetired,
    Uncertain,
)

if TYPE_CHECKING:
    from kinoloom.backends.replicate.api import Api
    from kinoloom.catalog.loader import Catalog

VARIABLE = "REPLICATE_API_TOKEN"
"""The variable that Replicate's own client reads its token from."""
BASE_VARIABLE = "REPLICATE_BASE_URL"

# https://replicate.com/docs/reference/http: a data URL up to this, an upload above.
_LARGEST_DATA_URL = 256 * 1000
_SCHEMA_SECONDS = 600.0
_FINGERPRINTS = 3600
_SHORTEST_DEADLINE, _LONGEST_DEADLINE = 1800, 12 * 3600
# A create that was sent is listed after these looks, half a minute in all, or never arrived.
_LOOKS, _LOOK_AGAIN_SECONDS = 7, 5.0
_MARGIN = datetime.timedelta(minutes=30)  # more than our clock and the service's are ever apart
_SLACK = datetime.timedelta(seconds=5)  # what is left when their difference is known


class ReplicateBackend:
    """Clips by the models on Replicate."""

    name = "replicate"
    remote: ClassVar[bool] = True
    poll_seconds = 3.0

    def __init__(self, settings: Settings, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self._settings = settings
        self._sleep = sleep
        self._lock = threading.Lock()
        self._made: Api | None = None
        self._schemas: dict[str, tuple[float, Mapping[str, Field]]] = {}

    def cards(self, known: Catalog) -> Sequence[ModelCard]:
        """None beside the packaged ones and those that the user added."""
        return ()

    def readiness(self, card: ModelCard) -> Readiness:
        """Whether there is a token and the card's model is still offered; nobody is asked."""
        gone = retired(card)
        if gone is not None:
            return gone
        if not importlib.util.find_spec("httpx"):
            return Readiness(
                False,
                ("the package httpx is not installed",),
                ("pip install 'kinoloom[replicate]'",),
            )
        if not self._token():
            return Readiness(False, ("there is no token for Replicate",), (_TOKEN_HINT,))
        return Readiness(True)

    def verify(self) -> Readiness:
        """Whether Replicate knows the token: one read, which costs nothing."""
        try:
            account = self.api().read("/v1/account")
        except KinoloomError as error:
            return Readiness(False, (error.message,), error.hints or error.recovery.next)
        return Readiness(True, (f"signed in as {str(account.get('username', '?'))[:60]}",))

    def submit(self, order: Order, card: ModelCard) -> Ticket:
        """Create a prediction, once; reading the model's form and uploading files cost nothing."""
        form, api = self._form(order, card), self.api()
        values = {**form.values, **self._sent(order, form, api)}
        body: dict[str, Any] = {"input": values}
        model, _, version = _service(card).partition(":")
        if version:
            body["version"] = version
        if (webhook := self._webhook(order)) is not None:
            body |= {"webhook": webhook, "webhook_events_filter": ["completed"]}
        path = "/v1/predictions" if version else f"/v1/models/{model}/predictions"
        answer = api.create(path, body, {"Cancel-After": f"{self._deadline(order.key)}s"})
        remote_id = answer.get("id") if isinstance(answer, dict) else None
        if not isinstance(remote_id, str) or not remote_id:
            raise Uncertain("Replicate answered without the id of a prediction.")
        return _ticket(answer, card)

    def find(self, order: Order, card: ModelCard) -> Ticket | None:
        """The prediction of an order, looked for in the list of all of them.

        Waits until it would be listed. None: it is certainly not there. Raises Uncertain where
        several may be it, or what was sent can no longer be read.
        """
        made = _made_at(order.key)
        if made is None:
            raise Uncertain("The order does not say when it was made, so it cannot be found.")
        form = self._form_now(order, card)
        for look in range(_LOOKS):
            if look:
                self._sleep(_LOOK_AGAIN_SECONDS)
            found, ahead = self.api().predictions(made - _MARGIN)
            since = made + datetime.timedelta(seconds=ahead) - _SLACK
            ticket = self._one_of(found, order, card, form, since)
            if ticket is not None:
                return ticket
        return None

    def poll(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """How far a prediction is, as it and its log say."""
        return predictions.status_of(self._prediction(ticket))

    def fetch(self, ticket: Ticket, card: ModelCard, folder: Path) -> Fetched:
        """Download the video; where the output is a list or an object, the first video in it."""
        from kinoloom.backends.remote.download import download

        api = self.api()
        found = self._prediction(ticket)
        url, count = predictions.video_of(found)
        own = api.serves(url)
        video = download(
            url,
            folder / "replicate.mp4",
            here=api.here,
            trusted=own and bool(self._base_url()),
            headers=api.authorization if own else None,
            refresh=lambda: predictions.video_of(self._prediction(ticket))[0],
        )
        notes = (f"The model gave {count} files; the first video is taken.",) if count > 1 else ()
        version = str(found.get("version") or "")
        versions = {"replicate": _service(card).partition(":")[0]}
        if version and version != "hidden":
            versions["version"] = version
        return Fetched(video, versions, notes)

    def cancel(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """Stop a prediction. One that runs may still be charged; one that waits is not."""
        answer = self.api().change(f"{prediction_path(ticket.remote_id)}/cancel")
        return predictions.status_of(answer)

    def api(self) -> Api:
        """The API with the user's token. Raises NotAuthenticated, MissingPackage."""
        token = self._token()
        if not token:
            raise NotAuthenticated("There is no token for Replicate.", hints=[_TOKEN_HINT])
        with self._lock:
            if self._made is None:
                try:
                    from kinoloom.backends.replicate.api import Api
                except ImportError as error:
                    raise MissingPackage(
                        "Replicate cannot be called.",
                        cause="The package httpx is not installed.",
                        hints=["pip install 'kinoloom[replicate]'"],
                    ) from error
                self._made = Api(self._base_url() or BASE_URL, token, sleep=self._sleep)
            return self._made

    def _token(self) -> str:
        own = self._settings.backends.replicate.api_key
        return own.get_secret_value() if own is not None else os.environ.get(VARIABLE, "").strip()

    def _base_url(self) -> str:
        """Another address of the API, if the settings or the variable name one."""
        own = self._settings.backends.replicate.base_url
        named = own or os.environ.get(BASE_VARIABLE, "").strip()
        try:
            return _ADDRESS.validate_python(named) if named else ""
        except ValidationError as error:
            allowed = "the address of a server, such as https://api.replicate.com"
            raise InvalidRequest([Problem(BASE_VARIABLE, "***", allowed)]) from error

    def _webhook(self, order: Order) -> str | None:
        """Where Replicate is to call; None where nobody could tell that it is Replicate."""
        signed = self._settings.backends.replicate.webhook_secret is not None
        reachable = order.notify is not None and urlsplit(order.notify).scheme == "https"
        return order.notify if signed and reachable else None

    def _form(self, order: Order, card: ModelCard) -> Form:
        return fill(order, card, self._fields(_service(card)))

    def _form_now(self, order: Order, card: ModelCard) -> Form | None:
        """What was sent for an order; None where the model's form is another one by now."""
        try:
            return self._form(order, card)
        except (InvalidRequest, ModelBroken, ModelNotFound, ProviderRetired):
            return None

    def _fields(self, model: str) -> Mapping[str, Field]:
        with self._lock:
            known = self._schemas.get(model)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        fields = fields_of(document_of(self.api(), model), model)
        with self._lock:
            self._schemas[model] = (time.monotonic() + _SCHEMA_SECONDS, fields)
        return fields

    def _sent(self, order: Order, form: Form, api: Api) -> dict[str, Any]:
        """The files of a form as they are sent: within the request if small, else uploaded."""
        sent: dict[str, Any] = {}
        for name, given in form.files.items():
            files = given if isinstance(given, list) else [given]
            addresses = [_data_url(f) or api.upload(f, order.key) for f in files]
            sent[name] = addresses if isinstance(given, list) else addresses[0]
        return sent

    def _prediction(self, ticket: Ticket) -> dict[str, Any]:
        return self.api().read(prediction_path(ticket.remote_id))

    def _deadline(self, key: str) -> int:
        """After how many seconds Replicate is to give up: no job waits for longer, and the odd
        seconds tell orders apart."""
        wanted = min(max(self._settings.job_timeout, _SHORTEST_DEADLINE), _LONGEST_DEADLINE)
        digest = hashlib.sha256(key.encode()).digest()
        return wanted + int.from_bytes(digest[:4]) % _FINGERPRINTS

    def _one_of(
        self,
        found: Sequence[Mapping[str, Any]],
        order: Order,
        card: ModelCard,
        form: Form | None,
        since: datetime.datetime,
    ) -> Ticket | None:
        """The one prediction that is the order's; None when none can be. Raises Uncertain."""
        model, _, version = _service(card).partition(":")
        possible = []
        for one in found:
            webhook = one.get("webhook")
            if isinstance(webhook, str) and order.key in webhook:
                return _ticket(one, card)
            created = _time(one.get("created_at"))
            mine = (
                one.get("source") != "web"
                and not webhook  # it would hold our key
                and (one.get("model") == model or (bool(version) and one.get("version") == version))
                and (created is None or created >= since)
                and self._marked(one, order.key) is not False
                and (form is None or predictions.removed(one) or _holds(one["input"], form))
            )
            if mine:
                possible.append(one)
        if not possible:
            return None
        only = possible[0]
        readable = form is not None and not predictions.removed(only)
        if len(possible) == 1 and readable and self._marked(only, order.key):
            return _ticket(only, card)
        raise Uncertain(
            "Replicate lists predictions of which one may be this order.",
            cause=", ".join(str(p.get("id")) for p in possible[:10]),
            hints=["Compare them at https://replicate.com/predictions"],
            details={"candidates": [str(p.get("id")) for p in possible[:50]]},
        )

    def _marked(self, one: Mapping[str, Any], key: str) -> bool | None:
        """Whether its deadline is the one that this order was given; None: it does not say."""
        created, ends = _time(one.get("created_at")), _time(one.get("deadline"))
        if created is None or ends is None:
            return None
        return abs((ends - created).total_seconds() - self._deadline(key)) <= 1.0


def document_of(api: Api, model: str) -> Mapping[str, Any]:
    """The OpenAPI document of a model's newest version, or of the version that is named.

    Raises ModelNotFound, and ModelBroken for a name that is none.
    """
    try:
        path = model_path(model)
    except ValueError as error:
        raise ModelBroken(f"{model!r} is no model of Replicate.", cause=str(error)) from None
    answer = api.read(path)
    version = answer if ":" in model else answer.get("latest_version")
    found = version.get("openapi_schema") if isinstance(version, dict) else None
    return found if isinstance(found, dict) else {}


_ADDRESS: TypeAdapter[str] = TypeAdapter(Address)
_TOKEN_HINT = f"Set {VARIABLE}, or backends.replicate.api_key in kinoloom.yaml."


def _service(card: ModelCard) -> str:
    service = card.source.service
    if service is None:
        raise ModelBroken(
            f"The card {card.id} does not name a model of Replicate.",
            hints=["Give it `source: {service: OWNER/NAME}`."],
        )
    return service


def _ticket(one: Mapping[str, Any], card: ModelCard) -> Ticket:
    return Ticket(str(one["id"]), data={"model": _service(card)})


def _data_url(file: Path) -> str | None:
    """A small file as an address that holds it; None for a larger one."""
    if file.stat().st_size > _LARGEST_DATA_URL * 3 // 4 - 64:  # base64 makes four bytes of three
        return None
    kind = {".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}.get(file.suffix.lower(), "png")
    return f"data:image/{kind};base64," + base64.b64encode(file.read_bytes()).decode()


def _holds(sent: Mapping[str, Any], form: Form) -> bool:
    """Whether a prediction was made with the values of a form, and files where it has some."""
    return all(sent.get(name) == value for name, value in form.values.items()) and all(
        name in sent for name in form.files
    )


def _made_at(key: str) -> datetime.datetime | None:
    """When an order got its key: a UUID of version 7 begins with it, in milliseconds."""
    try:
        value = uuid.UUID(key)
    except ValueError:
        return None
    if value.version != 7:
        return None
    return datetime.datetime.fromtimestamp((value.int >> 80) / 1000, datetime.UTC)


def _time(text: Any) -> datetime.datetime | None:
    if not isinstance(text, str):
        return None
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo is not None else found.replace(tzinfo=datetime.UTC)
