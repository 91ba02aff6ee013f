"""What may be done with jobs: hand one in, look at it, stop it, hold it, go on with it?

The command line, the HTTP API and the OpenAI routes all go through here. A job is one row, written
in one transaction; whichever worker serves its queue finds it there. Nothing here renders, and
media from outside are opened in a child process only.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast, get_args

from kinoloom.config import Settings
from kinoloom.errors import (
    BudgetExceeded,
    Conflict,
    InvalidRequest,
    KinoloomError,
    NotFound,
    Problem,
    WorkerUnavailable,
    nearest_names,
)
from kinoloom.jobs.dead import live_workers
from kinoloom.jobs.planning import machine_of, plan_request
from kinoloom.jobs.queues import FILM, OWN, queue_for
from kinoloom.jobs.remote_end import end_left_orders, settle_doubt
from kinoloom.jobs.render_process import RenderProcess
from kinoloom.jobs.reuse import find_again
from kinoloom.jobs.spending import film_limits, reserve_job
from kinoloom.jobs.statistics import statistics
from kinoloom.planner.consent import check_consent
from kinoloom.planner.inputs import Inputs
from kinoloom.planner.outlook import Machine
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest
from kinoloom.store.clips import ClipRecord
from kinoloom.store.events import JobEvent
from kinoloom.store.ids import new_id
from kinoloom.store.job_record import ACTIVE, FINISHED, JobRecord, JobState
from kinoloom.store.keys import ApiKey
from kinoloom.store.remote_calls import Limits, RemoteCall
from kinoloom.store.store import Store
from kinoloom.store.workers import WorkerRecord

PRIORITY = 100
"""Of a job that says nothing; lower ones go first."""
_ENDED: tuple[JobState, ...] = ("failed", "cancelled", "dead")
MEDIA_SECONDS = 120.0
"""How long reading one request's media, or making one preview, may take."""


@dataclass(frozen=True)
class FilmPart:
    """What a job is in a film: the film, its job, the shot, and its frames that the film shows.

    With `shown` the last `kept` of these are kept without loss.
    """

    film: str
    parent: str
    shot: str
    shown: int | None = None
    kept: int = 1

    def as_dict(self) -> dict[str, str | int | None]:
        """What the job itself is told, as JSON-ready data."""
        return {"shot": self.shot, "shown": self.shown, "kept": self.kept}


