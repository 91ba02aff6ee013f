"""How far is a job, and how long will it take yet?"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from kinoloom.backends.base import Frame, Progress

Phase = Literal[
    "load", "encode", "denoise", "decode", "queued", "render", "fetch", "score", "write"
]
PHASES: tuple[Phase, ...] = get_args(Phase)
HERE: tuple[Phase, ...] = ("load", "encode", "denoise", "decode", "score", "write")
"""The phases of a take that is rendered here, in their order."""
ELSEWHERE: tuple[Phase, ...] = ("queued", "render", "fetch", "score", "write")
"""The phases of a take that a service makes."""


@dataclass(frozen=True)
class Event:
    """One report of a job: its phase, steps within the phase where it has some, seconds since the
    start and the seconds left where they can be told, and now and then a rough picture. `take`
    counts the candidates, of which there are `takes`. `detail` is a service's own word."""

    phase: Phase
    step: int = 0
    steps: int = 0
    elapsed: float = 0.0
    eta: float | None = None
    preview: Frame | None = None
    take: int = 1
    takes: int = 1
    detail: str = ""

    def as_dict(self) -> dict[str, Any]:
        """The event as JSON-ready data, without the picture."""
        told = {
            "type": "progress",
            "phase": self.phase,
            "step": self.step,
            "steps": self.steps,
            "elapsed": round(self.elapsed, 3),
            "eta": None if self.eta is None else round(self.eta, 3),
            "take": self.take,
            "takes": self.takes,
        }
        return told | ({"detail": self.detail} if self.detail else {})


Listener = Callable[[Event], None]


class Reporter:
    """Turns a backend's progress into events with times.

    Before the first step the plan's estimate tells the time left, from then on the pace of the
    steps done.
    """

    def __init__(self, listener: Listener | None, estimate: float | None, takes: int = 1) -> None:
        """`estimate` is the seconds of one of the `takes`."""
        self._take, self._takes = 0, takes
        self._listener = listener
        self._estimate = estimate
        self._started = time.perf_counter()
        self._denoise_started: float | None = None

    def __call__(self, progress: Progress) -> None:
        """Report where the backend is."""
        now = time.perf_counter()
        eta = None
        if progress.phase in ("load", "encode") and self._estimate is not None:
            eta = max(0.0, self._estimate - (now - self._started))
        if progress.phase == "encode":
            self._denoise_started = now
        if progress.phase == "denoise" and progress.step and self._denoise_started is not None:
            pace = (now - self._denoise_started) / progress.step
            eta = pace * (progress.steps - progress.step)
        self.tell(progress.phase, progress.step, progress.steps, eta, progress.preview)

    def tell(
        self,
        phase: Phase,
        step: int = 0,
        steps: int = 0,
        eta: float | None = None,
        preview: Frame | None = None,
    ) -> None:
        """Report one event of any phase."""
        if self._listener is not None:
            elapsed = time.perf_counter() - self._started
            if eta is not None and self._estimate is not None:
                eta += (self._takes - self._take - 1) * self._estimate
            self._listener(
                Event(phase, step, steps, elapsed, eta, preview, self._take + 1, self._takes)
            )

    def take(self, number: int) -> None:
        """From now on the candidate of that number, counted from 0, is made."""
        self._take = number
