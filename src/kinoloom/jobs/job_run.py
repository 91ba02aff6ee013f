"""What may one run of a job use, and when is it over?

A run belongs to one worker. Each of its writes is conditional on the job's `run`, so a worker that
was thought dead and comes back writes nothing.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn, Protocol

from kinoloom.config import Settings
from kinoloom.errors import Cancelled, NotFound, TimedOut, WorkerUnavailable
from kinoloom.jobs.record import RenderFacts
from kinoloom.jobs.render_process import RenderProcess
from kinoloom.jobs.telling import Telling
from kinoloom.planner.plan import Plan
from kinoloom.store.job_record import Artefact, JobRecord
from kinoloom.store.store import Store

ATTEMPTS = 2
"""How often a step is tried whose child process died."""
_PAUSE = 1.0
"""Seconds before the second attempt, times a random factor of 1 to 2."""
_KEEPING = 5
"""How often a file is put into the store whose content somebody else is letting go of."""
_LOOK_SECONDS = 0.05


class Superseded(Exception):
    """This run of the job is over: it was held, cancelled, or given to another worker."""


class Watch(Protocol):
    """What the worker knows of a job that it runs."""

    def over(self) -> bool:
        """Whether the run must stop: cancelled, held, taken over or out of time."""
        ...

    def timed_out(self) -> bool:
        """Whether it must stop for its deadline."""
        ...

    def seconds_left(self) -> float:
        """Until the deadline."""
        ...


@dataclass(frozen=True)
class Bench:
    """What a worker has to run jobs with; `on_event` sees what the job tells, as it happens.

    `run_now` begins another job that waits in this worker's own queue.

    `child` renders; `media` is the light one, which opens what services made, so that those jobs
    never wait for a render. `device_lock` is held while a device renders: one job at a time on
    each.
    """

    settings: Settings
    store: Store
    worker: str
    child: RenderProcess
    media: RenderProcess
    device_lock: Callable[[str, Callable[[], bool]], Any]
    on_event: Callable[[str, Mapping[str, Any]], None]
    run_now: Callable[[JobRecord], None] = lambda _job: None


@dataclass(frozen=True)
class Rendered:
    """Where a take's frames or its video are, its sound, and what is known of how it was made."""

    file: Path
    audio: Path | None
    facts: RenderFacts

    @property
    def streamed(self) -> int | None:
        """The number of frames of a video that a service made; see `commands`."""
        return None if self.facts.video is None else self.facts.video.frames


class JobRun:
    """One run of a job on this worker."""

    def __init__(self, job: JobRecord, bench: Bench, watch: Watch) -> None:
        self.job = job
        self.bench = bench
        self.settings = bench.settings
        self.store = bench.store
        self.watch = watch
        self.telling = Telling(job, bench.store, bench.on_event)

    def artefact(self, name: str) -> Artefact | None:
        """What a step left, if it is finished."""
        return self.store.jobs.artefact(self.job.id, name)

    def keep(self, name: str, digest: str | None, data: Mapping[str, Any]) -> None:
        """Keep what a step left. Raises Superseded."""
        if not self.store.jobs.keep_artefact(
            self.job.id, name, run=self.job.run, digest=digest, data=data
        ):
            raise Superseded

    def keep_file(
        self, name: str, file: Path, kind: str, data: Mapping[str, Any], *, link: bool = False
    ) -> str:
        """Put a file that a step made into the store and keep it; its digest.

        Raises OutputFailed and Superseded.
        """
        for attempt in range(1, _KEEPING + 1):
            digest = self.store.assets.put_file(file, kind, link=link).digest
            try:
                self.keep(name, digest, data)
            except NotFound:  # another job had the same content, and let go of it just now
                if attempt == _KEEPING:
                    raise
                continue
            return digest
        raise AssertionError("the last attempt keeps it or raises")

    def write(self, **changes: Any) -> None:
        """Change columns of the job. Raises Superseded."""
        if not self.store.jobs.update(self.job.id, run=self.job.run, **changes):
            raise Superseded

    def keep_plan(self, plan: Plan) -> None:
        """Let the job be that of another plan. Raises Superseded."""
        self.write(
            plan=plan.model_dump(mode="json"),
            plan_key=plan.key,
            model=plan.model,
            backend=plan.backend,
        )

    def inputs(self, plan: Plan) -> dict[str, str]:
        """Where the given media are on this machine, by the names of the plan's inputs.

        They were kept in the store when the job was handed in; a folder of pictures was not.
        """
        return {
            name: str(media.path if media.path.is_dir() else self.store.assets.path(media.digest))
            for name, media in plan.inputs.files.items()
        }

    def call(
        self, command: str, arguments: dict[str, Any], *, light: bool = False
    ) -> dict[str, Any]:
        """Have a child do something; tried again when it dies, which is not the job's fault."""
        return self._call(self.bench.media if light else self.bench.child, command, arguments)

    def call_apart(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """As `call` of a light child, but of one of its own: other jobs go on meanwhile."""
        with self.bench.media.another() as child:
            return self._call(child, command, arguments)

    def _call(
        self, child: RenderProcess, command: str, arguments: dict[str, Any]
    ) -> dict[str, Any]:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return child.call(
                    command,
                    arguments,
                    on_message=self.telling.message,
                    should_stop=self.watch.over,
                    timeout=self.watch.seconds_left(),
                )
            except WorkerUnavailable as error:
                if self.watch.over():  # ended, for this worker goes
                    self.stop()
                if attempt == ATTEMPTS:
                    raise
                self.telling.log(f"{error.message} It is tried once more.")
                self.pause(_PAUSE * (1 + random.random()))
            except Cancelled:
                self.stop()
        raise AssertionError("the last attempt answers or raises")

    def pause(self, seconds: float) -> None:
        """Wait. Raises Superseded or TimedOut as soon as the run is over."""
        if not self.wait(seconds):
            self.stop()

    def wait(self, seconds: float, enough: Callable[[], bool] = lambda: False) -> bool:
        """Wait, or until there is `enough`; False as soon as the run is over."""
        until = time.monotonic() + seconds
        while not self.watch.over():
            left = until - time.monotonic()
            if left <= 0 or enough():
                return True
            time.sleep(min(_LOOK_SECONDS, left))
        return False

    def check(self) -> None:
        """Raise Superseded or TimedOut when the run is over."""
        if self.watch.over():
            self.stop()

    def stop(self) -> NoReturn:
        """Raise what a run that must stop ends with: TimedOut or Superseded."""
        if self.watch.timed_out():
            raise TimedOut(
                "The job took longer than it may.",
                cause=f"Its deadline was {_shown(self.job.deadline_at)}."
                if self.job.deadline_at is not None
                else f"A job may take {self.settings.job_timeout} seconds.",
                hints=["Make it smaller, or give it more time: --timeout, or job_timeout."],
            )
        raise Superseded

    def cancelling(self) -> bool:
        """Whether the user wants this very run to be cancelled."""
        now = self.store.jobs.states([self.job.id]).get(self.job.id)
        return now == ("cancelling", self.job.run)


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
