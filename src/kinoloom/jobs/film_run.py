"""How does a film's job go on from wherever it is?

    ways of its shots -> takes, each of clips that are jobs -> seams -> one film

It renders nothing itself. In each round every shot is asked what it lacks: pictures that are there
become clips' jobs, finished clips lead to the next ones. All that was finished is in clips, takes
and artefacts, so a run that was killed is simply begun again and finds it there.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal

from kinoloom.errors import KinoloomError, error_of
from kinoloom.film.board import Storyboard
from kinoloom.film.identity import spec_of
from kinoloom.film.making import ways_of
from kinoloom.jobs.film_cut import FilmCut
from kinoloom.jobs.film_pictures import Pictures
from kinoloom.jobs.film_segments import Children
from kinoloom.jobs.film_shot import ShotRun
from kinoloom.jobs.job_run import Bench, JobRun, Superseded, Watch
from kinoloom.jobs.leftovers import tidy, work_folder
from kinoloom.jobs.planning import load_catalog
from kinoloom.jobs.service import JobService
from kinoloom.store.job_record import JobChanges, JobRecord

_LOOK_SECONDS = 0.2
"""Between two rounds: a clip takes seconds at least."""


class FilmRun:
    """One run of a film's job on this worker."""

    def __init__(self, job: JobRecord, bench: Bench, watch: Watch) -> None:
        self._job = job
        self._store = bench.store
        self._bench = bench
        self._run = JobRun(job, bench, watch)
        self._film = str(job.film)
        self._failed: Sequence[ShotRun] = ()

    def carry_out(self) -> None:
        """Do what is left of the film, and write how that ended."""
        service = JobService(self._bench.settings, self._store)
        children = Children(self._run, service, self._film, again=self._go())
        try:
            with work_folder(self._store, self._job) as folder:
                pictures = Pictures(self._run, folder)
                shots = self._shots(children, pictures)
                self._make(shots, children)
                FilmCut(self._run, self._film, self._board(), folder).join(shots)
        except Superseded:
            if self._run.cancelling():
                children.cancel()
        except KinoloomError as error:
            self._fail(error)
        else:
            tidy(self._store, self._job.id)
        finally:
            service.close()

    # --- the rounds -------------------------------------------------------------------------

    def _shots(self, children: Children, pictures: Pictures) -> list[ShotRun]:
        board = self._board()
        catalog = load_catalog(self._bench.settings)
        ways = ways_of(board, children.planned, catalog.get)
        shots: list[ShotRun] = []
        for way, spec in zip(ways, board.shots, strict=True):
            before = shots[-1] if shots else None
            shot = ShotRun(
                self._run, self._film, way, spec_of(board, spec, way), children, pictures, before
            )
            if before is not None:
                before.after = shot
            shots.append(shot)
        film = self._store.films.get(self._film)
        keyframes = {} if film is None else dict(film.keyframes)
        for shot in shots:
            shot.keyframes = keyframes
            shot.unknown_price = bool(self._job.request.get("unknown_price"))
            shot.chained = board.mode == "chaining"
        return shots

    def _make(self, shots: Sequence[ShotRun], children: Children) -> None:
        """Go round until every shot is finished, or none of the others can be."""
        told = None
        while True:
            self._run.check()
            children.look()
            for shot in shots:
                shot.go_on()
            now = self._progress(shots, children)
            if now != told:
                self._run.telling.message({"type": "progress", **now})
                told = now
            if all(shot.over for shot in shots):
                break
            self._run.pause(_LOOK_SECONDS)
        failed = [shot for shot in shots if shot.failed is not None]
        if failed:
            self._failed = failed
            raise _unfinished(self._job, failed, sum(shot.done for shot in shots), len(shots))

    def _progress(self, shots: Sequence[ShotRun], children: Children) -> dict[str, object]:
        """How far the film is; its steps are shots."""
        done = sum(shot.done for shot in shots)
        working = [shot.way.shot.id for shot in shots if shot.working]
        spent = sum((j.cost for j in children.jobs.values() if j.cost is not None), Decimal(0))
        pace = children.pace()
        eta = None if pace is None else pace * sum(shot.lacks for shot in shots)
        return {
            "phase": "render",
            "step": done,
            "steps": len(shots),
            "eta": None if eta is None else round(eta, 1),
            "take": 1,
            "takes": 1,
            "detail": ", ".join(working[:3]),
            "film": {"done": done, "total": len(shots), "shots": working, "spent": f"{spent:f}"},
        }

    # --- what a run begins and ends with ------------------------------------------------------

    def _board(self) -> Storyboard:
        """The storyboard as it was when the job was handed in."""
        return Storyboard.model_validate(self._job.request["storyboard"])

    def _go(self) -> str:
        """Which go of the user's this is: a new one begins when the job is retried."""
        ended = self._run.artefact("ended")
        return "" if ended is None else str(ended.data["run"])

    def _fail(self, error: KinoloomError) -> None:
        """Write down that the job failed, or that it waits for its user: as the shots say."""
        told = error.as_dict()
        try:
            self._run.keep("ended", None, {"run": self._job.run})
        except Superseded:
            return
        held = _waits(self._failed)
        changes: JobChanges = {"error": told}
        if held:
            changes |= {"run_to": self._job.run + 1, "worker_to": None}
        moved = self._store.jobs.move(
            self._job.id,
            "held" if held else "failed",
            expect=["running"],
            run=self._job.run,
            worker=self._bench.worker,
            detail={"error": told},
            **changes,
        )
        if moved is not None and held:
            self._store.events.add(self._job.id, "error", {"error": told})
            self._bench.on_event(self._job.id, {"type": "error", "error": told})


def _waits(failed: Sequence[ShotRun]) -> bool:
    """Whether the film waits for its user: one of its shots says so, or its order is uncertain."""
    return any(
        shot.way.shot.on_failure != "fail" or (shot.failed is not None and shot.failed.waits)
        for shot in failed
    )


def _unfinished(job: JobRecord, failed: Sequence[ShotRun], done: int, total: int) -> KinoloomError:
    """Why a film was not finished; of the kind of the first shot's error."""
    names = ", ".join(shot.way.shot.id for shot in failed[:5]) + (", ..." if failed[5:] else "")
    first = failed[0].failed
    assert first is not None  # it failed
    on = "release" if _waits(failed) else "retry"
    again = (
        f"Try again what is missing, now or after an edit: kinoloom film render, or kinoloom jobs"
        f" {on} {job.id}; {done} of {total} shots are finished."
    )
    another = f"Or make it differently: kinoloom film retake FILM {failed[0].way.shot.id}"
    waits = "Its service may have the order: kinoloom jobs resolve tells what became of it."
    return error_of(
        first.error.kind,
        f"The film is not finished: {names} could not be made.",
        cause=f"{failed[0].way.shot.id}: {first.error.message} {first.error.cause}".strip(),
        hints=[*([waits] if first.waits else []), *first.error.hints, again, another],
        details={
            "shots": {
                shot.way.shot.id: shot.failed.error.as_dict()
                for shot in failed
                if shot.failed is not None
            },
            "done": done,
            "total": total,
        },
    )
