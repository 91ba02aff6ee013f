"""What does a prediction say of itself: how far it is, why it failed, where its video is?"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

from kinoloom.backends.base import RemoteState, RemoteStatus
from kinoloom.backends.remote.error_table import ErrorTable
from kinoloom.errors import KinoloomError, NetworkFailed, NotFound

_STATES: Mapping[str, RemoteState] = {
    "starting": "queued",
    "processing": "running",
    "succeeded": "succeeded",
    "failed": "failed",
    "canceled": "cancelled",
    "aborted": "cancelled",
}
# A progress bar as tqdm prints it: " 45%|####     | 9/20 [00:04<00:05,  2.00it/s]".
_BAR = re.compile(r"(\d{1,3})%\|[^|\r\n]*\|\s*(\d{1,6})/(\d{1,6})")
_CODE = re.compile(r"\bE\d{3,4}\b")
_VIDEO = re.compile(r"\.(mp4|webm|mov|mkv|gif)(\?|$)", re.IGNORECASE)
_LOG_TAIL = 20_000
_KEYS = ("video", "video_url", "mp4", "output", "url", "file")


def status_of(prediction: Mapping[str, Any]) -> RemoteStatus:
    """How far a prediction is. Raises NetworkFailed for a state that is not known."""
    word = prediction.get("status")
    state = _STATES.get(word) if isinstance(word, str) else None
    if state is None:
        raise NetworkFailed(f"Replicate names a state that is not known: {str(word)[:40]!r}.")
    if state == "failed":
        return RemoteStatus(state, error=_error(prediction))
    if state == "cancelled":
        # Aborted is what never started; https://replicate.com/changelog/2025-10-16-prediction-deadlines
        return RemoteStatus(state, charged=Decimal(0) if word == "aborted" else None)
    if state == "succeeded":
        return RemoteStatus(state, progress=1.0)
    return _progress(state, prediction.get("logs"))


def video_of(prediction: Mapping[str, Any]) -> tuple[str, int]:
    """The address of a finished prediction's video, and how many files it gave in all.

    Raises NotFound when Replicate has removed it, which it does after an hour.
    """
    output = prediction.get("output")
    addresses = list(_addresses(output))
    if addresses:
        videos = [a for a in addresses if _VIDEO.search(a)]
        return (videos or addresses)[0], len(addresses)
    if prediction.get("data_removed") or output is None:
        raise NotFound(
            "Replicate does not have the finished video any more.",
            cause="It removes what was made through the API after an hour.",
            hints=["Make the clip again; keep a worker running while clips are made."],
        )
    raise NotFound(
        "The prediction gave no video.",
        cause="Its output holds no address of a file.",
        hints=["Is this a model that makes video?"],
    )


def removed(prediction: Mapping[str, Any]) -> bool:
    """Whether what was sent with it cannot be read any more."""
    return bool(prediction.get("data_removed")) or not isinstance(prediction.get("input"), dict)


def _error(prediction: Mapping[str, Any]) -> KinoloomError:
    said = str(prediction.get("error") or "")
    found = _CODE.search(said)
    code = found[0] if found else ""
    return ErrorTable.of("replicate").error(status="failed", code=code, text=said)


def _progress(state: RemoteState, logs: Any) -> RemoteStatus:
    bars = list(_BAR.finditer(logs[-_LOG_TAIL:])) if isinstance(logs, str) else []
    if not bars:
        return RemoteStatus(state)
    percent, step, steps = map(int, bars[-1].groups())
    return RemoteStatus(state, progress=min(percent, 100) / 100, step=step, steps=steps)


def _addresses(output: Any) -> Iterator[str]:
    """The addresses in an output: one, a list, or an object, of which likely keys come first."""
    if isinstance(output, str):
        if output.startswith(("https://", "http://")):
            yield output
    elif isinstance(output, list):
        for item in output:
            yield from _addresses(item)
    elif isinstance(output, dict):
        for key in sorted(output, key=lambda k: _KEYS.index(k) if k in _KEYS else len(_KEYS)):
            yield from _addresses(output[key])
