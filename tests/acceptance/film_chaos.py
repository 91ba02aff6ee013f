"""Is a film whose workers were killed the film that nobody disturbed, and paid once?

A `FilmPlace` is a stage with films on it whose clips a fake of a service makes. `render` has them
made, whoever is killed meanwhile; `frames` and `ordered` are what is compared.
"""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from acceptance.attack import MOMENTS, Attack
from acceptance.paid import unbalanced
from acceptance.stage import Stage
from fakes.filmed import RATE, SIZE, Asked, FilmedRunway, pattern
from kinoloom.film.board import Mode, ShotDefaults, ShotSpec, Storyboard, Transition
from kinoloom.jobs.film_service import FilmService
from kinoloom.jobs.queues import FILM
from kinoloom.media.images import save_png
from kinoloom.media.reader import read_frames
from kinoloom.store.job_record import FINISHED, JobRecord

STITCH = "stitch"
"""The moment at which a film is joined."""
_LIMIT, _LIMIT_OF_KILL = 400.0, 60.0
"""Seconds that all may take, and that each kill may add, on a machine however busy."""
_LOOK = 0.02


def storyboard(mode: Mode, shots: int, pictures: Path, *, edited: str = "") -> Storyboard:
    """A film of short shots, of which every third is longer than its model's clips.

    In the mode `keyframe` every second shot begins with a picture of the user's own, the others
    with one that is made for them. The shot named `edited` has other words.
    """
    specs = []
    for number in range(shots):
        name = f"shot-{number + 1}"
        start = None
        if mode == "keyframe" and number % 2 == 0:
            start = pictures / f"{name}.png"
            if not start.exists():
                save_png(start, pattern(name))
        words = f"{mode} {name}" + (", but otherwise" if name == edited else "")
        long = number % 3 == 2
        fades = Transition(kind="crossfade", duration=0.5) if number % 3 == 1 else None
        specs.append(
            ShotSpec(
                id=name,
                prompt=words,
                frames=(5 if long else 2) * RATE,
                start=start,
                transition=fades,
            )
        )
    return Storyboard(
        title=f"{mode}, killed",
        mode=mode,
        model="filmed",
        keyframe_model="filmed-still" if mode == "keyframe" else None,
        size=SIZE,
        fps=RATE,
        seed=11,
        defaults=ShotDefaults(),
        shots=tuple(specs),
    )


@dataclass
class Tally:
    """What happened."""

    kills: Counter[str]
    orders: int
    uncertain: int
    released: int
    retried: int
    again: int
    seconds: float

    def __str__(self) -> str:
        """One line for people."""
        kills = ", ".join(f"{self.kills[moment]} {moment}" for moment in (*MOMENTS, STITCH))
        return (
            f"{self.kills.total()} kills ({kills}) over films of {self.orders} orders in"
            f" {self.seconds:.0f} s: {self.uncertain} uncertain orders were held and resolved,"
            f" {self.released} jobs with an order were released, {self.retried} without one were"
            f" given up and retried, {self.again} times a film was rendered again"
        )


