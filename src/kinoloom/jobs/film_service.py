"""What may be done with films: make one of a storyboard, plan, render and look at it, redo a shot?

The command line and the HTTP API go through here. A film is rendered by a job of the kind "film"
(`film_run`), which any worker may run; here only its rows are written.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Literal

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
from kinoloom.film.plan import FilmPlan, There, plan_film
from kinoloom.jobs.film_export import Exporter
from kinoloom.jobs.film_standing import Standing, standings
from kinoloom.jobs.film_status import FilmStatus, status_of
from kinoloom.jobs.planning import load_catalog, plan_request
from kinoloom.jobs.queues import FILM
from kinoloom.jobs.reuse import find_again
from kinoloom.jobs.service import PRIORITY, JobService
from kinoloom.jobs.spending import film_limits
from kinoloom.media.output import disk_errors
from kinoloom.planner.inputs import Inputs, file_digest
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest
from kinoloom.request_checks import MAX_CANDIDATES, MAX_PROMPT, MAX_SEED
from kinoloom.store.films import FilmRecord, FilmTake, waits
from kinoloom.store.job_record import FINISHED, JobRecord
from kinoloom.store.keys import ApiKey
from kinoloom.store.money import plain
from kinoloom.store.store import Store

ExportFormat = Literal["mp4", "webm", "prores", "png", "otio", "sheet"]
"""A film file, a folder of pictures, a timeline for an editor, or a picture of all shots."""
_DRAWN = 2**31
"""Seeds that nobody gave are below it: short enough to be typed."""


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

        A job of it that waits for its user goes on with that one. Raises NotFound, and Conflict
        while it is rendered.
        """
        film = self.get(film_id, owner=owner)
        self._check_idle(film, "changed")
        before = Storyboard.model_validate(film.storyboard)
        board = _seeded(board, before.seed or 0)
        self._hold(film_id, board)
        job = self._job(film)
        if job is not None and waits(job):
            request = {**job.request, "storyboard": board.model_dump(mode="json")}
            self._store.jobs.update(job.id, run=job.run, request=request)
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
        there: dict[str, There] = {}
        spent = Decimal(0)
        if film_id is not None:
            film = self.get(film_id)
            board = _seeded(board, Storyboard.model_validate(film.storyboard).seed or 0)
            there = {s.way.shot.id: s.there(film) for s in self._standings(film, board)}
            currency = self._settings.budgets.currency
            paid = self._store.remote_calls.spending(film=film_id, currency=currency).charged
            spent = Decimal(plain(paid))
        return plan_film(
            board,
            self._planned,
            load_catalog(self._settings).get,
            budget=self._settings.budgets.film,
            spent=spent,
            made=lambda plan: find_again(plan, self._store, keep=True) is not None,
            there=there,
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

        What that is known to cost is set aside in every budget until the job has ended. The job
        that is at it already is given back, and one that waits for its user goes on with what the
        storyboard says now. `unknown_price` is the yes to prices that nobody knows. Raises
        NotFound, BudgetExceeded before anything is spent, and KinoloomError.
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
        job = JobRecord(
            kind=FILM,
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
        return self._store.films.begin(
            job,
            cost=plan.known,
            currency=plan.cost.currency,
            limits=film_limits(self._store, self._settings, job),
        )

    def status(self, film_id: str, *, owner: str | None = None) -> FilmStatus:
        """How far the film is. Raises NotFound."""
        film = self.get(film_id, owner=owner)
        job = self._job(film)
        if job is not None and job.state == "succeeded" and job.clip_id != film.clip_id:
            film = self._store.films.update(film_id, clip_id=job.clip_id)
        return status_of(film, job, self._standings(film), self._store, self._settings)

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
        standing = _shot(self._standings(film), shot)
        first = random.randrange(_DRAWN) if seed is None else seed
        return [
            self._store.films.add_take(
                film_id,
                shot,
                spec=standing.spec,
                seed=(first + number) % (MAX_SEED + 1),
                prompt=prompt or standing.way.shot.prompt,
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
        standing = _shot(self._standings(film), shot)
        for known in standing.takes:
            if known.number == take and known.spec != standing.spec:
                raise Conflict(
                    f"Take {take} of {shot} was made of another storyboard.",
                    cause="The words, pictures or model of the shot have changed since.",
                    hints=["Change the storyboard back, or make a new take with those words."],
                )
        chosen = self._store.films.choose(film_id, shot, take, pinned=True)
        again = [s.way.shot.id for s in self._standings(film) if not s.done]
        if not again:
            return chosen, "The film is joined again; nothing is rendered."
        names = ", ".join(again[:10]) + (", ..." if len(again) > 10 else "")
        said = f"What is not there of {names} is made; then the film is joined again."
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

        Raises NotFound, and Conflict while it is rendered, or waits for its user to decide.
        """
        film = self.get(film_id, owner=owner)
        self._check_idle(film, "deleted")
        job = self._job(film)
        if job is not None and waits(job):
            raise Conflict(
                "The film cannot be deleted: its job waits for you.",
                cause=f"It is job {job.id}.",
                hints=[f"Give it up first: kinoloom jobs cancel {job.id}"],
            )
        self._store.films.delete(film_id)

    # --- what several need --------------------------------------------------------------------

    def _planned(self, request: VideoRequest, inputs: Inputs | None) -> Plan:
        if inputs is None:
            return self._jobs.plan(request)
        return plan_request(
            request, self._settings, self._store, machine=self._jobs.machine(), inputs=inputs
        )

    def _standings(self, film: FilmRecord, board: Storyboard | None = None) -> Sequence[Standing]:
        """What is there of each shot of a film, or of another storyboard for it."""
        if board is None:
            board = Storyboard.model_validate(film.storyboard)
        ways = ways_of(board, self._planned, load_catalog(self._settings).get)
        return standings(board, ways, self._store.films.takes(film.id))

    def _job(self, film: FilmRecord) -> JobRecord | None:
        """The newest job that renders the film."""
        return self._store.jobs.get(film.job_id) if film.job_id is not None else None

    def _busy(self, film: FilmRecord) -> JobRecord | None:
        """The job that renders the film now; one that waits for its user does not."""
        job = self._job(film)
        return None if job is None or job.state in FINISHED or waits(job) else job

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


def _shot(shots: Sequence[Standing], name: str) -> Standing:
    for standing in shots:
        if standing.way.shot.id == name:
            return standing
    near = nearest_names(name, [s.way.shot.id for s in shots], count=1)
    raise NotFound(
        f"The film has no shot {name[:100]!r}.",
        hints=[f"Did you mean {near[0]}?"] if near else ["kinoloom film status shows its shots."],
    )
