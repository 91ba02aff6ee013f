"""How far is a render, and what does it look like by now?

A pipeline with a callback calls `Watch` after each step. One without is watched at its scheduler:
`watched` puts a wrapper around ``scheduler.step`` and takes it away again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from kinoloom.backends.base import Frame, Progress, Take
from kinoloom.backends.local.families.base import Family
from kinoloom.backends.local.preview import LatentPreview, clean_latents

PREVIEWS = 8
"""Rough pictures in a render, spread over its steps."""

Report = Callable[[Progress], None]


class Watch:
    """Reports every step, previews some, and takes the time."""

    def __init__(
        self, pipe: Any, take: Take, family: Family, preview: LatentPreview | None, report: Report
    ) -> None:
        self._pipe, self._take, self._family = pipe, take, family
        self._preview, self._report = preview, report
        self._steps = family.steps(pipe, take)
        self._every = max(1, self._steps // PREVIEWS)
        self._before: Any = None
        self._marks: list[float] = []

    def __call__(self, _pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """The pipeline's callback. `index` restarts with each window of a long clip."""
        self.step(index, tensors["latents"])
        return tensors

    def step(self, index: int, latents: Any) -> None:
        """One step is done: the scheduler's `index` of its steps, and what came out."""
        self._marks.append(time.perf_counter())
        done = len(self._marks)
        last = done == self._steps
        if index == 0:
            self._before = None
        picture = None
        if self._preview is not None:
            if done % self._every == 0 or last:
                picture = self._picture(self._preview, index, latents)
            if (done + 1) % self._every == 0 or done + 1 == self._steps:
                self._before = latents.clone()
        self._report(Progress("denoise", min(done, self._steps), self._steps, picture))
        if last:
            self._report(Progress("decode", self._steps, self._steps))

    def _picture(self, preview: LatentPreview, index: int, latents: Any) -> Frame:
        latents = clean_latents(self._pipe.scheduler, index, self._before, latents)
        return preview.picture(self._family.latents(self._pipe, self._take, latents))

    def seconds(self, started: float, done: float) -> dict[str, float]:
        """Seconds of what comes before the steps, of all steps, of one step, and of the decoding.

        The first step's own time cannot be told from what precedes it, so it is taken to be as
        long as the median of the others.
        """
        gaps = np.diff(self._marks)
        step = float(np.median(gaps)) if len(gaps) else 0.0
        first, last = (self._marks[0], self._marks[-1]) if self._marks else (started, started)
        return {
            "encode": max(0.0, first - started - step),
            "denoise": last - first + step,
            "step": step or max(0.0, first - started),
            "decode": done - last,
        }


@contextmanager
def watched(pipe: Any, watch: Watch, family: Family) -> Iterator[dict[str, Any]]:
    """Let `watch` see every step inside; gives the arguments that the call needs for it."""
    if family.has_callback:
        yield {"callback_on_step_end": watch}
        return
    scheduler = pipe.scheduler
    step = scheduler.step
    count = 0

    def stepping(*args: Any, **kwargs: Any) -> Any:
        nonlocal count
        result = step(*args, **kwargs)
        watch.step(count, result[0] if isinstance(result, tuple) else result.prev_sample)
        count += 1
        return result

    scheduler.step = stepping
    try:
        yield {}
    finally:
        del scheduler.step
