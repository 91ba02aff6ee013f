"""How far is a film, shot by shot?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from kinoloom.config import Settings
from kinoloom.jobs.film_cut import spent
from kinoloom.jobs.film_standing import Standing
from kinoloom.store.films import FilmRecord, waits
from kinoloom.store.job_record import FINISHED, JobRecord
from kinoloom.store.money import plain
from kinoloom.store.store import Store


@dataclass(frozen=True)
class FilmStatus:
    """How far a film is.

    film: its record. job: the newest job that renders it, if there is one. shots: a JSON object for
    each shot: id, title, prompt, frames, segments, done (of them), state ("waiting", "running",
    "done" or "failed"), take (the chosen number), takes (JSON of each, see `FilmTake.as_dict`),
    jobs (ids of its clips' jobs), clips (ids), error.
    done, total: shots. step: what is done now, in words. eta: seconds left, None when unknown.
    spent: what was paid by now, and reserved: what is set aside for it, as decimal numbers in text,
    in `currency`.
    """

    film: FilmRecord
    job: JobRecord | None
    shots: tuple[dict[str, Any], ...]
    done: int
    total: int
    step: str
    eta: float | None
    spent: str
    reserved: str
    currency: str

    def as_dict(self) -> dict[str, Any]:
        """The status as JSON-ready data."""
        return {
            "film": self.film.as_dict(),
            "job": self.job.as_dict() if self.job is not None else None,
            "shots": [dict(shot) for shot in self.shots],
            "done": self.done,
            "total": self.total,
            "step": self.step,
            "eta": self.eta,
            "spent": self.spent,
            "reserved": self.reserved,
            "currency": self.currency,
        }


def status_of(
    film: FilmRecord,
    job: JobRecord | None,
    standings: Sequence[Standing],
    store: Store,
    settings: Settings,
) -> FilmStatus:
    """The status of a film with the newest job that renders it, and what is there of its shots."""
    children = list(store.films.jobs_of(job.id)) if job is not None else []
    jobs: dict[str, list[str]] = {}
    for child in children:
        jobs.setdefault(str(child.request.get("shot")), []).append(child.id)
    progress = (job.progress or {}) if job is not None else {}
    running = job is not None and job.state not in FINISHED and not waits(job)
    working = (progress.get("film") or {}).get("shots", []) if running else []
    failed = ((job.error or {}).get("details") or {}).get("shots", {}) if job else {}
    shots = []
    for standing in standings:
        name = standing.way.shot.id
        error = failed.get(name) if not running and not standing.done else None
        shots.append(_shot(standing, jobs.get(name, []), error, working=name in working))
    cost, currency = spent(children)
    currency = currency or settings.budgets.currency
    return FilmStatus(
        film=film,
        job=job,
        shots=tuple(shots),
        done=sum(shot["state"] == "done" for shot in shots),
        total=len(shots),
        step=_step(job, progress),
        eta=progress.get("eta") if running else None,
        spent=plain(cost or Decimal(0)),
        reserved=plain(store.remote_calls.spending(film=film.id, currency=currency).reserved),
        currency=currency,
    )


def _shot(
    standing: Standing, jobs: Sequence[str], error: Mapping[str, Any] | None, *, working: bool
) -> dict[str, Any]:
    shot, chosen = standing.way.shot, standing.chosen
    clips = chosen.segments[: standing.made] if chosen is not None else []
    if error is not None:
        state = "failed"
    elif working:
        state = "running"
    else:
        state = "done" if standing.done else "waiting"
    return {
        "id": shot.id,
        "title": shot.title,
        "prompt": shot.prompt if chosen is None else chosen.prompt,
        "frames": shot.frames,
        "segments": len(standing.way.segments),
        "tasks": list(standing.way.tasks),
        "done": standing.made,
        "state": state,
        "take": chosen.number if chosen is not None else None,
        "takes": [take.as_dict() for take in standing.takes],
        "jobs": jobs,
        "clips": [segment["clip"] for segment in clips],
        "error": error,
    }


def _step(job: JobRecord | None, progress: Mapping[str, Any]) -> str:
    """What is done now, in words."""
    if job is None:
        return "not rendered yet"
    if waits(job):
        return "waits for you"
    if job.state in FINISHED or job.state != "running":
        return {"succeeded": "finished", "queued": "waits for a worker"}.get(job.state, job.state)
    if progress.get("phase") == "write":
        return "joining the shots"
    return str(progress.get("detail") or "begins")
