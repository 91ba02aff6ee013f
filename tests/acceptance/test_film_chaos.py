"""Does a film survive any kill, and is just what an edit changed made again?"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinoloom.config import Settings
from kinoloom.film.board import Mode, ShotDefaults, ShotSpec, Storyboard
from kinoloom.jobs.film_service import FilmService
from kinoloom.jobs.service import JobService
from kinoloom.media.reader import read_frames
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store

pytestmark = [pytest.mark.model, pytest.mark.slow]

_FRAMES = (9, 8, 8, 8)
_WORDS = (
    "a red ball rolling to the right on green grass",
    "a red ball bouncing on green grass",
    "a red ball moving left on green grass",
    "a red ball rising on green grass",
)
_LONGEST = 240.0
"""Seconds that anything may take on a machine that others use too."""

# What `kinoloom film render` does, without showing it.
_RENDER = """
import sys
from pathlib import Path
from kinoloom.config import Settings
from kinoloom.jobs.film_here import FilmHere

class Nobody:
    def note(self, text): pass
    def film(self, status): pass

here = FilmHere(Settings(home=Path(sys.argv[1]), device="cpu"))
here.render(sys.argv[2], Nobody())
here.close()
"""


class Studio:
    """A data folder, and processes that render a film in it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(home=folder, device="cpu")
        self.store = Store.of(self.settings)
        self._jobs = JobService(self.settings, self.store)
        self.films = FilmService(self.settings, self.store, self._jobs)
        self._started: list[subprocess.Popen[bytes]] = []

    def begin(self, film: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-c", _RENDER, str(self.settings.home), film]
        self._started.append(subprocess.Popen(command, stderr=subprocess.DEVNULL))
        return self._started[-1]

    def render(self, film: str) -> None:
        assert self.begin(film).wait(timeout=_LONGEST) == 0, self.films.status(film).job

    def finished(self) -> dict[str, JobRecord]:
        """The clips' jobs that have succeeded, by their ids."""
        jobs = self.store.jobs.list(states=["succeeded"], limit=100)
        return {job.id: job for job in jobs if job.kind == "clip"}

    def made(self, film: str) -> list[str]:
        """The shots of which the film's newest job made clips."""
        job = self.films.get(film).job_id
        assert job is not None
        jobs = self.store.films.jobs_of(job)
        return sorted({str(child.request["shot"]) for child in jobs if not child.reused})

    def close(self) -> None:
        for process in self._started:
            process.kill()
            process.wait()
        self._jobs.close()
        self.store.close()


@pytest.fixture
def studio(tmp_path: Path) -> Iterator[Studio]:
    opened = Studio(tmp_path / "home")
    yield opened
    opened.close()


def _board(mode: Mode, words: tuple[str, ...] = _WORDS) -> Storyboard:
    shots = zip(words, _FRAMES, strict=True)
    return Storyboard(
        title="Four shots",
        mode=mode,
        model="spark",
        size=(256, 160),
        fps=12,
        seed=3,
        defaults=ShotDefaults(steps=8),
        shots=tuple(
            ShotSpec(id=f"shot-{number}", prompt=prompt, frames=frames)
            for number, (prompt, frames) in enumerate(shots, start=1)
        ),
    )


@pytest.mark.parametrize("mode", ["keyframe", "chaining"])
def test_a_killed_film_goes_on_and_an_edit_renders_what_it_changed(
    studio: Studio, mode: Mode
) -> None:
    chance = random.Random(mode)
    film = studio.films.create(_board(mode)).id

    done: dict[str, JobRecord] = {}
    for clips in (0, 2):
        process = studio.begin(film)
        deadline = time.monotonic() + _LONGEST
        while len(studio.finished()) < clips or not studio.store.jobs.list(states=["running"]):
            assert process.poll() is None, studio.films.status(film).job
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(chance.uniform(0, 1.5))  # somewhere in what comes next
        process.kill()
        process.wait()
        done |= studio.finished()
    studio.render(film)

    for known in done.values():  # it was not touched again
        now = studio.store.jobs.get(known.id)
        assert now is not None
        assert (now.run, now.clip_id) == (known.run, known.clip_id)
        assert now.finished_at == known.finished_at
    status = studio.films.status(film)
    assert [shot["state"] for shot in status.shots] == ["done"] * 4
    first = studio.store.clips.get(str(status.film.clip_id))
    assert first is not None
    assert first.asset is not None
    assert first.frames == sum(_FRAMES)
    video = studio.store.assets.path(first.asset)
    assert sum(1 for _ in read_frames(video)) == sum(_FRAMES)

    clips = {record.id for record in studio.store.clips.list(limit=100)}
    edited = (*_WORDS[:2], "a red ball growing on green grass", _WORDS[3])
    studio.films.update(film, _board(mode, edited))
    studio.render(film)
    changed = ["shot-3"] if mode == "keyframe" else ["shot-3", "shot-4"]
    assert studio.made(film) == changed
    new = {record.id for record in studio.store.clips.list(limit=100)} - clips
    assert len(new) == len(changed) + 1  # and the film

    studio.films.update(film, _board(mode))  # as it was: all of it is there
    studio.render(film)
    assert studio.made(film) == []
    assert studio.films.get(film).clip_id == first.id
