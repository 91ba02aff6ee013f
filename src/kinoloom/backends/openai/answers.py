"""What does a server that speaks /v1/videos say?

Many servers speak it, each a little differently: more words for a state, no progress, an error as
text, an address of the video in the answer. All of that is read here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any
from urllib.parse import urljoin

import httpx

from kinoloom.backends.base import RemoteState, RemoteStatus
from kinoloom.backends.remote.error_table import ErrorTable, shown
from kinoloom.backends.remote.retries import wait_asked
from kinoloom.errors import ErrorKind, KinoloomError, error_of

STATES: Mapping[str, RemoteState] = {
    **dict.fromkeys(("queued", "pending", "created", "submitted", "starting"), "queued"),
    **dict.fromkeys(("in_progress", "processing", "running", "generating"), "running"),
    **dict.fromkeys(("completed", "succeeded", "success", "done"), "succeeded"),
    **dict.fromkeys(("failed", "error", "expired"), "failed"),
    **dict.fromkeys(("cancelled", "canceled", "deleted"), "cancelled"),
}
"""Our state for each word that servers use."""


def document_of(answer: httpx.Response) -> Mapping[str, Any]:
    """The JSON object of an answer; empty when it is none."""
    try:
        told = json.loads(answer.content, parse_float=Decimal)
    except (ValueError, RecursionError):
        return {}
    return told if isinstance(told, dict) else {}


def status_of(video: Mapping[str, Any], *, free: bool) -> RemoteStatus:
    """What a video's document says; one that is `free` is known to cost nothing."""
    word = str(video.get("status", "")).lower()
    state = STATES.get(word, "succeeded" if not word and address_of(video, "") else "running")
    error = failure_of(video) if state == "failed" else None
    if error is not None and error.kind is ErrorKind.CANCELLED:
        state, error = "cancelled", None
    ended = state not in ("queued", "running")
    return RemoteStatus(
        state,
        progress=1.0 if state == "succeeded" else _progress(video) if state == "running" else None,
        detail="" if word in STATES else shown(word),
        error=error,
        charged=_charged(video, free=free) if ended else None,
    )


def failure_of(video: Mapping[str, Any]) -> KinoloomError:
    """The error of a video that failed."""
    code, text = _error_parts(video.get("error"))
    return _meaning("failed", code, text, None)


def error_of_answer(answer: httpx.Response) -> KinoloomError:
    """The error that an answer with a status of 400 or more stands for."""
    told = document_of(answer)
    code, text = _error_parts(told.get("error", told.get("detail", told.get("message"))))
    wait = wait_asked(answer.headers.get("retry-after"))
    return _meaning(answer.status_code, code, text, wait)


def address_of(video: Mapping[str, Any], base: str) -> str | None:
    """Where the finished video lies, if its document says so; `base` is the server's address."""
    found = video.get("url") or video.get("video_url")
    for name in ("urls", "unsigned_urls"):
        several = video.get(name)
        if not found and isinstance(several, list) and several:
            found = several[0]
    return urljoin(base, found) if isinstance(found, str) and found else None


def changes_of(video: Mapping[str, Any]) -> Iterator[str]:
    """What another Kinoloom changed of what it was asked, and what it warns of."""
    own = video.get("kinoloom")
    if not isinstance(own, dict):
        return
    for change in own.get("adjustments") or ():
        if isinstance(change, dict):
            told = f"{change.get('field')}: {change.get('asked')} -> {change.get('used')}"
            yield shown(f"The server changed {told} ({change.get('why')})")
    for warning in own.get("warnings") or ():
        yield shown(f"The server warns: {warning}")


def _meaning(status: int | str, code: str, text: str, retry_after: float | None) -> KinoloomError:
    """Another Kinoloom says our own kinds; what others say is looked up."""
    if status != 429 and code in set(ErrorKind):
        return error_of(code, "The server could not make the video.", cause=shown(text))
    return ErrorTable.of("openai").error(
        status=status, code=code, text=text, retry_after=retry_after
    )


def _error_parts(error: object) -> tuple[str, str]:
    """The code and the words of an error, in whatever shape it comes."""
    if isinstance(error, dict):
        code = error.get("code") or error.get("type") or ""
        return str(code), str(error.get("message") or error.get("detail") or "")
    if isinstance(error, str):
        return "", error
    return "", "" if error is None else json.dumps(error, default=str)


def _progress(video: Mapping[str, Any]) -> float | None:
    """The share that is done; servers say it in percent, few as a fraction of one."""
    value = video.get("progress")
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        return None
    fraction = isinstance(value, Decimal) and 0 < value < 1
    return min(max(float(value) if fraction else float(value) / 100, 0.0), 1.0)


def _charged(video: Mapping[str, Any], *, free: bool) -> Decimal | None:
    """What a video cost in US dollars: nothing, or as OpenRouter says."""
    if free:
        return Decimal(0)
    usage = video.get("usage")
    cost = usage.get("cost") if isinstance(usage, dict) else None
    if isinstance(cost, bool) or not isinstance(cost, int | Decimal | str):
        return None
    try:
        amount = Decimal(cost)
    except InvalidOperation:
        return None
    return amount if amount.is_finite() and amount >= 0 else None
