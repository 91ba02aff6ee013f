"""What does a client ask for, and is it something that may be asked for over the network?

The fields are those of `VideoRequest`, but media are named by what the server can check: an
uploaded file by its digest, a data: URI, or, where the settings allow it, a public address. A path
means nothing here and is refused. Every mistake is answered at once.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from kinoloom import request_checks as check
from kinoloom.config import Settings
from kinoloom.errors import InvalidMedia, InvalidRequest, Problem, nearest_names
from kinoloom.jobs.service import PRIORITY
from kinoloom.lora_request import LoraRequest
from kinoloom.request import VideoRequest
from kinoloom.server.bodies import KINDS
from kinoloom.server.fetch import fetch_image
from kinoloom.server.uploads import keep
from kinoloom.store.store import Store

MAX_PRIORITY = 1000
MAX_TIMEOUT = 30 * 86_400
MAX_ADDRESS = 2000
"""Characters of an address; longer ones are not carried by every server in between."""

OPTIONS = ("priority", "timeout", "webhook", "hold")
"""What a body may have beside the fields of `VideoRequest`."""

# There are not that many fields, and none has so long a name. Looking for what a mistyped one was
# meant to be takes a while, and the answer repeats it.
_MAX_FIELDS, _MAX_NAME = 64, 64

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_DATA = re.compile(r"data:([\w.+-]+/[\w.+-]+)?(;[\w.+=-]+)*;base64,", re.ASCII)
# A name, or owner/repository[:file within it]; nothing that could be a place on the server's disk.
_LORA = re.compile(r"(?!\.)[\w.+-]+(/(?!\.)[\w.+-]+(:(?!\.)[\w.+-]+(/(?!\.)[\w.+-]+)*)?)?")
_MEDIA_ALLOWED = (
    'an uploaded file ({"asset": "sha256:..."}, see POST /api/assets), a data: URI of a picture,'
    " or the https address of one"
)
_LORA_ALLOWED = "NAME or OWNER/REPO[:FILE], each with or without :WEIGHT; no path"


@dataclass(frozen=True)
class Options:
    """What a client says about a job beside what the clip is to be.

    `priority` 0 to 1000, the lower the sooner; `timeout` in seconds from now on, None for the
    settings' own; `webhook` is told when the job ends; with `hold` the job waits to be released.
    """

    priority: int = PRIORITY
    timeout: float | None = None
    webhook: str | None = None
    hold: bool = False


@dataclass(frozen=True)
class ClipRequest:
    """A checked body: the request, whose media are files of the store, and the job's options."""

    request: VideoRequest
    options: Options

    def fingerprint(self, *context: str) -> str:
        """64 hex digits that are the same for the same request and options in a context."""
        content = [*context, self.request.model_dump(mode="json"), vars(self.options)]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_clip_request(fields: Mapping[str, Any], store: Store, settings: Settings) -> ClipRequest:
    """The request and options in the fields of a body; media become files of the store.

    Raises InvalidRequest with every mistake at once, InvalidMedia for what is no picture, and
    NetworkFailed for an address that cannot be or must not be fetched.
    """
    if len(fields) > _MAX_FIELDS or any(len(name) > _MAX_NAME for name in fields):
        allowed = f"at most {_MAX_FIELDS} fields with names of at most {_MAX_NAME} characters"
        raise InvalidRequest([Problem("body", f"{len(fields)} fields", allowed)])
    values = {name: value for name, value in fields.items() if name not in OPTIONS}
    problems: list[Problem] = []
    if values.pop("output", None) is not None:
        allowed = "not given: the server keeps the clip, and sends it from its address"
        problems.append(Problem("output", check.shown(fields["output"]), allowed))
    if values.get("format") == "png":
        allowed = "mp4, webm or gif: one file, which can be sent"
        problems.append(Problem("format", values.pop("format"), allowed, "mp4"))
    known = [*(name for name in VideoRequest.model_fields if name != "output"), *OPTIONS]
    for name in [name for name in values if name not in known]:
        near = nearest_names(name, known, count=1)
        problems.append(
            Problem(
                check.shown(name),
                check.shown(values.pop(name)),
                "one of the fields " + ", ".join(known),
                near[0] if near else None,
            )
        )
    media = {name: values[name] for name in KINDS if values.get(name) is not None}
    for name, value in media.items():
        problems += _wrong_media(name, value, store, settings)
    problems += _wrong_loras(values.get("loras"))
    options, wrong = _options(fields, settings)
    problems += wrong
    wrong_media = {problem.field.partition(".")[0] for problem in problems} & set(media)
    # First as words, so that nothing is fetched or kept for a request that has mistakes.
    words = {name: _mapped(name, value, str) for name, value in media.items()}
    try:
        request = VideoRequest.model_validate({**values, **words})
    except InvalidRequest as error:
        problems += [p for p in error.problems if p.field not in wrong_media]
        raise InvalidRequest(problems) from None
    except ValueError as error:
        raise InvalidRequest([*problems, Problem("body", "...", f"a request ({error})")]) from error
    if problems:
        raise InvalidRequest(problems)
    if media:
        files = {
            name: _mapped(name, value, lambda one, field=name: _file(one, field, store, settings))
            for name, value in media.items()
        }
        request = VideoRequest.model_validate({**values, **files})
    return ClipRequest(request, options)


