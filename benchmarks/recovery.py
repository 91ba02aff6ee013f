"""How long does a job stand still when kill -9 ends the worker that renders it?

Once beside a `kinoloom serve`, which starts its worker again, and once with two workers on one data
folder, of which the other takes over. The worker is killed in the middle of a render; what is told
is the time from the kill until the job's row says that it runs again, and until its first step is
done again, for which a new process has to load torch and the model. Each job must come to its end.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.processes import served, until, working
from kinoloom.config import Settings
from kinoloom.jobs.service import JobService
from kinoloom.request import VideoRequest
from kinoloom.store.events import JobEvent
from kinoloom.store.job_record import FINISHED
from kinoloom.store.store import Store

ROUNDS = repeats(2)
ALONE, BOTH = "started again by the server", "taken over by another worker"


@contextmanager
def alone(home: Path) -> Iterator[None]:
    """A server with its worker."""
    with served(home):
        yield


@contextmanager
def both(home: Path) -> Iterator[None]:
    """Two workers."""
    with working(home, "first"), working(home, "second"):
        yield


def kill_one(home: Path, workers: int) -> tuple[float, float]:
    """Kill the worker of a job that renders; the seconds until it runs and until it steps again."""
    settings = Settings(home=home)
    with Store.of(settings) as store:
        until(lambda: len(store.workers.live()) == workers, "the workers are there")
        service = JobService(settings, store)
        job = service.submit(VideoRequest(prompt="a red ball rolling", seed=1))
        service.close()

        def stepped(after: int) -> JobEvent | None:
            told = store.events.after(after, job_id=job.id)
            steps = (e for e in told if e.type == "progress" and e.data["phase"] == "denoise")
            return next(steps, None)

        def running_again() -> JobEvent | None:
            told = store.events.after(0, job_id=job.id)
            states = (e for e in told if e.type == "state" and e.data["state"] == "running")
            return next((e for e in states if e.data["run"] > job.run), None)

        until(lambda: stepped(0), "the first step")
        now = store.jobs.get(job.id)
        assert now is not None
        worker = store.workers.get(now.worker or "")
        if now.state != "running" or worker is None:
            sys.exit("The render was over before its worker could be killed.")
        os.kill(worker.pid, signal.SIGKILL)
        killed = time.time()
        until(running_again, "the job runs again")
        runs = running_again()
        assert runs is not None
        until(lambda: stepped(runs.number), "the first step of the second run")
        steps = stepped(runs.number)
        assert steps is not None

        def state() -> str:
            record = store.jobs.get(job.id)
            return "" if record is None else record.state

        until(lambda: state() in FINISHED, "the job ends")
        if state() != "succeeded":
            sys.exit(f"The job did not survive: it is {state()}.")
        return runs.created_at.timestamp() - killed, steps.created_at.timestamp() - killed


def main() -> None:
    """Print the table."""
    taken: dict[str, list[tuple[float, float]]] = {ALONE: [], BOTH: []}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(ROUNDS):
            for name, place, workers in ((ALONE, alone, 1), (BOTH, both, 2)):
                home = Path(folder) / f"{workers}-{number}"
                home.mkdir()
                with place(home):
                    taken[name].append(kill_one(home, workers))
    print(machine_line())
    print(f"{f'seconds after kill -9, mean of {ROUNDS}':36s} {'runs':>8s} {'steps':>8s}")
    for name, seconds in taken.items():
        runs, steps = (statistics.mean(column) for column in zip(*seconds, strict=True))
        print(f"{name:36s} {runs:8.2f} {steps:8.2f}")


if __name__ == "__main__":
    main()
