"""How much longer does a durable job take than the bare work of its child process?

A worker in this process makes spark's default clip, as `kinoloom worker` does; then the same child,
with the same model loaded, is given the very same commands again with nothing around them: render,
score, poster, encode. Both take turns. What the job adds is its plan, its time in the queue, rows,
files put into the store, and the previews and progress that are written down.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.processes import until
from kinoloom.config import Settings
from kinoloom.jobs.render_process import RenderProcess
from kinoloom.jobs.service import JobService
from kinoloom.jobs.worker import Worker
from kinoloom.request import VideoRequest
from kinoloom.store.database import Database
from kinoloom.store.job_record import FINISHED
from kinoloom.store.store import Store

PAIRS = repeats(5)
PROMPT = "a red ball rolling to the right on green grass"


class TimedChild(RenderProcess):
    """A child whose commands are remembered, with the seconds that each one took."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.commands: list[tuple[str, Mapping[str, Any], float]] = []

    def call(self, command: str, arguments: Mapping[str, Any], **how: Any) -> dict[str, Any]:
        """As `RenderProcess.call`."""
        begin = time.perf_counter()
        answer = super().call(command, arguments, **how)
        self.commands.append((command, arguments, time.perf_counter() - begin))
        return answer


class Writes:
    """How often this process wrote to the database, and the seconds that it took."""

    def __init__(self) -> None:
        self.count = 0
        self.seconds = 0.0

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count within the block."""
        plain = Database.writing

        def writing(database: Database) -> AbstractContextManager[Any]:
            return self._one(plain(database))

        with mock.patch.object(Database, "writing", writing):
            yield

    @contextmanager
    def _one(self, block: AbstractContextManager[Any]) -> Iterator[Any]:
        begin = time.perf_counter()
        with block as session:
            yield session
        self.count += 1
        self.seconds += time.perf_counter() - begin


def as_job(service: JobService, store: Store, child: TimedChild, seed: int) -> dict[str, float]:
    """Make the clip by a job; the seconds of its parts."""
    child.commands.clear()
    request = VideoRequest(prompt=PROMPT, seed=seed, cache="bypass")
    writes = Writes()
    with writes.counted():
        begin = datetime.now(UTC)
        job_id = service.submit(request).id
        submitted = datetime.now(UTC)
        until(lambda: (job := store.jobs.get(job_id)) and job.state in FINISHED, "the job ends")
    job = store.jobs.get(job_id)
    assert job is not None
    if job.state != "succeeded":
        sys.exit(f"The job {job.state}: {job.error}")
    assert job.started_at is not None
    assert job.finished_at is not None
    ran = (job.finished_at - job.started_at).total_seconds()
    inside = sum(seconds for *_, seconds in child.commands)
    return {
        "all": (job.finished_at - begin).total_seconds(),
        "plan and row": (submitted - begin).total_seconds(),
        "in the queue": (job.started_at - submitted).total_seconds(),
        "commands of the child": inside,
        "between them": ran - inside,
        "writes": float(writes.count),
        "writing": writes.seconds,
    }


def bare(child: TimedChild) -> float:
    """Give the child the commands of the last job again; their seconds together."""
    commands = [(name, dict(arguments)) for name, arguments, _ in child.commands]
    if [name for name, _ in commands] != ["render", "score", "poster", "encode"]:
        sys.exit(f"The job had other steps: {[name for name, _ in commands]}.")
    frames, whole = "", 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, arguments in commands:
            if name == "render":
                arguments["folder"] = folder
            else:
                arguments["frames"] = frames
            if "target" in arguments:
                arguments["target"] = str(Path(folder) / Path(arguments["target"]).name)
            begin = time.perf_counter()
            answer = child.call(name, arguments)
            whole += time.perf_counter() - begin
            frames = answer.get("frames", frames)
    return whole


def main() -> None:
    """Print the table."""
    jobs, bares = [], []
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(home=Path(folder), device="cpu")
        with Store.of(settings) as store:
            child = TimedChild(settings)
            service, worker = JobService(settings, store), Worker(settings, store, child=child)
            worker.start()
            try:
                as_job(service, store, child, 0)  # loads the model
                bare(child)
                for seed in range(1, PAIRS + 1):
                    jobs.append(as_job(service, store, child, seed))
                    bares.append(bare(child))
            finally:
                worker.stop()
                service.close()
    parts = {name: statistics.median(job[name] for job in jobs) for name in jobs[0]}
    base = statistics.median(bares)
    ratios = [job["all"] / alone for job, alone in zip(jobs, bares, strict=True)]
    print(machine_line())
    print(f"{f'median of {PAIRS} pairs':36s} {'seconds':>8s} {'share':>8s}")
    print(f"{'the bare child':36s} {base:8.3f} {1:8.1%}")
    print(f"{'the job':36s} {parts['all']:8.3f} {parts['all'] / base:8.1%}")
    for name in ("plan and row", "in the queue", "commands of the child", "between them"):
        print(f"  {name:34s} {parts[name]:8.3f} {parts[name] / base:8.1%}")
    writes = f"of that, {parts['writes']:.0f} writes to the database"
    print(f"  {writes:34s} {parts['writing']:8.3f} {parts['writing'] / base:8.1%}")
    print(
        f"{'job : bare child':36s} {statistics.median(ratios):8.3f}"
        f" ({min(ratios):.3f}-{max(ratios):.3f})"
    )


if __name__ == "__main__":
    main()