def _options(fields: Mapping[str, Any], settings: Settings) -> tuple[Options, list[Problem]]:
    checks: Mapping[str, Callable[[Any], Any]] = {
        "priority": check.whole(0, MAX_PRIORITY),
        "timeout": check.number(1, MAX_TIMEOUT, " seconds"),
        "webhook": _address,
        "hold": check.yes_or_no,
    }
    found: dict[str, Any] = {}
    problems = []
    for name, test in checks.items():
        value = fields.get(name)
        if value is None:
            continue
        try:
            found[name] = test(value)
        except check.Wrong as wrong:
            # The address of a webhook may hold a password.
            shown = "***" if name == "webhook" else check.shown(value)
            problems.append(Problem(name, shown, wrong.allowed, wrong.nearest))
    if "webhook" in found and settings.webhook_secret is None:
        allowed = "an address only where the settings have a webhook_secret to sign with"
        problems.append(Problem("webhook", "***", allowed))
    return Options(**found), problems


def _address(value: Any) -> str:
    allowed = f"an http or https address of at most {MAX_ADDRESS} characters"
    if not isinstance(value, str) or not 1 <= len(value) <= MAX_ADDRESS:
        raise check.Wrong(allowed)
    if not value.isascii() or not value.isprintable() or " " in value:
        raise check.Wrong(allowed)
    try:
        url = urlsplit(value)
        usable = url.scheme in ("http", "https") and url.hostname and url.port != 0
    except ValueError:  # a bracket too many, or no port number
        usable = False
    if not usable:
        raise check.Wrong(allowed)
    return value


def _wrong_loras(value: Any) -> Iterator[Problem]:
    """The LoRAs that are named by a path; other mistakes in them are found with the rest."""
    entries = value if isinstance(value, list) else [value]
    for entry in entries[: check.MAX_LORAS]:
        name = entry.get("name") if isinstance(entry, Mapping) else entry
        if not isinstance(name, str):
            continue
        if not isinstance(entry, Mapping):
            try:
                name = LoraRequest.parse(name).name
            except InvalidRequest:
                continue
        if not _LORA.fullmatch(name):
            yield Problem("loras", check.shown(name), _LORA_ALLOWED)


def _wrong_media(name: str, value: Any, store: Store, settings: Settings) -> Iterator[Problem]:
    """What is wrong with how media are named; nothing is fetched or decoded."""
    for place, one in _named(name, value):
        digest = _digest(one)
        shown = check.shown(one)
        if digest is not None:
            try:
                store.assets.size(digest)
            except InvalidMedia:
                allowed = "a file that was uploaded before (POST /api/assets)"
                yield Problem(place, shown, allowed)
        elif not isinstance(one, str) or name == "video":
            allowed = _MEDIA_ALLOWED.partition(", a data")[0]
            yield Problem(place, shown, allowed if name == "video" else _MEDIA_ALLOWED)
        elif one.startswith("data:"):
            if _decoded(one) is None:
                yield Problem(place, shown, "data:image/png;base64,... with a picture")
        elif not one.startswith("https://") or len(one) > MAX_ADDRESS:
            yield Problem(place, shown, _MEDIA_ALLOWED)
        elif not settings.image_urls:
            allowed = "an uploaded file or a data: URI; this server fetches no pictures"
            yield Problem(place, shown, f"{allowed} (setting image_urls)")


def _named(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """Each file of a field, and how an error calls it; a list in no known form gives nothing."""
    if name == "keyframes":
        pairs = list(value.items()) if isinstance(value, Mapping) else value
        for pair in pairs[: check.MAX_KEYFRAMES] if isinstance(pairs, list) else ():
            if isinstance(pair, tuple | list) and len(pair) == 2:
                yield f"keyframes.{check.shown(pair[0])}", pair[1]
            else:
                yield "keyframes", pair
    elif name == "references":
        several = value if isinstance(value, list) else [value]
        for index, one in enumerate(several[: check.MAX_REFERENCES]):
            yield f"references.{index}", one
    else:
        yield name, value


def _mapped(name: str, value: Any, change: Any) -> Any:
    """The value of a field of media with each of its files changed."""
    if name == "keyframes":
        pairs = value.items() if isinstance(value, Mapping) else value
        if not isinstance(value, Mapping | list):
            return value
        return [
            [pair[0], change(pair[1])]
            if isinstance(pair, tuple | list) and len(pair) == 2
            else pair
            for pair in pairs
        ]
    if name == "references":
        return [change(one) for one in (value if isinstance(value, list) else [value])]
    return change(value)


def _file(one: Any, field: str, store: Store, settings: Settings) -> str:
    """The path of a file of the store with what a client named."""
    digest = _digest(one)
    if digest is None:
        data = _decoded(one) if one.startswith("data:") else fetch_image(one, settings, field)
        digest = keep(data or b"", field, "image", store=store, settings=settings).digest
    return str(store.assets.path(digest))


def _digest(one: Any) -> str | None:
    """The digest that an object {"asset": digest}, or the digest alone, names."""
    if isinstance(one, Mapping) and set(one) == {"asset"}:
        one = one["asset"]
    return one if isinstance(one, str) and _DIGEST.fullmatch(one) else None


def _decoded(address: str) -> bytes | None:
    """The bytes of a data: URI; None when it holds none."""
    start = _DATA.match(address)
    if start is None:
        return None
    try:
        return base64.b64decode(address[start.end() :], validate=True) or None
    except (binascii.Error, ValueError):
        return None
