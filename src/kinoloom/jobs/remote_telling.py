"""How does what a service says of an order become the events of its job?"""

from __future__ import annotations

import base64

from kinoloom.backends.base import RemoteStatus
from kinoloom.errors import KinoloomError
from kinoloom.jobs.progress import Event, Phase
from kinoloom.jobs.telling import Telling

_PERCENT = 100
_MAX_PREVIEW = 1 << 20
"""Bytes; a preview is a small picture."""
_SHOWN = 200
"""Characters of a service's own word."""


class RemoteTelling:
    """Tells of one take that is made elsewhere."""

    def __init__(self, telling: Telling, service: str, number: int, takes: int) -> None:
        """`number` of the take, of all `takes`, counts from 0."""
        self._telling = telling
        self._service = service
        self._number, self._takes = number, takes
        self._preview: bytes | None = None
        self._trouble = ""

    def status(self, status: RemoteStatus, since: float | None, typical: float | None) -> None:
        """What a look showed; `since` seconds ago it was accepted, `typical` ones it takes."""
        self._trouble = ""
        if status.state not in ("queued", "running"):
            return
        step, steps = status.step, status.steps
        if not steps and status.progress is not None:
            step, steps = round(min(1.0, max(0.0, status.progress)) * _PERCENT), _PERCENT
        eta = None
        if typical is not None and since is not None:
            eta = max(0.0, typical - since)
        phase: Phase = "queued" if status.state == "queued" else "render"
        self._event(phase, step, steps, eta, f"{self._service} {status.detail}".strip())
        preview = status.preview
        if preview and preview != self._preview and len(preview) <= _MAX_PREVIEW:
            self._preview = preview
            picture = base64.b64encode(preview).decode("ascii")
            self._telling.message({"type": "preview", "jpeg": picture})

    def fetching(self) -> None:
        """The finished video is downloaded now."""
        self._event("fetch", detail=self._service)

    def waiting(self, error: KinoloomError, seconds: float) -> None:
        """Something passing is in the way, and is tried again after so many seconds."""
        if error.message != self._trouble:  # once is enough
            self._trouble = error.message
            self._telling.log(f"{error.message} It is tried again in {seconds:.0f} s.")

    def _event(
        self,
        phase: Phase,
        step: int = 0,
        steps: int = 0,
        eta: float | None = None,
        detail: str = "",
    ) -> None:
        event = Event(
            phase,
            step,
            steps,
            eta=eta,
            take=self._number + 1,
            takes=self._takes,
            detail=detail[:_SHOWN],
        )
        self._telling.message(event.as_dict())
