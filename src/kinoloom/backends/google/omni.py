"""How does Gemini Omni make a clip, through the Interactions API?

An interaction is created in the background, so that the create answers at once and its id can be
written down; one that answers with the finished clip is asked for again all the same. The video is
asked for as a file of the Files API, which keeps it two days, but may come within the answer.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

from kinoloom.backends.base import Fetched, Order, RemoteState, RemoteStatus, Ticket
from kinoloom.backends.google import shape
from kinoloom.backends.google.access import GEMINI, Access
from kinoloom.backends.google.answers import code_word, create, read, uncertain
from kinoloom.backends.google.files import write_video
from kinoloom.backends.remote.download import download
from kinoloom.backends.remote.error_table import ErrorTable, shown
from kinoloom.catalog.card import ModelCard
from kinoloom.errors import ContentRejected, KinoloomError, NotFound, Uncertain

INLINE_BYTES = 12 * 2**20
"""Pictures up to this many bytes together go within the request, which may have 20 MB
(https://ai.google.dev/gemini-api/docs/files); base64 makes 16 MiB of them."""
PICTURE_BYTES = 100 * 2**20
"""What an uploaded picture may have here; a 4K picture without any compression has 25 MB."""
_CREATE_SECONDS = 900.0
"""A create that does the work before it answers may take minutes."""
_SEED_BITS = 31
_GONE = "Google does not know this interaction any more."
_KEPT = "Google keeps interactions for 55 days, for a day without billing."
_HINTS = (
    "Look for it in https://aistudio.google.com/logs (if logging is on) or in the usage, then:"
    " kinoloom jobs resolve JOB --remote-id ID, or --not-accepted if it is not there.",
)
_FILE = re.compile(r"/files/([\w-]+)(?::download)?$")
_STATES: Mapping[str, RemoteState] = {
    "queued": "queued",
    "completed": "succeeded",
    "cancelled": "cancelled",
    "failed": "failed",
    "incomplete": "failed",
    "requires_action": "failed",
    "requires_continuation": "failed",
    "budget_exceeded": "failed",
}
"""What an interaction's status means; any other word is one of work under way."""


class Omni:
    """Gemini Omni. Threads may share it."""

    def __init__(self, access: Access) -> None:
        self._access = access

    def submit(self, order: Order, card: ModelCard) -> Ticket:
        """Create an interaction, once."""
        take = order.take
        shape.check(order, card)
        client = self._access.gemini()
        content = [*self._pictures(order, card), {"type": "text", "text": _words(order, card)}]
        seed = shape.seed(take, _SEED_BITS)
        task = card.pipelines[take.task].arguments.get("task")
        generation: dict[str, Any] = {"seed": seed}
        if task is not None:
            generation["video_config"] = {"task": task}
        body: dict[str, Any] = {
            "model": card.source.service,
            "input": content,
            "response_format": {
                "type": "video",
                "delivery": "uri",
                "aspect_ratio": shape.aspect_ratio(take),
                "resolution": shape.resolution(take),
                "duration": f"{shape.seconds(take)}s",
            },
            "generation_config": generation,
            # So the SDK makes no continuations either, each of which would be a paid create.
            "background": True,
            "store": True,  # else it could not be asked for again
        }
        interaction = create(
            lambda: client.interactions.create(**body, timeout=_CREATE_SECONDS), hints=_HINTS
        )
        identity = getattr(interaction, "id", None)
        if not isinstance(identity, str) or not identity:
            raise uncertain("It answered without the id of an interaction.", _HINTS)
        return Ticket(identity, data={} if seed == take.seed else {"seed": seed})

    def find(self, order: Order) -> Ticket | None:
        """Raises Uncertain: the Gemini API lists no interactions."""
        raise Uncertain(
            "The Gemini API cannot be asked whether it accepted an order.",
            cause="It lists no interactions.",
            hints=_HINTS,
        )

    def poll(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """How far the interaction is; one whose file is still being written is running."""
        found = self._get(ticket)
        status = _status(found, card)
        if status.state == "succeeded":
            uri = _video(found).get("uri")
            if isinstance(uri, str) and uri:
                return self._file_status(uri) or status
        return status

    def fetch(self, ticket: Ticket, card: ModelCard, folder: Path) -> Fetched:
        """Write the video into `folder`."""
        found = self._get(ticket)
        status = _status(found, card)
        if status.error is not None:
            raise status.error
        if status.state != "succeeded":
            raise NotFound("The interaction has no video yet.", cause=status.detail)
        target = folder / "google.mp4"
        video = _video(found)
        data = video.get("data")
        if data:
            write_video(data, target)
        else:
            self._download(str(video["uri"]), ticket, target)
        notes = (
            (f"Gemini takes seeds below 2^31: {ticket.data['seed']} was used.",)
            if "seed" in ticket.data
            else ()
        )
        model = getattr(found, "model", None) or card.source.service
        return Fetched(target, versions={"model": str(model)}, notes=notes)

    def cancel(self, ticket: Ticket, card: ModelCard) -> RemoteStatus:
        """Cancel the interaction; one that is finished stays what it is."""
        client = self._access.gemini()
        try:
            read(lambda: client.interactions.cancel(ticket.remote_id), gone=_GONE)
        except KinoloomError as error:
            # A finished one is refused as an invalid request; what it is, it says itself.
            if error.recovery.retry == "later":
                raise
        return self.poll(ticket, card)

    def check(self) -> None:
        """Raise what keeps the key from being used: one free call that names a model."""
        client = self._access.gemini()
        read(lambda: client.models.list(config={"page_size": 1}), gone="The address answers 404.")

    def _get(self, ticket: Ticket) -> Any:
        client = self._access.gemini()
        try:
            return read(lambda: client.interactions.get(ticket.remote_id), gone=_GONE)
        except NotFound as error:
            raise NotFound(_GONE, cause=error.cause, hints=[_KEPT]) from None

    def _pictures(self, order: Order, card: ModelCard) -> Iterator[dict[str, str]]:
        """The pictures as parts of the input, uploaded first where they are too many bytes."""
        files = shape.pictures(order)
        within = sum(file.stat().st_size for file in files) <= INLINE_BYTES
        for file in files:
            part = {"type": "image", "mime_type": "image/png"}
            if within:
                data = shape.picture(file, order, card, INLINE_BYTES)
                yield part | {"data": base64.b64encode(data).decode("ascii")}
            else:
                shape.picture(file, order, card, PICTURE_BYTES)
                yield part | {"uri": self._upload(file)}

    def _upload(self, file: Path) -> str:
        """The address of a picture in the Files API. It costs nothing, so it may be repeated."""
        client = self._access.gemini()
        config: Any = {"mime_type": "image/png"}
        uploaded = read(
            lambda: client.files.upload(file=file, config=config),
            gone="The Gemini API takes no uploads.",
        )
        return str(uploaded.uri)

    def _file_status(self, uri: str) -> RemoteStatus | None:
        """What the file of a finished interaction says, where it is not ready."""
        name = _file_name(uri)
        if name is None:
            return None
        client = self._access.gemini()
        try:
            file = read(lambda: client.files.get(name=name), gone="The file is gone.")
        except KinoloomError as error:
            if error.recovery.retry == "later":
                raise
            return None  # gone, or not to be asked about: the download tells more
        state = str(getattr(file.state, "value", file.state) or "")
        if state == "PROCESSING":
            return RemoteStatus("running", detail="the video is being stored")
        if state == "FAILED":
            told = file.error.message if file.error is not None else ""
            failure = ErrorTable.of("google").error(
                status="failed", code="INTERNAL", text=told or ""
            )
            return RemoteStatus("failed", error=failure)
        return None

    def _download(self, uri: str, ticket: Ticket, target: Path) -> None:
        address = self._address(uri)
        home = self._access.gemini_url

        def renewed() -> str:
            newer = _video(self._get(ticket)).get("uri")
            if not newer or self._address(newer) == address:
                raise NotFound(
                    "Google does not have the finished video any more.",
                    cause="Its file expired.",
                    hints=["Google keeps such files for 48 hours. Make the clip anew."],
                )
            return self._address(newer)

        at_home = urlsplit(address)[:2] == urlsplit(home)[:2]
        key = self._access.key
        download(
            address,
            target,
            trusted=at_home and home != GEMINI,
            # Nobody but Google, or who stands in for it by the user's own words, gets the key.
            headers={"x-goog-api-key": key} if at_home and key else {},
            refresh=renewed,
        )

    def _address(self, uri: str) -> str:
        """Where a file is downloaded: at `base_url` where that stands in for Google."""
        parts = urlsplit(uri)
        if parts[:2] == urlsplit(GEMINI)[:2]:
            home = urlsplit(self._access.gemini_url)
            path = home.path.rstrip("/") + parts.path
            parts = parts._replace(scheme=home.scheme, netloc=home.netloc, path=path)
        if _file_name(uri) is not None and not parts.path.endswith(":download"):
            parts = parts._replace(path=f"{parts.path}:download")
        query = dict(parse_qsl(parts.query)) | {"alt": "media"}
        return urlunsplit(parts._replace(query=urlencode(query)))


def _words(order: Order, card: ModelCard) -> str:
    """The prompt, after the tags that say what its pictures are.

    `tags` of the pipeline's arguments (https://ai.google.dev/gemini-api/docs/omni); they are left
    out where the prompt has tags or declarations of its own.
    """
    take = order.take
    tags = card.pipelines[take.task].arguments.get("tags")
    own = any(mark in take.prompt for mark in ("<FIRST_FRAME>", "<IMAGE_REF_", "[# "))
    return take.prompt if tags is None or own else f"{tags} {take.prompt}".rstrip()


def _status(found: Any, card: ModelCard) -> RemoteStatus:
    """What an interaction's own status means."""
    said = str(getattr(found, "status", "") or "")
    state = _STATES.get(said, "running")
    if state == "failed" or (state == "succeeded" and not _video(found)):
        return RemoteStatus("failed", detail=said, error=_failure(said, found, card))
    return RemoteStatus(state, detail=said)


def _failure(said: str, found: Any, card: ModelCard) -> KinoloomError:
    """Why an interaction gave no video."""
    errors = [_error(step) for step in _outputs(found)]
    errors += [(each.code, each.message) for each in getattr(found, "errors", None) or []]
    code, text = next((pair for pair in errors if any(pair)), ("", ""))
    if said != "completed" or code or text:
        status = "failed" if said == "completed" else said
        return ErrorTable.of("google").error(
            status=status, code=code_word(code), text=str(text or "")
        )
    words = " ".join(
        str(part.text)
        for step in _outputs(found)
        for part in getattr(step, "content", None) or []
        if getattr(part, "type", "") == "text" and getattr(part, "text", None)
    )
    if _made_video(found):
        return KinoloomError(
            "Google made a video, which may be charged, but does not hand it out.",
            cause=shown(words) or "The interaction is completed and counts a video's tokens.",
            hints=["Report it to Google with the interaction's id."],
        )
    return ContentRejected(
        f"{card.title} finished without a video.",
        cause=shown(words)
        or "Google gives no reason: it does so when its filters hold back the words, the pictures"
        " or the result, and where a use is not offered in a country.",
        hints=[
            "Change the words or the pictures.",
            "In the EEA, Switzerland and the United Kingdom pictures of minors are refused.",
        ],
    )


def _outputs(found: Any) -> Iterator[Any]:
    """The steps in which the model answered."""
    for step in getattr(found, "steps", None) or []:
        if getattr(step, "type", "") == "model_output":
            yield step


def _error(step: Any) -> tuple[Any, Any]:
    error = getattr(step, "error", None)
    return (getattr(error, "code", ""), getattr(error, "message", "")) if error else ("", "")


def _video(found: Any) -> dict[str, Any]:
    """The last video that the model gave: `data` as base64 or `uri`; empty for none."""
    for step in reversed(list(_outputs(found))):
        for part in reversed(getattr(step, "content", None) or []):
            if getattr(part, "type", "") == "video":
                video = {"data": getattr(part, "data", None), "uri": getattr(part, "uri", None)}
                if any(video.values()):
                    return video
    return {}


def _made_video(found: Any) -> bool:
    """Whether tokens of a video were counted, though none came."""
    usage = getattr(found, "usage", None)
    counted = getattr(usage, "output_tokens_by_modality", None) or []
    return any(
        str(getattr(each, "modality", "")).lower() == "video" and (getattr(each, "tokens", 0) or 0)
        for each in counted
    )


def _file_name(uri: str) -> str | None:
    """``files/ID`` of an address in the Files API."""
    found = _FILE.search(urlsplit(uri).path)
    return f"files/{found[1]}" if found else None
