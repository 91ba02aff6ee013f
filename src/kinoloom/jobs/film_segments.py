"""How does a film get the clip of one segment, whatever has died meanwhile?

A segment is a clip job like any other, a child of the film's job. Whether it is made already is
asked of what the film's take has, then of all clips by the plan's key, and only then a job is
handed in; its idempotency key finds it again after a crash. Nothing here waits: the film asks again
and again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from kinoloom.errors import KinoloomError, NotFound, error_of
from kinoloom.jobs.dead import hand_back, live_workers
from kinoloom.jobs.job_run import JobRun
from kinoloom.jobs.messages import error_from
from kinoloom.jobs.planning import machine_of, plan_request
from kinoloom.jobs.queues import API, OWN, queue_for
from kinoloom.jobs.reuse import find_again
from kinoloom.jobs.service import FilmPart, JobService
from kinoloom.planner.inputs import Inputs
from kinoloom.planner.outlook import Machine
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest
from kinoloom.store.clips import ClipRecord
from kinoloom.store.job_record import ACTIVE, JobRecord

_LOCAL_AT_ONCE = 2
_REMOTE_AT_ONCE = 16
"""Children that a command's own process runs at once: one renders, one is scored and written."""


class ChildFailed(Exception):
    """A segment cannot be made; `error` says why, and `waits` whether its user must decide."""

    def __init__(self, error: KinoloomError, *, waits: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        self.waits = waits


@dataclass(frozen=True)
class Ending:
    """What must be there of a clip that a film goes on from.

    Of its first `shown` frames, which are those that the film shows, the last `needed` ones, and
    the last `kept` when it has to be made: no fewer, so that an edit of what follows finds them.
    """

    shown: int
    needed: int
    kept: int


@dataclass(frozen=True)
class Segment:
    """A finished segment: the address of what made it, and its clip."""

    key: str
    clip: ClipRecord


@dataclass
class _Child:
    """What is known of one segment that is asked for."""

    plan: Plan
    key: str
    request: VideoRequest
    job: str | None = None
    done: Segment | None = None
    error: ChildFailed | None = None


class Children:
    """The clip jobs of one film, for one run of its own job."""

    def __init__(self, run: JobRun, service: JobService, film: str, *, again: str) -> None:
        """`again` names this go: what failed in an earlier one is tried once more."""
        self._run = run
        self._store = run.store
        self._service = service
        self._film = film
        self._again = again
        self._asked: dict[tuple[str, str], _Child] = {}
        self._jobs: dict[str, JobRecord] = {}
        self._own = run.job.queue.startswith(OWN)
        self._machine: Machine | None = None

    def look(self) -> None:
        """Read how far the jobs are; once before each round of questions."""
        self._machine = None
        found = self._store.films.jobs_of(self._run.job.id)
        self._jobs = {job.id: job for job in found}

    @property
    def jobs(self) -> Mapping[str, JobRecord]:
        """The children by their ids, as they were at the last look."""
        return self._jobs

    def segment(
        self,
        name: str,
        request: VideoRequest,
        *,
        ending: Ending | None = None,
        known: Mapping[str, Any] | None = None,
    ) -> Segment | None:
        """The finished segment of a request; None while it is made. Raises ChildFailed.

        `name` tells equal requests of a film apart. `ending` must have been kept of the clip,
        without loss. `known` is what the film's take knows of the segment.
        """
        place = name, request.model_dump_json()
        child = self._asked.get(place)
        if child is None:
            plan = self._plan(request)
            key = f"{plan.key}*{plan.candidates}" if plan.candidates > 1 else plan.key
            child = self._asked[place] = _Child(plan, key, request)
        if child.error is not None:
            raise child.error
        if child.done is None:
            self._go_on(child, name, ending, known)
        return child.done

    def pace(self) -> float | None:
        """The seconds that a clip of the film takes, as their plans say; None where none does."""
        known = [child.plan.estimate.seconds for child in self._asked.values()]
        told = [seconds for seconds in known if seconds is not None]
        return sum(told) / len(told) if told else None

    def cancel(self) -> None:
        """Stop what is still at work."""
        for job in self._store.films.jobs_of(self._run.job.id, states=ACTIVE):
            try:
                self._service.cancel(job.id)
            except KinoloomError:  # it has just ended
                continue

    # --- one child --------------------------------------------------------------------------

    def _go_on(
        self, child: _Child, name: str, ending: Ending | None, known: Mapping[str, Any] | None
    ) -> None:
        if child.job is None:
            clip = self._there(child, ending, known)
            if clip is not None:
                child.done = Segment(child.key, clip)
                return
            if self._room(child.plan):
                child.job = self._submitted(child, name, ending).id
            return
        job = self._jobs.get(child.job)
        if job is None:  # handed in since the last look
            return
        if self._own and job.state == "held" and job.error is None:
            self._begun(job)  # what it waited for was resolved, and no worker will take it up
            return
        try:
            child.done = self._done(child, job)
        except ChildFailed as error:
            child.error = error
            raise

    def _there(
        self, child: _Child, ending: Ending | None, known: Mapping[str, Any] | None
    ) -> ClipRecord | None:
        """The clip that was made before, if all that is needed of it is there."""
        if known is not None and known.get("key") == child.key:
            clip = self._store.clips.get(str(known.get("clip")))
            if clip is not None and clip.asset is not None and self._whole(clip, ending):
                return clip
        clip = find_again(child.plan, self._store, keep=True)
        return clip if clip is not None and self._whole(clip, ending) else None

    def _whole(self, clip: ClipRecord, ending: Ending | None) -> bool:
        """Whether a film can go on from a clip: a service's video is all there ever was of it."""
        if ending is None or ending.needed == 0 or clip.plan.get("remote"):
            return True
        return clip.boundary(ending.shown, ending.needed) is not None

    def _submitted(self, child: _Child, name: str, ending: Ending | None) -> JobRecord:
        """The segment's job, whichever run of the film's job handed it in."""
        part = FilmPart(self._film, self._run.job.id, name.partition("\n")[0])
        if ending is not None:
            part = replace(part, shown=ending.shown, kept=ending.kept)
        plan = child.plan
        if find_again(plan, self._store, keep=True) is not None:
            # It is there without the frames to go on from, so it is made once more.
            request = plan.request.model_copy(update={"cache": "bypass"})
            plan = plan.model_copy(update={"request": request})
        number = 0
        while True:
            number += 1
            asked = f"{name}\n{child.key}\n{part.shown}:{part.kept}\n{number}"
            digest = hashlib.sha256(asked.encode()).hexdigest()
            job = self._service.submit(
                child.request,
                owner=self._owner(),
                plan=plan,
                queue=self._run.bench.worker if self._own else None,
                idempotency_key=f"{self._run.job.id}:{digest}",
                priority=self._run.job.priority,
                part=part,
            )
            if job.state != "succeeded" or self._clip(job) is not None:
                break  # else its clip was removed
        return self._begun(job)

    def _begun(self, job: JobRecord) -> JobRecord:
        """A job that goes on from where it is, here if this is a command's own process."""
        job = self._taken_up(job)
        if self._own and job.state == "queued":
            self._run.bench.run_now(job)
        self._jobs[job.id] = job
        return job

    def _taken_up(self, job: JobRecord) -> JobRecord:
        """A job of an earlier run, going on where it stopped."""
        if job.state in ("running", "cancelling") and job.queue.startswith(OWN):
            there = {w.id for w in live_workers(self._store, self._run.settings)}
            if job.worker not in there:
                hand_back(self._store, job, died=True)
                job = self._service.get(job.id)
        if job.state in ("failed", "cancelled", "dead") and self._first_time(job):
            job = self._service.retry(job.id)
        if job.state not in ("held", "queued") or job.error is not None:
            return job
        mine = self._run.bench.worker if self._own else None
        lost = job.queue.startswith(OWN) and job.queue != mine
        if not lost and (job.state == "queued" or not self._own):
            return job
        workers = [w for w in live_workers(self._store, self._run.settings) if w.queues]
        queue = mine or queue_for(Plan.model_validate(job.plan), workers)
        moved = self._store.jobs.move(
            job.id,
            "queued",
            expect=("held", "queued"),
            run=job.run,
            run_to=job.run + 1,
            worker_to=None,
            queue=queue,
        )
        return moved or self._service.get(job.id)

    def _first_time(self, job: JobRecord) -> bool:
        """Whether a failed job was not tried again in this go of the film yet."""
        name = f"again:{job.id}"
        known = self._run.artefact(name)
        if known is not None and known.data.get("go") == self._again:
            return False
        if known is None and not self._again:
            return False
        self._run.keep(name, None, {"go": self._again})
        return True

    def _done(self, child: _Child, job: JobRecord) -> Segment | None:
        """The segment of a job that has succeeded; None while it works."""
        if job.state == "succeeded":
            clip = self._clip(job)
            if clip is None:
                child.job = None
                return None
            return Segment(child.key, clip)
        if job.state in ("failed", "cancelled", "dead"):
            error = error_from(job.error) if job.error else error_of("cancelled", "It was stopped.")
            raise ChildFailed(error)
        if job.state == "held" and job.error is not None:
            raise ChildFailed(error_from(job.error), waits=True)
        return None

    def _clip(self, job: JobRecord) -> ClipRecord | None:
        clip = self._store.clips.get(job.clip_id) if job.clip_id is not None else None
        return clip if clip is not None and clip.asset is not None else None

    def _room(self, plan: Plan) -> bool:
        """Whether one more may begin: workers have queues, a command's own process has not."""
        if not self._own:
            return True
        mine = [job for job in self._jobs.values() if job.queue == self._run.bench.worker]
        active = [job for job in mine if job.state in ("queued", "running")]
        remote = [bool((job.plan or {}).get("remote")) for job in active]
        if plan.remote:
            return sum(remote) < _REMOTE_AT_ONCE
        return len(remote) - sum(remote) < _LOCAL_AT_ONCE

    # --- planning ---------------------------------------------------------------------------

    def _plan(self, request: VideoRequest) -> Plan:
        inputs = None
        if request.image is not None or request.video is not None or request.references:
            told = {"request": request.model_dump(mode="json")}
            answer = self._run.call("inputs", told, light=True)
            inputs = Inputs.model_validate(answer["inputs"])
        return self.planned(request, inputs)

    def planned(self, request: VideoRequest, inputs: Inputs | None) -> Plan:
        """The plan of a request, where the film's clips are made. Raises KinoloomError."""
        if self._machine is None:
            self._machine = self._place()
        return plan_request(
            request, self._run.settings, self._store, machine=self._machine, inputs=inputs
        )

    def _place(self) -> Machine:
        if not self._own:
            live = [w for w in live_workers(self._store, self._run.settings) if w.queues]
            live = [w for w in live if any(q.name != API and q.device for q in w.queues)]
            if live:
                best = max(live, key=lambda w: max(q.memory_bytes or 0 for q in w.queues))
                return Machine(**best.machine)
        return machine_of(self._run.settings)

    def _owner(self) -> Any:
        """The key that asked for the film; its budget is looked at again for each clip."""
        owner = self._run.job.owner
        if owner is None:
            return None
        found = next((key for key in self._store.keys.list() if key.id == owner), None)
        if found is None:
            raise NotFound("The API key that asked for the film is gone.")
        return found
