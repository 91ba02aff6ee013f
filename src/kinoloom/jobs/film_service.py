"""What may be done with films: make one of a storyboard, plan, render and look at it, redo a shot?

The command line and the HTTP API go through here. A film is rendered by a job of the kind "film"
(`film_run`), which any worker may run; here only its rows are written.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

from kinoloom.config import Settings
from kinoloom.errors import (
    Conflict,
    InvalidRequest,
    KinoloomError,
    NotFound,
    Problem,
    nearest_names,
)
from kinoloom.film.board import Storyboard
from kinoloom.film.making import ways_of
from kinoloom.film.plan import FilmPlan, plan_film
from kinoloom.jobs.film_cut import spent
from kinoloom.jobs.film_export import Exporter
from kinoloom.jobs.film_shot import spec_of
from kinoloom.jobs.planning import load_catalog, plan_request
from kinoloom.jobs.queues import FILM
from kinoloom.jobs.reuse import find_again
from kinoloom.jobs.service import PRIORITY, JobService
from kinoloom.media.output import disk_errors
from kinoloom.planner.inputs import Inputs, file_digest
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest
from kinoloom.request_checks import MAX_CANDIDATES, MAX_PROMPT, MAX_SEED
from kinoloom.store.films import FilmRecord, FilmTake
from kinoloom.store.ids import new_id
from kinoloom.store.jobs import FINISHED, JobRecord
from kinoloom.store.keys import ApiKey
from kinoloom.store.money import plain
from kinoloom.store.store import Store

ExportFormat = Literal["mp4", "webm", "prores", "png", "otio", "sheet"]
"""A film file, a folder of pictures, a timeline for an editor, or a picture of all shots."""
_DRAWN = 2**31
"""Seeds that nobody gave are below it: short enough to be typed."""


@dataclass(frozen=True)
class FilmStatus:
    """How far a film is.

    film: its record. job: the newest job that renders it, if there is one. shots: a JSON object for
    each shot: id, title, prompt, frames, segments, done (of them), state ("waiting", "running",
    "done" or "failed"), take (the chosen number), takes (JSON of each, see `FilmTake.as_dict`),
    jobs (ids of its clips' jobs), clips (ids), error.
    done, total: shots. step: what is done now, in words. eta: seconds left, None when unknown.
    spent: what was paid by now, as a decimal number in text, in `currency`.
    """

    film: FilmRecord
    job: JobRecord | None
    shots: tuple[dict[str, Any], ...]
    done: int
    total: int
    step: str
    eta: float | None
    spent: str
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
            "currency": self.currency,
        }


class FilmService:
    """Films of one store. `owner` is always the id of a key; None is nobody's or everybody's."""

    def __init__(self, settings: Settings, store: Store, jobs: JobService) -> None:
        self._settings = settings
        self._store = store
        self._jobs = jobs

    def create(self, board: Storyboard, owner: str | None = None) -> FilmRecord:
        """A new film of a checked storyboard; nothing is rendered."""
        board = _seeded(board, random.randrange(_DRAWN))
        film = self._store.films.add(
            FilmRecord(
                title=board.title,
                mode=board.mode,
                storyboard=board.model_dump(mode="json"),
                owner=owner,
                budget=board.budget,
            )
        )
        self._hold(film.id, board)
        return film

    def update(self, film_id: str, board: Storyboard, *, owner: str | None = None) -> FilmRecord:
        """Give a film another storyboard; what stays the same in it is not rendered again.

        Raises NotFound, and Conflict while it is rendered.
        """
        film = self.get(film_id, owner=owner)
        self._check_idle(film, "changed")
        before = Storyboard.model_validate(film.storyboard)
        board = _seeded(board, before.seed or 0)
        self._hold(film_id, board)
        return self._store.films.update(
            film_id,
            title=board.title,
            mode=board.mode,
            storyboard=board.model_dump(mode="json"),
            budget=board.budget,
        )

    def _hold(self, film_id: str, board: Storyboard) -> None:
        """Keep what the storyboard names of the store's own files, however long nothing else does.

        A user's files are the user's to keep.
        """
        held = []
        for path in board.media:
            try:
                digest = file_digest(path)
                self._store.assets.size(digest)
            except KinoloomError:  # none of the store's, or not there; rendering says so
                continue
            held.append(digest)
        self._store.films.hold(film_id, held)

    def get(self, film_id: str, *, owner: str | None = None) -> FilmRecord:
        """The film of that id, of that owner if one is named. Raises NotFound."""
        found = self._store.films.get(film_id, owner=owner)
        if found is None:
            raise NotFound(
                f"There is no film {film_id[:100]!r}.",
                hints=["`kinoloom film list`, or GET /api/films, shows the films there are."],
            )
        return found

    def list(
        self, *, limit: int = 50, before: str | None = None, owner: str | None = None
    ) -> Sequence[FilmRecord]:
        """The newest films, newest first; `before` is the id to go on from."""
        return self._store.films.list(limit=limit, before=before, owner=owner)

    def plan(self, board: Storyboard, *, film_id: str | None = None) -> FilmPlan:
        """What rendering a storyboard would do and cost; nothing is spent.

        With `film_id` what that film has already is known. Raises KinoloomError.
        """
        kept: dict[str, int] = {}
        if film_id is not None:
            board, kept = self._known(self.get(film_id), board)
        return plan_film(
            board,
            self._planned,
            load_catalog(self._settings).get,
            budget=self._settings.budgets.film,
            made=lambda plan: find_again(plan, self._store, keep=True) is not None,
            kept=lambda shot: kept.get(shot, 0),
        )

    def render(
        self,
        film_id: str,
        *,
        owner: ApiKey | None = None,
        origin: str = "api",
        queue: str | None = None,
        webhook: str | None = None,
        unknown_price: bool = False,
    ) -> JobRecord:
        """Start rendering what is missing of a film, and joining it: its job.

        The one that is at it already is given back. `unknown_price` is the yes to prices that
        nobody knows. Raises NotFound, BudgetExceeded before anything is spent, and KinoloomError.
        """
        film = self.get(film_id, owner=owner.id if owner is not None else None)
        if (busy := self._busy(film)) is not None:
            return busy
        if webhook is not None and self._settings.webhook_secret is None:
            allowed = "an address only where the settings have a webhook_secret to sign with"
            raise InvalidRequest([Problem("webhook", "***", allowed)])
        board = Storyboard.model_validate(film.storyboard)
        plan = self.plan(board, film_id=film_id)
        plan.check_budget()
        if plan.cost.amount is None and not unknown_price:
            raise InvalidRequest(
                [Problem("unknown_price", False, "yes, as the price is not known", True)],
                message="What the film costs is not known.",
                hints=[plan.cost.basis, "Say yes to it, or choose models with known prices."],
            )
        now = datetime.now(UTC)
        job, _ = self._store.jobs.add(
            JobRecord(
                id=new_id(),
                kind=FILM,
                state="held",
                queue=queue or FILM,
                priority=PRIORITY,
                origin=origin,
                owner=film.owner if owner is None else owner.id,
                request={
                    "film": film_id,
                    "storyboard": film.storyboard,
                    "unknown_price": unknown_price,
                },
                task=FILM,
                model=", ".join(sorted({shot.model for shot in plan.shots}))[:200],
                backend=", ".join(sorted({shot.backend for shot in plan.shots}))[:40],
                prompt=film.title,
                created_at=now,
                updated_at=now,
                webhook=webhook,
                film=film_id,
            )
        )
        # Held until the film names it: of two who begin at once only one is there afterwards.
        self._store.films.update(film_id, job_id=job.id)
        return self._store.jobs.move(job.id, "queued", expect=["held"], run=job.run) or job

    def status(self, film_id: str, *, owner: str | None = None) -> FilmStatus:
        """How far a film is. Raises NotFound."""
        film = self.get(film_id, owner=owner)
        job = self._store.jobs.get(film.job_id) if film.job_id is not None else None
        if job is not None and job.state == "succeeded" and job.clip_id != film.clip_id:
            film = self._store.films.update(film_id, clip_id=job.clip_id)
        board = Storyboard.model_validate(film.storyboard)
        children = list(self._store.films.jobs_of(job.id)) if job is not None else []
        takes = self._store.films.takes(film_id)
        failed = ((job.error or {}).get("details") or {}).get("shots", {}) if job else {}
        progress = (job.progress or {}) if job is not None else {}
        working = (progress.get("film") or {}).get("shots", [])
        running = job is not None and job.state not in FINISHED
        ways = ways_of(board, self._planned, load_catalog(self._settings).get)
        shots = []
        for spec, way in zip(board.shots, ways, strict=True):
            mine = [take for take in takes if take.shot == spec.id]
            now = spec_of(board, spec, way)
            chosen = next((t for t in mine if t.chosen and t.spec == now), None)
            made = len(chosen.segments) if chosen is not None else 0
            error = failed.get(spec.id) if not running else None
            state = "waiting"
            if error is not None:
                state = "failed"
            elif running and spec.id in working:
                state = "running"
            elif made == len(way.segments):
                state = "done"
            shots.append(
                {
                    "id": spec.id,
                    "title": spec.title,
                    "prompt": way.shot.prompt if chosen is None else chosen.prompt,
                    "frames": way.shot.frames,
                    "segments": len(way.segments),
                    "done": made,
                    "state": state,
                    "take": chosen.number if chosen is not None else None,
                    "takes": [take.as_dict() for take in mine],
                    "jobs": [c.id for c in children if c.request.get("shot") == spec.id],
                    "clips": [s["clip"] for s in chosen.segments] if chosen is not None else [],
                    "error": error,
                }
            )
        cost, currency = spent(children)
        return FilmStatus(
            film=film,
            job=job,
            shots=tuple(shots),
            done=sum(shot["state"] == "done" for shot in shots),
            total=len(shots),
            step=_step(job, progress),
            eta=progress.get("eta") if running else None,
            spent=plain(cost or Decimal(0)),
            currency=currency or self._settings.budgets.currency,
        )

    def retake(
        self,
        film_id: str,
        shot: str,
        *,
        seed: int | None = None,
        prompt: str | None = None,
        candidates: int = 1,
        owner: str | None = None,
    ) -> Sequence[FilmTake]:
        """New takes of a shot, which the next `render` makes; the first of them is chosen.

        Without a seed each has another one, with one they count up from it. Raises NotFound,
        InvalidRequest, and Conflict while the film is rendered.
        """
        film = self.get(film_id, owner=owner)
        self._check_idle(film, "changed")
        problems = []
        if seed is not None and not 0 <= seed <= MAX_SEED:
            problems.append(Problem("seed", seed, f"0 to {MAX_SEED}"))
        if prompt is not None and not 0 < len(prompt) <= MAX_PROMPT:
            problems.append(Problem("prompt", prompt[:60], f"1 to {MAX_PROMPT} characters"))
        if not 1 <= candidates <= MAX_CANDIDATES:
            problems.append(Problem("candidates", candidates, f"1 to {MAX_CANDIDATES}"))
        if problems:
            raise InvalidRequest(problems)
        board = Storyboard.model_validate(film.storyboard)
        index = _index(board, shot)
        way = ways_of(board, self._planned, load_catalog(self._settings).get)[index]
        first = random.randrange(_DRAWN) if seed is None else seed
        return [
            self._store.films.add_take(
                film_id,
                shot,
                spec=spec_of(board, board.shots[index], way),
                seed=(first + number) % (MAX_SEED + 1),
                prompt=prompt or way.shot.prompt,
                reason="retake",
                chosen=number == 0,
            )
            for number in range(candidates)
        ]

    def choose(
        self, film_id: str, shot: str, take: int, *, owner: str | None = None
    ) -> tuple[FilmTake, str]:
        """Let another take be shown, and what the next `render` has to do for that, in words.

        Raises NotFound, and Conflict while the film is rendered or when the take was made of what
        the storyboard says no more.
        """
        film = self.get(film_id, owner=owner)
        self._check_idle(film, "changed")
        board = Storyboard.model_validate(film.storyboard)
        index = _index(board, shot)
        ways = ways_of(board, self._planned, load_catalog(self._settings).get)
        spec = spec_of(board, board.shots[index], ways[index])
        for known in self._store.films.takes(film_id, shot):
            if known.number == take and known.spec != spec:
                raise Conflict(
                    f"Take {take} of {shot} was made of another storyboard.",
                    cause="The words, pictures or model of the shot have changed since.",
                    hints=["Change the storyboard back, or make a new take with those words."],
                )
        chosen = self._store.films.choose(film_id, shot, take, pinned=True)
        after = []
        for way in ways[index + 1 :]:
            if board.mode != "chaining" or not way.goes_on:
                break
            after.append(way.shot.id)
        said = "The film is joined again; nothing is rendered."
        if len(chosen.segments) < len(ways[index].segments):
            said = "The take is made, and the film is joined again."
        if after:
            said = (
                f"The shots that go on from it are made again, where they were not before:"
                f" {', '.join(after)}. Then the film is joined again."
            )
        return chosen, said

    def export(
        self,
        film_id: str,
        target: Path,
        format: ExportFormat = "mp4",  # noqa: A002 - the word users know
        *,
        owner: str | None = None,
    ) -> Path:
        """Write the film, as it was joined last, to `target`: the file, or for "png" the folder.

        Raises NotFound, Conflict when it was not joined yet, and OutputFailed.
        """
        film = self.status(film_id, owner=owner).film
        clip = self._store.clips.get(film.clip_id) if film.clip_id is not None else None
        if clip is None or clip.asset is None:
            raise Conflict(
                "The film is not finished.",
                cause="Its shots were not joined yet.",
                hints=[f"kinoloom film render {film_id}"],
            )
        if format == "mp4":
            with disk_errors(target):
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(self._store.assets.path(clip.asset), target)
            return target
        Exporter(self._settings, self._store).write(clip, target, format)
        return target

    def delete(self, film_id: str, *, owner: str | None = None) -> None:
        """Forget a film and its takes; their clips stay.

        Raises NotFound, and Conflict while it is rendered.
        """
        self._check_idle(self.get(film_id, owner=owner), "deleted")
        self._store.films.delete(film_id)

    # --- what several need --------------------------------------------------------------------

    def _planned(self, request: VideoRequest, inputs: Inputs | None) -> Plan:
        if inputs is None:
            return self._jobs.plan(request)
        return plan_request(
            request, self._settings, self._store, machine=self._jobs.machine(), inputs=inputs
        )

    def _known(self, film: FilmRecord, board: Storyboard) -> tuple[Storyboard, dict[str, int]]:
        """The storyboard with the film's seed, and how many clips of each shot stay as they are."""
        before = Storyboard.model_validate(film.storyboard)
        board = _seeded(board, before.seed or 0)
        kept = {
            f"{shot}:keyframe": 1
            for shot, clip in film.keyframes.items()
            if self._store.clips.get(clip) is not None
        }
        ways = ways_of(board, self._planned, load_catalog(self._settings).get)
        takes = self._store.films.takes(film.id)
        stays = True
        for spec, way in zip(board.shots, ways, strict=True):
            if not way.goes_on:
                stays = True
            now = spec_of(board, spec, way)
            take = next(
                (t for t in takes if t.shot == spec.id and t.chosen and t.spec == now), None
            )
            asked = [segment.asked for segment in way.segments]
            made = [s["asked"] for s in take.segments] if take is not None else []
            stays = stays and made == asked
            if stays:
                kept[spec.id] = len(made)
        return board, kept

    def _busy(self, film: FilmRecord) -> JobRecord | None:
        """The job that renders the film now."""
        job = self._store.jobs.get(film.job_id) if film.job_id is not None else None
        return job if job is not None and job.state not in FINISHED else None

    def _check_idle(self, film: FilmRecord, wish: str) -> None:
        if (job := self._busy(film)) is not None:
            raise Conflict(
                f"The film cannot be {wish}: it is being rendered.",
                cause=f"Its job {job.id} is {job.state}.",
                hints=[f"Wait for it, or stop it: kinoloom jobs cancel {job.id}"],
            )


def _seeded(board: Storyboard, seed: int) -> Storyboard:
    """The storyboard with a seed of its own: a film is made the same again and again."""
    return board if board.seed is not None else board.model_copy(update={"seed": seed})


def _index(board: Storyboard, shot: str) -> int:
    names = [spec.id for spec in board.shots]
    if shot in names:
        return names.index(shot)
    near = nearest_names(shot, names, count=1)
    raise NotFound(
        f"The film has no shot {shot[:100]!r}.",
        hints=[f"Did you mean {near[0]}?"] if near else ["kinoloom film status shows its shots."],
    )


def _step(job: JobRecord | None, progress: dict[str, Any] | Any) -> str:
    """What is done now, in words."""
    if job is None:
        return "not rendered yet"
    if job.state in FINISHED or job.state != "running":
        return {"succeeded": "finished", "queued": "waits for a worker"}.get(job.state, job.state)
    if progress.get("phase") == "write":
        return "joining the shots"
    return str(progress.get("detail") or "begins")
