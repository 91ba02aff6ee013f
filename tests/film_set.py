"""A worker that makes films of a few bytes, and who hands them in."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinoloom.config import Settings
from kinoloom.film.board import ShotDefaults, ShotSpec, Storyboard
from kinoloom.jobs.film_service import FilmService
from kinoloom.jobs.service import JobService
from kinoloom.jobs.worker import Worker
from kinoloom.planner.inputs import ImageInput, Inputs, VideoInput, file_digest
from kinoloom.store.films import waits
from kinoloom.store.job_record import FINISHED, JobRecord
from kinoloom.store.store import Store
from stand_in import Message, StandIn, until

WORDS = ("a red ball", "a blue ball", "a green ball", "a yellow ball")


@dataclass
class FilmStandIn(StandIn):
    """A `StandIn` that knows the commands of films too; `seams` scores a join by the later clip."""

    seams: Callable[[str], float] = lambda _after: 1.0

    def _inputs(self, arguments: Mapping[str, Any], tell: object, check: object) -> Message:
        asked = arguments["request"]
        if asked["video"] is not None:
            path = Path(asked["video"])
            size = {"width": 256, "height": 160, "fps": 12.0}
            video = VideoInput(path=path, frames=_frames(path), digest=file_digest(path), **size)
            return {"inputs": Inputs(video=video).model_dump(mode="json")}
        path = Path(asked["image"])
        image = ImageInput(path=path, width=256, height=160, digest=file_digest(path))
        last = asked["last_image"]
        end = last and image.model_copy(
            update={"path": Path(last), "digest": file_digest(Path(last))}
        )
        return {"inputs": Inputs(image=image, last_image=end).model_dump(mode="json")}

    def _boundary(self, arguments: Mapping[str, Any], tell: object, check: object) -> Message:
        words, count = Path(arguments["frames"]).read_text(), arguments["count"]
        which = f"{count} frames to" if count > 1 else "frame"
        Path(arguments["target"]).write_text(f"{which} {arguments['shown']} of {words}")
        return {}

    def _match(self, arguments: Mapping[str, Any], tell: object, check: object) -> Message:
        words = [Path(arguments[name]).read_text() for name in ("frames", "anchor")]
        Path(arguments["target"]).write_text(" like ".join(words))
        return {}

    def _seam(self, arguments: Mapping[str, Any], tell: object, check: object) -> Message:
        return {"overall": self.seams(Path(arguments["after"]).read_text())}

    def _stitch(self, arguments: Mapping[str, Any], tell: object, check: object) -> Message:
        cut = arguments["cut"]
        words = [Path(piece["video"]).read_text() for piece in cut["pieces"]]
        Path(arguments["target"]).write_text("\n".join(words))
        numbers = {"copied": 0, "encoded": len(words), "notes": []}
        return {"frames": cut["frames"], "seconds": 1.0} | numbers


def _frames(video: Path) -> int:
    """How many frames a boundary has that `FilmStandIn` wrote."""
    count, _, rest = video.read_text().partition(" frames to ")
    assert rest, "a boundary of several frames"
    return int(count)


class FilmSet:
    """A worker, its store, and films for it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self.settings = settings
        self.store = store
        self.jobs = JobService(settings, store)
        self.films = FilmService(settings, store, self.jobs)
        self.child = FilmStandIn()
        child: Any = self.child
        self.worker = Worker(settings, store, name="here", child=child, media=child)

    def board(self, mode: str = "chaining", words: tuple[str, ...] = WORDS, **more: Any) -> Any:
        """A storyboard of one short shot for each prompt."""
        fields = {"title": "Balls", "mode": mode, "model": "spark", "fps": 12, "seed": 3}
        shots = tuple(
            ShotSpec(id=f"shot-{number}", prompt=prompt, frames=8)
            for number, prompt in enumerate(words, start=1)
        )
        return Storyboard(**{**fields, "defaults": ShotDefaults(steps=8), "shots": shots, **more})

    def render(self, film: str, state: str = "succeeded") -> JobRecord:
        """The film's job when it has ended, or waits for its user, as it should."""
        job = self.films.render(film)
        until(lambda: self.jobs.get(job.id).state in FINISHED or waits(self.jobs.get(job.id)))
        job = self.jobs.get(job.id)
        assert job.state == state, job.error
        return job

    def rendered(self, since: int = 0) -> list[str]:
        """The prompts that were rendered after the first so many."""
        return self.child.order[since:]


@contextmanager
def film_set(settings: Settings, store: Store) -> Iterator[FilmSet]:
    """A worker that is started, and stopped at the end."""
    made = FilmSet(settings, store)
    made.worker.start()
    try:
        yield made
    finally:
        made.worker.stop()
        made.jobs.close()
