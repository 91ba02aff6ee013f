"""How does what a child process says become the events of its job?

Steps of a small model come faster than anybody looks, and each event is a write: of progress within
a phase a few a second are kept.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Callable, Mapping
from typing import Any, Unpack

from kinoloom.store.job_record import JobChanges, JobRecord
from kinoloom.store.store import Store

_EVERY = 0.25
"""Seconds between two kept reports of one phase."""


class Telling:
    """Writes down what is told of one run of a job, and passes everything on at once."""

    def __init__(
        self, job: JobRecord, store: Store, on_event: Callable[[str, Mapping[str, Any]], None]
    ) -> None:
        """`on_event` is called with the job's id and each message."""
        self._job = job
        self._store = store
        self._on_event = on_event
        self._phase: tuple[Any, Any] = (None, None)
        self._began, self._told = time.monotonic(), 0.0

    def message(self, message: Mapping[str, Any]) -> None:
        """Something that the child says: progress, a preview, a line of its log.

        A child counts the seconds of one command, whoever looks at the job those of all.
        """
        kind = message.get("type")
        if kind == "progress":
            message = {**message, "elapsed": round(time.monotonic() - self._began, 3)}
        if kind != "log":
            self._on_event(self._job.id, message)
        if kind == "progress":
            self._progress({k: v for k, v in message.items() if k != "type"})
        elif kind == "preview":
            try:
                picture = base64.b64decode(str(message.get("jpeg")), validate=True)
            except binascii.Error:
                return
            if self._is_mine():
                self._store.events.set_preview(self._job.id, picture)
        elif kind == "log":
            self.log(str(message.get("message", "")))

    def log(self, text: str) -> None:
        """A line for whoever looks at the job."""
        self._on_event(self._job.id, {"type": "log", "message": text})
        if self._is_mine():
            self._store.events.add(self._job.id, "log", {"message": text})

    def _progress(self, progress: dict[str, Any]) -> None:
        now = time.monotonic()
        phase = (progress.get("phase"), progress.get("take"))
        last = progress.get("steps") and progress.get("step") == progress.get("steps")
        if phase == self._phase and not last and now - self._told < _EVERY:
            return
        self._phase, self._told = phase, now
        if self._is_mine(progress=progress):
            self._store.events.add(self._job.id, "progress", progress)

    def _is_mine(self, **changes: Unpack[JobChanges]) -> bool:
        """Change columns of the job; False, and nothing told, when somebody else has it now."""
        return self._store.jobs.update(self._job.id, run=self._job.run, **changes)
