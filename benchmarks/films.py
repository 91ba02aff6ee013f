"""How much faster do two workers make a film, and what does a film take beside its clips?

The clips come from a backend of which one takes 4 seconds, or none: what is left is Kinoloom's own
work. Workers are processes (`kinoloom worker`) that make one clip at a time, as with a device each.
Target: a film in the mode keyframe on two workers at least 1.8 times as fast as on one.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.processes import until, working
from benchmarks.waiting import AT_ONCE, FPS, SECONDS, SIZE, WAITS, install
from kinoloom.config import Settings
from kinoloom.film.board import Mode, ShotDefaults, ShotSpec, Storyboard, Transition
from kinoloom.jobs.film_service import FilmService
from kinoloom.jobs.service import JobService
from kinoloom.media.images import save_png
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest
from kinoloom.store.job_record import FINISHED, JobRecord
from kinoloom.store.store import Store

TARGET = 1.8
SHOTS = 8
ROUNDS = repeats(3)
PAIRS = repeats(5)
FRAMES = 25


@dataclass
class Place:
    """A data folder with its own workers, and its services."""

    store: Store
    jobs: JobService
    films: FilmService

    def finished(self, job: JobRecord) -> JobRecord:
        """The job when it has ended. Ends this process when it did not succeed."""

        def ended() -> JobRecord | None:
            found = self.store.jobs.get(job.id)
            return found if found is not None and found.state in FINISHED else None

        until(ended, "the job ends", 600)
        found = ended()
        assert found is not None  # it ended just now
        if found.state != "succeeded":
            sys.exit(f"The job {found.state}: {found.error}")
        return found

    def film(self, board: Storyboard) -> tuple[float, JobRecord]:
        """Make a film: the seconds from asking for it until its file is there, and its job."""
        film = self.films.create(board)
        begin = time.perf_counter()
        job = self.films.render(film.id)
        done = self.finished(job)
        return time.perf_counter() - begin, done

    def clips(self, film: JobRecord, seed: int) -> float:
        """Make the clips of a film as plain ones, one after the other: the seconds."""
        begin = time.perf_counter()
        for number, part in enumerate(self.store.films.jobs_of(film.id)):
            request = Plan.model_validate(part.plan).request
            again = request.model_copy(update={"seed": seed + number})
            self.finished(self.jobs.submit(again))
        return time.perf_counter() - begin

    def warm_up(self, workers: int) -> None:
        """Wait until each worker has made a clip, and has all loaded that it needs."""
        seen: set[str | None] = set()
        seed = 0
        while len(seen) < workers:
            seed += workers
            asked = [
                self.jobs.submit(VideoRequest(prompt="warm", model=WAITS, seed=seed + number))
                for number in range(workers)
            ]
            seen |= {self.finished(job).worker for job in asked}


@contextmanager
def place(home: Path, workers: int) -> Iterator[Place]:
    """A place with so many workers, ready."""
    with ExitStack() as stack:
        settings = Settings(home=home)
        for number in range(workers):
            stack.enter_context(working(home, f"worker-{number}"))
        store = stack.enter_context(Store.of(settings))
        until(lambda: len(store.workers.live()) == workers, "the workers are there")
        jobs = JobService(settings, store)
        stack.callback(jobs.close)
        found = Place(store, jobs, FilmService(settings, store, jobs))
        found.warm_up(workers)
        yield found


def board(mode: Mode, model: str, seed: int, pictures: Path | None) -> Storyboard:
    """A film whose shots are a clip each; with pictures at its boundaries, or made ones."""
    shots = []
    for number in range(SHOTS):
        given = {}
        if pictures is not None and (mode == "keyframe" or number == 0):
            given["start"] = pictures / f"{number}.png"
            if mode == "keyframe" and number == SHOTS - 1:
                given["end"] = pictures / f"{SHOTS}.png"
        frames = FRAMES - (1 if number else 0)  # the frame shared at a cut is shown once
        shots.append(ShotSpec(id=f"shot-{number}", prompt=f"shot {number}", frames=frames, **given))
    return Storyboard(
        title=f"{mode} {seed}",
        mode=mode,
        model=model,
        size=SIZE,
        fps=FPS,
        seed=seed,
        defaults=ShotDefaults(transition=Transition(kind="cut")),
        shots=tuple(shots),
    )


def two_workers(folder: Path) -> None:
    """Print how much faster two workers are."""
    taken: dict[int, list[float]] = {1: [], 2: []}
    orders = 0
    with ExitStack() as stack:
        places = {n: stack.enter_context(place(folder / f"{n}", n)) for n in taken}
        for number in range(ROUNDS):
            for workers in (1, 2) if number % 2 == 0 else (2, 1):
                film = board("keyframe", WAITS, 1000 * number, None)
                seconds, job = places[workers].film(film)
                taken[workers].append(seconds)
                orders = len(places[workers].store.films.jobs_of(job.id))
    ratios = [one / two for one, two in zip(taken[1], taken[2], strict=True)]
    ratio = statistics.median(ratios)
    print(
        f"a film of {SHOTS} shots in the mode keyframe, {orders} orders of {SECONDS:g} s: a picture"
        f" at each boundary, then the shots; median of {ROUNDS}"
    )
    for workers, times in taken.items():
        alone = orders * SECONDS / workers
        middle = statistics.median(times)
        name = f"{workers} worker{'s' if workers > 1 else ''}"
        print(f"{name:12s} {middle:7.2f} s, of which {alone:6.2f} s are the orders alone")
    verdict = "met" if ratio >= TARGET else "MISSED"
    print(f"2 workers : 1 worker  {ratio:.2f} ({min(ratios):.2f}-{max(ratios):.2f})")
    print(f"target {TARGET} times as fast on 2 workers: {ratio:.2f}, {verdict}")


def overhead(folder: Path) -> None:
    """Print what a film takes beside its clips."""
    pictures = folder / "pictures"
    pictures.mkdir()
    for number in range(SHOTS + 1):
        drawn = np.random.default_rng(number).integers(0, 256, (6, 10, 3), dtype=np.uint8)
        save_png(pictures / f"{number}.png", np.kron(drawn, np.ones((32, 32, 1), np.uint8)))
    print(f"\n{SHOTS} shots of {FRAMES} frames {SIZE[0]}x{SIZE[1]}, of a model that takes no time;")
    print(f"the same clips as jobs one after the other on the same worker, median of {PAIRS} pairs")
    print(f"{'mode':10s} {'film s':>8s} {'clips s':>8s} {'ratio':>7s} {'ms a shot more':>15s}")
    with place(folder / "alone", 1) as alone:
        for mode in ("keyframe", "chaining"):
            rows = []
            for number in range(PAIRS):
                seed = 10_000 * (number + 1)
                film, job = alone.film(board(mode, AT_ONCE, seed, pictures))
                rows.append((film, alone.clips(job, seed + 5000)))
            film, clips = (statistics.median(column) for column in zip(*rows, strict=True))
            ratio = statistics.median(one / other for one, other in rows)
            more = 1000 * statistics.median(one - other for one, other in rows) / SHOTS
            print(f"{mode:10s} {film:8.2f} {clips:8.2f} {ratio:7.2f} {more:15.0f}", flush=True)


def main() -> None:
    """Print the tables."""
    print(machine_line())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        install(folder / "packages")
        two_workers(folder)
        overhead(folder)


if __name__ == "__main__":
    main()