class FilmPlace:
    """A stage with films on it, and the service that makes their clips."""

    def __init__(self, stage: Stage, service: FilmedRunway, seed: int = 0) -> None:
        self._stage, self._service = stage, service
        self._films = FilmService(stage.settings, stage.store, stage.service)
        self._attack = Attack(stage, service, seed, spread=3)
        self._ids: list[str] = []
        self._stitched: set[str] = set()
        self._again = 0

    def create(self, boards: Sequence[Storyboard]) -> None:
        """Make films of storyboards."""
        self._ids += [self._films.create(board).id for board in boards]
        self._attack.begin()

    def update(self, film: int, board: Storyboard) -> None:
        """Give the film of that number another storyboard."""
        self._films.update(self._ids[film], board)

    def render(self, kills: int = 0) -> Tally:
        """Have all films made, with so many kills and one for each while it is joined.

        Raises AssertionError when that takes too long.
        """
        began, limit = time.monotonic(), _LIMIT + _LIMIT_OF_KILL * kills
        self._stitched = set(self._ids) if kills == 0 else set()
        for film in self._ids:
            self._films.render(film)
        while [film for film in self._ids if not self._goes(film)]:
            assert time.monotonic() - began < limit, f"{self._tally(began)}\n{self._left()}"
            more = self._attack.kills.total() < kills
            self._attack.go_on(kills, trouble=more)
            time.sleep(_LOOK)
        return self._tally(began)

    def close(self) -> None:
        """End the workers.

        Raises AssertionError when something was paid twice, lost, left over, or paid and not in the
        books.
        """
        self._attack.stop()
        self._stage.end_all()
        faults = [*self._judge(), *self._stage.left_over()]
        assert not faults, "\n".join(faults[:50])

    def frames(self, film: int) -> list[str]:
        """What is seen in each frame of the finished film of that number."""
        record = self._films.status(self._ids[film]).film
        clip = self._stage.store.clips.get(str(record.clip_id))
        assert clip is not None
        assert clip.asset is not None
        video = self._stage.store.assets.path(clip.asset)
        return [hashlib.sha256(frame.tobytes()).hexdigest() for frame in read_frames(video)]

    @property
    def ordered(self) -> Counter[Asked]:
        """How often each clip was ordered by now."""
        return Counter(self._service.ordered)

    # --- what a user does -------------------------------------------------------------------

    def _goes(self, film: str) -> bool:
        """Whether a film is finished; one whose job has failed is rendered again."""
        found = self._films.get(film).job_id
        assert found is not None
        job = self._stage.service.get(found)
        if job.state == "running" and (job.progress or {}).get("phase") == "write":
            self._strike_stitching(film, job)
        assert job.state != "failed", job.error
        if job.state == "held" and job.error is not None:
            assert job.error["kind"] == "uncertain", job.error
            if self._open(job):  # what nobody is certain about is looked up first
                return False
            self._again += 1
            if self._attack.luck.random() < 0.5:
                self._films.render(film)
            else:
                self._stage.service.release(job.id)
        return job.state == "succeeded"

    def _open(self, job: JobRecord) -> bool:
        held = self._stage.store.films.jobs_of(job.id, states=["held", "dead"])
        return bool(held)

    def _strike_stitching(self, film: str, job: JobRecord) -> None:
        if film in self._stitched:
            return
        time.sleep(self._attack.luck.uniform(0, 0.3))  # somewhere in the middle
        if self._attack.kill(job.worker, STITCH):
            self._stitched.add(film)

    # --- judging ----------------------------------------------------------------------------

    def _tally(self, began: float) -> Tally:
        attack = self._attack
        return Tally(
            attack.kills,
            self._service.ordered.total(),
            attack.uncertain,
            attack.released,
            attack.retried,
            self._again,
            time.monotonic() - began,
        )

    def _left(self) -> str:
        jobs = self._stage.service.list(limit=10_000)
        states: Mapping[str, int] = Counter(f"{job.kind} {job.state}" for job in jobs)
        return f"{dict(states)}; films: " + ", ".join(
            f"{self._films.status(film).step}" for film in self._ids
        )

    def _judge(self) -> list[str]:
        """What is wrong with the bill, the books, or what was delivered."""
        faults = [
            f"{count} orders of {asked}"
            for asked, count in self._service.ordered.items()
            if count != 1
        ]
        for job in self._stage.service.list(limit=10_000):
            if job.state not in FINISHED:
                faults.append(f"{job.id} of {job.prompt!r} is {job.state}: {job.error}")
            told = Counter(entry.what for entry in self._stage.journal.entries(job.id))
            if job.state == "succeeded" and (told["clip"], told["success"]) != (not job.reused, 1):
                faults.append(f"{job.id} of {job.prompt!r} told {dict(told)}")
            if job.kind != FILM and job.state != "succeeded":
                faults.append(f"{job.id} of {job.prompt!r} is {job.state}: {job.error}")
        return [*faults, *unbalanced(self._stage, self._service)]
