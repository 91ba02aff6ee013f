"""What do the answers of the API look like that are about films?"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from pydantic import Field

from kinoloom.jobs.film_status import FilmStatus
from kinoloom.request import Task
from kinoloom.server.film_request import shown_storyboard
from kinoloom.server.schemas import Answer, Failure, Job, without_places
from kinoloom.store.films import FilmRecord, FilmTake

_MONEY = "an exact decimal number such as 0.6"


class FilmLinks(Answer):
    """Where more about a film is."""

    self: str
    shots: str
    file: str | None = Field(description="the newest film file, once there is one")
    sheet: str | None = Field(description="a picture of all its shots")
    timeline: str = Field(description="an OpenTimelineIO file for editors")
    job: str | None = Field(description="the newest job that renders it")


class Film(Answer):
    """A storyboard that is made into a film."""

    id: str
    owner: str | None = Field(description="the id of the API key that made it")
    title: str
    mode: str = Field(examples=["chaining"])
    storyboard: dict[str, Any] = Field(description="as it may be sent again")
    budget: str | None = Field(description=f"the most that it may cost, {_MONEY}")
    clip_id: str | None = Field(description="the newest film file, a clip like any other")
    job_id: str | None
    created_at: datetime
    updated_at: datetime
    links: FilmLinks

    @classmethod
    def of(cls, record: FilmRecord) -> Film:
        """The answer for a film's record."""
        here = f"/api/films/{record.id}"
        links = FilmLinks(
            self=here,
            shots=f"{here}/shots",
            file=None if record.clip_id is None else f"{here}/file",
            sheet=None if record.clip_id is None else f"{here}/sheet",
            timeline=f"{here}/timeline",
            job=None if record.job_id is None else f"/api/jobs/{record.job_id}",
        )
        data = record.as_dict() | {"storyboard": shown_storyboard(record.storyboard)}
        return cls.model_validate(data | {"links": links})


class Take(Answer):
    """One attempt at a shot."""

    shot: str
    number: int
    chosen: bool = Field(description="whether it is the one in the film")
    pinned: bool = Field(description="whether somebody chose it, whatever its seam is")
    reason: Literal["storyboard", "retake", "seam"]
    seed: int
    prompt: str
    segments: list[dict[str, Any]] = Field(description="its clips, as far as they are made")
    scores: dict[str, Any] = Field(description="of its worst clip, from 0 to 1 by measure")
    seam: float | None = Field(description="how well it goes on from the shot before, 0 to 1")
    cost: str | None = Field(description=f"of its clips, {_MONEY}")
    currency: str | None
    created_at: datetime

    @classmethod
    def of(cls, take: FilmTake | Mapping[str, Any]) -> Take:
        """The answer for a take, or for its JSON."""
        data = take.as_dict() if isinstance(take, FilmTake) else take
        return cls.model_validate(without_places(data))


class Takes(Answer):
    """Takes of a shot."""

    items: list[Take]


class Chosen(Answer):
    """The take that is in the film from now on, and what has to be done for that."""

    take: Take
    next: str = Field(description="what the next render does, in words")


class Shot(Answer):
    """A shot of a film, and how far it is."""

    id: str
    title: str | None
    prompt: str
    frames: int
    segments: int = Field(description="the clips that it is made of")
    tasks: list[Task] = Field(description="how each of them is made")
    done: int = Field(description="how many of them are there")
    state: Literal["waiting", "running", "done", "failed"]
    take: int | None = Field(description="the number of the chosen one")
    takes: list[Take]
    jobs: list[str] = Field(description="of its clips")
    clips: list[str]
    error: Failure | None

    @classmethod
    def of(cls, shot: Mapping[str, Any]) -> Shot:
        """The answer for a shot of a `FilmStatus`."""
        data = without_places(shot) | {"takes": [Take.of(take) for take in shot["takes"]]}
        return cls.model_validate(data)


class Shots(Answer):
    """The shots of a film, in its order."""

    items: list[Shot]


class FilmProgress(Film):
    """A film, and how far it is."""

    job: Job | None = Field(description="the newest job that renders it")
    done: int = Field(description="shots that are there")
    total: int = Field(description="shots")
    step: str = Field(description="what is done now, in words")
    eta: float | None = Field(description="seconds left")
    spent: str = Field(description=f"by now, {_MONEY}")
    reserved: str = Field(description=f"set aside for what is being made, {_MONEY}")
    currency: str
    shots: list[Shot]

    @classmethod
    def of_status(cls, status: FilmStatus) -> FilmProgress:
        """The answer for a film's status."""
        return cls(
            **Film.of(status.film).model_dump(),
            job=None if status.job is None else Job.of(status.job),
            done=status.done,
            total=status.total,
            step=status.step,
            eta=status.eta,
            spent=status.spent,
            reserved=status.reserved,
            currency=status.currency,
            shots=[Shot.of(shot) for shot in status.shots],
        )