class JobService:
    """Jobs of one store. Threads may share it; `close` ends its child process."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._settings = settings
        self._store = store
        self._media = RenderProcess(settings, light=True)
        self._closing = threading.Lock()

    def plan(self, request: VideoRequest) -> Plan:
        """What would run for a request, on the machine that would run it.

        Raises KinoloomError.
        """
        return self._plan(request, self._workers())

    def submit(
        self,
        request: VideoRequest,
        *,
        origin: str = "api",
        owner: ApiKey | None = None,
        priority: int = PRIORITY,
        idempotency_key: str | None = None,
        timeout: float | None = None,
        webhook: str | None = None,
        hold: bool = False,
        plan: Plan | None = None,
        queue: str | None = None,
        request_key: str | None = None,
        remixed_from: str | None = None,
        outputs: Path | None = None,
        part: FilmPart | None = None,
    ) -> JobRecord:
        """A new job that makes the request's clip, or the one with that idempotency key.

        `plan` spares planning it again; `remixed_from` is the job of the clip it is made after.
        `timeout` is in seconds from now. With `queue` and `request_key` a command finds its own
        jobs again; `outputs` is its folder for files without a name. A job of the API keeps its
        clip in the store, so `png`, a folder of pictures, is refused there. `part` says what it is
        in a film.

        What a service will charge is set aside in every budget before the job may run. Raises
        KinoloomError.
        """
        if origin == "api" and request.format == "png":
            allowed = "mp4, webm or gif: one file, which can be sent"
            raise InvalidRequest([Problem("format", "png", allowed, "mp4")])
        if webhook is not None and self._settings.webhook_secret is None:
            allowed = "an address only where the settings have a webhook_secret to sign with"
            raise InvalidRequest([Problem("webhook", "***", allowed)])
        if owner is not None and part is None:  # a film's parts are paid out of its reservation
            self._check_budget(owner)
        workers = self._workers()
        plan = plan or self._plan(request, workers)
        pays = plan.remote and find_again(plan, self._store, keep=origin == "api") is None
        if pays:
            check_consent(plan, self._settings)
        now = datetime.now(UTC)
        record = JobRecord(
            id=new_id(),
            state="held" if hold or pays else "queued",
            queue=queue or queue_for(plan, workers),
            priority=priority,
            origin=origin,
            owner=owner.id if owner is not None else None,
            request=request.model_dump(mode="json")
            | ({"outputs": str(outputs)} if outputs is not None else {})
            | (part.as_dict() if part is not None else {}),
            plan=plan.model_dump(mode="json"),
            plan_key=plan.key,
            request_key=request_key,
            remixed_from=remixed_from,
            task=plan.task,
            model=plan.model,
            backend=plan.backend,
            prompt=plan.prompt,
            created_at=now,
            updated_at=now,
            deadline_at=now + timedelta(seconds=timeout) if timeout is not None else None,
            idempotency_key=idempotency_key,
            webhook=webhook,
            parent=part.parent if part is not None else None,
            film=part.film if part is not None else None,
        )
        # Before the row, so that whoever takes the job finds all that it needs.
        given = [media.path for media in plan.inputs.files.values() if media.path.is_file()]
        inputs = [self._store.assets.put_file(path, "input").digest for path in given]
        kept, new = self._store.jobs.add(record, inputs=inputs)
        if not new or not pays:
            return kept
        try:
            reserve_job(self._store, self._settings, kept, plan)
        except KinoloomError:
            self._store.jobs.move(kept.id, "cancelled", expect=["held"], run=kept.run)
            self._store.jobs.delete(kept.id)
            raise
        if hold:
            return kept
        return self._store.jobs.move(kept.id, "queued", expect=["held"], run=kept.run) or kept

    def get(self, job_id: str, *, owner: str | None = None) -> JobRecord:
        """The job of that id, of that owner if one is named. Raises NotFound."""
        found = self._store.jobs.get(job_id)
        if found is None or (owner is not None and found.owner != owner):
            raise NotFound(
                f"There is no job {job_id[:100]!r}.",
                hints=["`kinoloom jobs list`, or GET /api/jobs, shows the jobs there are."],
            )
        return found

    def list(
        self,
        *,
        limit: int = 50,
        before: str | None = None,
        states: Iterable[JobState] = (),
        queue: str | None = None,
        model: str | None = None,
        backend: str | None = None,
        task: str | None = None,
        owner: str | None = None,
        origin: str | None = None,
        search: str = "",
    ) -> list[JobRecord]:
        """The newest jobs that match, newest first; `before` is the id to go on from."""
        return self._store.jobs.list(
            limit=limit,
            before=before,
            states=tuple(states),
            queue=queue,
            model=model,
            backend=backend,
            task=task,
            owner=owner,
            origin=origin,
            search=search,
        )

    def cancel(self, job_id: str, *, owner: str | None = None) -> JobRecord:
        """Stop a job: at once when it waits, at its next step when it runs.

        Raises NotFound, and Conflict when it is finished.
        """
        job = self.get(job_id, owner=owner)
        waited = self._store.jobs.move(job.id, "cancelled", expect=("queued", "held"), run=job.run)
        if waited is not None and job.kind == FILM:
            for child in self._store.films.jobs_of(job.id, states=ACTIVE):
                with suppress(Conflict):  # it has just ended
                    self.cancel(child.id)
        if waited is not None:  # what a service has of it nobody looks at any more
            end_left_orders(self._store, self._settings, job_id=job.id)
            return self.get(job.id)
        return self._store.jobs.move(
            job.id, "cancelling", expect=("running", "cancelling")
        ) or self._refuse(job.id, "cancelled", "only a job that is not finished can be cancelled")

    def hold(self, job_id: str, *, owner: str | None = None) -> JobRecord:
        """Let a job wait until it is released; one that runs stops at its next step.

        What it has finished is kept. Raises NotFound and Conflict.
        """
        job = self.get(job_id, owner=owner)
        return self._store.jobs.move(
            # The run is over: what its worker still does is not taken any more.
            job.id,
            "held",
            expect=("queued", "running"),
            run=job.run,
            run_to=job.run + 1,
            worker_to=None,
        ) or self._refuse(job.id, "held", "only a job that waits or runs can be held")

    def release(self, job_id: str, *, owner: str | None = None) -> JobRecord:
        """Let a job that is held go on. Raises NotFound and Conflict.

        Of one that waits because nobody knows whether a service has its order, that is asked again.
        """
        job = self.get(job_id, owner=owner)
        return self._again(job, ("held",)) or self._refuse(
            job.id, "released", "only a job that is held can be released"
        )

    def retry(self, job_id: str, *, owner: str | None = None) -> JobRecord:
        """Run a job again that failed or was cancelled; what it had finished is not done again.

        What a service has to make anew is paid anew, and set aside before the job runs; of a film
        what was left of its reservation. Raises NotFound, Conflict and BudgetExceeded.
        """
        job = self.get(job_id, owner=owner)
        if job.kind == FILM:
            limits = film_limits(self._store, self._settings, job)
            return self._again(job, _ENDED, limits=limits) or self._not_retried(job.id)
        if not (job.plan or {}).get("remote"):
            return self._again(job, _ENDED) or self._not_retried(job.id)
        # Held until all is set aside: for a job that has ended nothing is.
        held = self._again(job, _ENDED, to="held")
        if held is None:
            return self._not_retried(job.id)
        gone = (job.error or {}).get("kind") == NotFound.kind
        try:
            plan = Plan.model_validate(job.plan)
            reserve_job(self._store, self._settings, held, plan, again=gone)
        except KinoloomError as error:
            self._store.jobs.move(
                job.id, job.state, expect=["held"], run=held.run, error=job.error or error.as_dict()
            )
            raise
        return self._store.jobs.move(
            job.id, "queued", expect=["held"], run=held.run
        ) or self._not_retried(job.id)

    def resolve(
        self,
        job_id: str,
        *,
        remote_id: str | None = None,
        not_accepted: bool = False,
        owner: str | None = None,
    ) -> JobRecord:
        """Say what became of an order of which nobody knows whether the service has it.

        `remote_id` is what the service calls it; `not_accepted` that it has no such order. A job
        that waits for that goes on. Raises NotFound, InvalidRequest unless just one is said, and
        Conflict when the job has no such order, or the id is that of another job's.
        """
        job = self.get(job_id, owner=owner)
        if (remote_id is None) != not_accepted:
            allowed = "the id that the service gave the order, or not_accepted, and not both"
            raise InvalidRequest([Problem("remote_id", remote_id, allowed)])
        if remote_id is not None and not (remote_id.isprintable() and 0 < len(remote_id) <= 500):
            raise InvalidRequest([Problem("remote_id", remote_id, "1 to 500 letters and digits")])
        settle_doubt(self._store, job, remote_id)
        if job.state in FINISHED:
            end_left_orders(self._store, self._settings, job_id=job.id)
            return self.get(job.id)
        if job.queue.startswith(OWN) and not self._workers():
            # Its command, run again, goes on with it; at no worker it would wait for ever.
            self._store.jobs.update(job.id, run=job.run, error=None)
            return self.get(job.id)
        return self._again(job, ("held",)) or self.get(job.id)

    def calls(self, job_id: str, *, owner: str | None = None) -> Sequence[RemoteCall]:
        """The calls to services that a job made, oldest first. Raises NotFound."""
        return self._store.remote_calls.of_job(self.get(job_id, owner=owner).id)

    def queues(self) -> Sequence[dict[str, Any]]:
        """Each queue by name: its jobs by what they do, and the workers that serve it."""
        workers = self._workers()
        counts: dict[str, Counter[str]] = defaultdict(Counter)
        for queue, states in self._store.jobs.counts().items():
            # A command's own queue is gone with it.
            counts["cli" if queue.startswith(OWN) else queue].update(states)
        served = {queue.name for worker in workers for queue in worker.queues}
        answer = []
        for name in sorted({*counts, *served}):
            states = counts[name]
            places = [q for worker in workers for q in worker.queues if q.name == name]
            answer.append(
                {
                    "name": name,
                    "waiting": states.get("queued", 0),
                    "held": states.get("held", 0),
                    "active": states.get("running", 0) + states.get("cancelling", 0),
                    "completed": states.get("succeeded", 0),
                    "failed": states.get("failed", 0) + states.get("dead", 0),
                    "cancelled": states.get("cancelled", 0),
                    "workers": len(places),
                    "devices": sorted({p.device for p in places if p.device is not None}),
                    "memory": max((p.memory_bytes or 0 for p in places), default=0) or None,
                }
            )
        return answer

    def events(self, job_id: str, *, after: int = 0, limit: int = 500) -> Sequence[JobEvent]:
        """What was told of a job after the event of a number, oldest first. Raises NotFound."""
        return self._store.events.after(after, limit=limit, job_id=self.get(job_id).id)

    def machine(self) -> Machine:
        """Where jobs would run: at the largest worker, else here."""
        workers = self._workers()
        return Machine(**workers[0].machine) if workers else machine_of(self._settings)

    def statistics(self) -> dict[str, Any]:
        """What was made by now; see `statistics`."""
        return statistics(self._store)

    def preview_gif(self, clip: ClipRecord) -> str:
        """The digest of a small moving preview of a clip, made once. Raises InvalidMedia."""
        return self._derived(clip, "gif")

    def spritesheet(self, clip: ClipRecord) -> str:
        """The digest of a sheet of a clip's frames, made once. Raises InvalidMedia."""
        return self._derived(clip, "spritesheet")

    def require_worker(self) -> None:
        """Raises WorkerUnavailable when no worker is there that takes jobs of others."""
        if not self._workers():
            raise WorkerUnavailable(
                "No worker is running.",
                hints=["`kinoloom serve` starts one; `kinoloom worker` adds others."],
            )

    def close(self) -> None:
        """End the child process."""
        with self._closing:
            self._media.close()

    def _plan(self, request: VideoRequest, workers: Sequence[WorkerRecord]) -> Plan:
        inputs = None
        if _has_media(request):
            told = {"request": request.model_dump(mode="json")}
            answer = self._media.call("inputs", told, timeout=MEDIA_SECONDS)
            inputs = Inputs.model_validate(answer["inputs"])
        # A job would run at the largest worker, else here.
        machine = Machine(**workers[0].machine) if workers else machine_of(self._settings)
        return plan_request(request, self._settings, self._store, machine=machine, inputs=inputs)

    def _check_budget(self, key: ApiKey) -> None:
        """Raises BudgetExceeded when a key's jobs have cost all that it may spend."""
        if key.budget is None:
            return
        currency = self._settings.budgets.currency
        spent = self._store.remote_calls.spent(owner=key.id, currency=currency)
        if spent and spent >= key.budget:
            raise BudgetExceeded(
                "The budget of this API key is used up.",
                cause=f"Its jobs have cost {spent:.2f} of {key.budget:.2f} {currency}.",
                hints=["Use a key with a larger budget: kinoloom keys create NAME --budget ..."],
            )

    def _not_retried(self, job_id: str) -> JobRecord:
        return self._refuse(
            job_id, "retried", "only a job that failed or was cancelled can run again"
        )

    def _again(
        self,
        job: JobRecord,
        states: tuple[JobState, ...],
        *,
        to: JobState = "queued",
        limits: Limits | None = None,
    ) -> JobRecord | None:
        queue = job.queue
        if queue.startswith(OWN):  # its own process is gone; the workers' queue takes it
            film = job.kind == FILM
            queue = FILM if film else queue_for(Plan.model_validate(job.plan), self._workers())
        return self._store.jobs.move(
            job.id,
            to,
            expect=states,
            run=job.run,
            limits=limits,
            run_to=job.run + 1,
            worker_to=None,
            queue=queue,
            error=None,
            deaths=0,
            deadline_at=None if job.state in FINISHED else job.deadline_at,
            started_at=None,
            finished_at=None,
        )

    def _refuse(self, job_id: str, wish: str, rule: str) -> JobRecord:
        state = self.get(job_id).state
        raise Conflict(f"The job {job_id} cannot be {wish}: it is {state}.", cause=f"{rule}.")

    def _derived(self, clip: ClipRecord, kind: str) -> str:
        if (known := self._store.clips.derived(clip.id, kind)) is not None:
            return known
        video = self._store.assets.path(clip.asset) if clip.asset is not None else clip.path
        suffix = "gif" if kind == "gif" else "jpg"
        with tempfile.TemporaryDirectory(prefix="kinoloom-") as folder:
            target = Path(folder) / f"{kind}.{suffix}"
            arguments = {"video": str(video), "target": str(target)}
            self._media.call(kind, arguments, timeout=MEDIA_SECONDS)
            digest = self._store.assets.put_file(target, kind).digest
        self._store.clips.keep_derived(clip.id, kind, digest)
        return digest

    def _workers(self) -> Sequence[WorkerRecord]:
        """The workers that take jobs of others, the ones with the most memory first."""
        live = [w for w in live_workers(self._store, self._settings) if w.queues]
        return sorted(live, key=lambda w: -max((q.memory_bytes or 0) for q in w.queues))


def checked_states(names: Iterable[str]) -> tuple[JobState, ...]:
    """The states of those names. Raises InvalidRequest for what is none."""
    known = get_args(JobState)
    wrong = [name for name in names if name not in known]
    if wrong:
        near = nearest_names(wrong[0], known, count=1)
        problem = Problem("state", wrong[0], "one of " + ", ".join(known), next(iter(near), None))
        raise InvalidRequest([problem])
    return cast("tuple[JobState, ...]", tuple(names))


def request_key(request: VideoRequest, outputs: Path) -> str:
    """What says that a command is the same one again: the request, and where it would write."""
    content = request.model_dump(mode="json") | {"outputs": str(outputs.absolute())}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _has_media(request: VideoRequest) -> bool:
    given = request.image, request.last_image, request.video, request.mask
    return any(path is not None for path in given) or bool(request.references or request.keyframes)
