"""How does a job of a clip go on from wherever it is?

    plan -> cache -> takes, each scored -> encode -> publish

What a step leaves behind is a file in the store and a row that names it; a later run of the same
job, by whichever worker, finds the row and goes on. Heavy and hostile work is done by the worker's
child processes. A take is rendered there (`local_take`) or made by a service (`remote_take`); when
that fails, `recovery` may know another way.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinoloom.errors import Cancelled, KinoloomError, TimedOut
from kinoloom.jobs.attempts import Attempts
from kinoloom.jobs.job_run import Bench, JobRun, Rendered, Superseded, Watch
from kinoloom.jobs.leftovers import tidy, work_folder
from kinoloom.jobs.local_take import render_here
from kinoloom.jobs.naming import output_path
from kinoloom.jobs.planning import machine_of
from kinoloom.jobs.record import clip_record, measurement_of, settings_of, take_settings
from kinoloom.jobs.recovery import Recovery
from kinoloom.jobs.remote_take import RemoteTake
from kinoloom.jobs.replanning import planned_again
from kinoloom.jobs.reuse import find_again
from kinoloom.jobs.room import check_place
from kinoloom.media.output import disk_errors, whole_file
from kinoloom.planner.plan import Plan
from kinoloom.store.clips import ClipRecord, boundary_name
from kinoloom.store.job_record import JobChanges, JobRecord
from kinoloom.store.statistics import REUSED


class ClipJob:
    """One run of a job on this worker."""

    def __init__(self, job: JobRecord, bench: Bench, watch: Watch) -> None:
        self._job = job
        self._bench = bench
        self._store = bench.store
        self._watch = watch
        self._run = JobRun(job, bench, watch)
        self._attempts = Attempts(self._run)
        self._remarks: list[str] = []
        self._started = time.perf_counter()

    def carry_out(self) -> None:
        """Do what is left of the job, and write how it ended."""
        try:
            with work_folder(self._store, self._job) as folder:
                self._clip(folder)
        except Superseded:
            return
        except KinoloomError as error:
            self._end(error)
        else:
            tidy(self._store, self._job.id)

    def _clip(self, folder: Path) -> None:
        plan = self._plan()
        if self._reuse(plan):
            return
        place = self._place(plan)
        plan, takes = self._made(plan, folder)
        best = max(takes, key=lambda take: float(take.scores["overall"]))
        boundaries = self._boundaries(best, folder)
        encoded = self._encode(plan, best, place, folder)
        kept = [take.kept for take in takes if take.kept is not None]
        self._publish(plan, best, takes, kept, encoded, place, boundaries)

    # --- the steps --------------------------------------------------------------------------

    def _plan(self) -> Plan:
        """The job's plan; made again where this machine is not the one it was made for."""
        plan = self._attempts.plan or Plan.model_validate(self._job.plan)
        if not plan.remote and plan.device != machine_of(self._bench.settings).device:
            plan = planned_again(plan, self._bench.settings, self._store)
        if plan.key != self._job.plan_key or plan.device != (self._job.plan or {}).get("device"):
            self._run.keep_plan(plan)
        return plan

    def _reuse(self, plan: Plan) -> bool:
        """Whether the very same clip was there, and is the answer now."""
        found = find_again(plan, self._store, keep=self._job.origin == "api")
        if found is None:
            return False
        finished = self._store.jobs.finish(
            self._job.id,
            run=self._job.run,
            worker=self._bench.worker,
            clip=found,
            counters={REUSED: 1},
            reused=True,
            detail={"clip": found.id, "reused": True},
        )
        if finished is None:
            raise Superseded
        return True

    def _place(self, plan: Plan) -> Path | None:
        """Where the user wants the file; None for one that only the store keeps.

        Chosen once: a later run writes to the same place.
        """
        if self._job.origin == "api":
            return None
        known = self._run.artefact("place")
        if known is not None:
            return Path(str(known.data["path"]))
        outputs = Path(str(self._job.request.get("outputs") or self._bench.settings.outputs))
        path = output_path(plan, outputs).absolute()
        check_place(plan, path)
        self._run.keep("place", None, {"path": str(path)})
        return path

    def _made(self, plan: Plan, folder: Path) -> tuple[Plan, list[_Take]]:
        """The candidates, by the job's plan or by one that took its place."""
        while True:
            takes, error = self._takes(plan, folder)
            if error is None:
                return plan, takes
            if not takes:
                plan = Recovery(self._run, self._attempts).after(plan, error)
                continue
            # What a service made is paid, and better than nothing.
            if not plan.remote or self._watch.over() or self._has_order():
                raise error
            remark = f"{len(takes)} of {plan.candidates} takes were made: {error.message}"
            self._remarks.append(remark)
            self._run.telling.log(remark)
            return plan, takes

    def _takes(self, plan: Plan, folder: Path) -> tuple[list[_Take], KinoloomError | None]:
        """The candidates up to the first one that failed, and how that did."""
        takes: list[_Take] = []
        for number in range(plan.candidates):
            try:
                take = self._take(plan, number, folder)
            except KinoloomError as error:
                return takes, error
            takes.append(take)
        return takes, None

    def _take(self, plan: Plan, number: int, folder: Path) -> _Take:
        """Make and score one candidate, and of several keep each one's video."""
        take = plan.with_seed(plan.seed + number) if plan.candidates > 1 else plan
        if plan.remote:
            calls = self._attempts.calls
            rendered = RemoteTake(self._run, plan, number, folder, calls).make()
        else:
            rendered = render_here(self._run, plan, number, folder)
        scored = self._scored(take, number, rendered)
        kept = None
        if plan.candidates > 1:
            kept = self._kept_take(take, number, rendered, folder)
        return _Take(take, rendered, scored, kept)

    def _has_order(self) -> bool:
        """Whether a service has, or may have, an order of this job."""
        calls = self._store.remote_calls.of_job(self._job.id)
        return any(call.state in ("sent", "accepted", "uncertain") for call in calls)

    def _scored(self, take: Plan, number: int, rendered: Rendered) -> Mapping[str, Any]:
        name = f"quality:{number}"
        if (known := self._run.artefact(name)) is None:
            scores: dict[str, Any] = self._see("score", take, rendered)["scores"]
            self._run.keep(name, None, scores)
            return scores
        return known.data

    def _kept_take(
        self, take: Plan, number: int, rendered: Rendered, folder: Path
    ) -> dict[str, Any]:
        name = f"take:{number}"
        known = self._run.artefact(name)
        if known is None:
            file = folder / f"take-{number}.mp4"
            self._write_video(take, rendered, file, take_settings(take), "mp4")
            digest = self._run.keep_file(name, file, "take", {}, link=True)
        else:
            digest = str(known.digest)
        return {"seed": take.seed, "asset": digest}

    def _encode(self, plan: Plan, best: _Take, place: Path | None, folder: Path) -> _Encoded:
        """The finished file beside its place, or in the store; and the picture for it."""
        known = self._run.artefact("encode")
        withdrawn = known is not None and known.digest is None and not (place and place.is_dir())
        if known is None or withdrawn:
            versions = best.rendered.facts.all_versions
            settings = settings_of(self._job.id, best.plan, best.scores, versions)
            picture = self._poster(best, folder)
            kind = plan.request.format
            if place is not None and kind == "png":  # a folder, which is no asset
                self._write_video(best.plan, best.rendered, place, settings, kind)
                self._run.keep("encode", None, {"poster": picture})
            else:
                file = folder / f"clip.{kind}"
                self._write_video(best.plan, best.rendered, file, settings, kind)
                self._run.keep_file("encode", file, "clip", {"poster": picture}, link=True)
            known = self._run.artefact("encode")
            assert known is not None  # kept just now
        return _Encoded(known.digest, str(known.data["poster"]))

    def _boundaries(self, best: _Take, folder: Path) -> dict[str, str]:
        """The frames that a film goes on from, if the clip is a part of one that does."""
        shown = self._job.request.get("shown")
        if shown is None:
            return {}
        count = int(self._job.request.get("kept") or 1)
        name = boundary_name(shown, count)
        if (known := self._run.artefact("boundary")) is None:
            target = folder / "boundary"
            arguments = {"target": str(target), "shown": shown, "count": count}
            self._see("boundary", best.plan, best.rendered, **arguments)
            return {name: self._run.keep_file("boundary", target, "frame", {})}
        return {name: str(known.digest)}

    def _poster(self, best: _Take, folder: Path) -> str:
        """The digest of the picture that stands for the clip."""
        if (known := self._run.artefact("poster")) is not None:
            return str(known.digest)
        target = folder / "poster.png"
        self._see("poster", best.plan, best.rendered, target=str(target))
        return self._run.keep_file("poster", target, "poster", {})

    def _publish(
        self,
        plan: Plan,
        best: _Take,
        takes: list[_Take],
        kept: list[dict[str, Any]],
        encoded: _Encoded,
        place: Path | None,
        boundaries: Mapping[str, str],
    ) -> None:
        """Put the file where it belongs and write the clip's record, unless the run is over."""
        if self._watch.over():
            if encoded.digest is None:  # the folder is where it belongs by now
                self._withdraw(place)
            self._run.stop()
        if place is not None and encoded.digest is not None:
            with whole_file(place, mark=self._job.id) as part, disk_errors(place):
                shutil.copyfile(self._store.assets.path(encoded.digest), part)
        record = self._record(plan, best, takes, kept, encoded, place, boundaries)
        finished = self._store.jobs.finish(
            self._job.id,
            run=self._job.run,
            worker=self._bench.worker,
            clip=record,
            measurements=[
                measurement_of(take.plan, take.rendered.facts)
                for take in takes
                if take.rendered.facts.video is None  # a service's machine is not ours
            ],
            counters=_summed(take.rendered.facts.counters for take in takes),
            detail={"clip": record.id},
        )
        if finished is None:
            self._withdraw(place)
            raise Superseded

    def _withdraw(self, place: Path | None) -> None:
        """Remove what was written for a job that is cancelled; another run of it may need it."""
        now = self._store.jobs.states([self._job.id]).get(self._job.id)
        if place is None or now != ("cancelling", self._job.run):
            return
        if place.is_dir():
            shutil.rmtree(place, ignore_errors=True)
        else:
            place.unlink(missing_ok=True)

    def _record(
        self,
        plan: Plan,
        best: _Take,
        takes: list[_Take],
        kept: list[dict[str, Any]],
        encoded: _Encoded,
        place: Path | None,
        boundaries: Mapping[str, str],
    ) -> ClipRecord:
        facts = best.rendered.facts
        paid = self._store.jobs.get(self._job.id)
        charged = None
        if paid is not None and paid.cost is not None and paid.currency is not None:
            charged = paid.cost, paid.currency
        scores = {take.plan.seed: take.scores for take in takes}
        return clip_record(
            self._job.id,
            place if place is not None else Path(f"{self._job.id}.{plan.request.format}"),
            best.plan,
            facts,
            best.scores,
            total=time.perf_counter() - self._started,
            inputs={n: m.digest for n, m in plan.inputs.files.items() if not m.path.is_dir()},
            poster=encoded.poster,
            takes=[entry | {"scores": dict(scores[entry["seed"]])} for entry in kept],
            digest=encoded.digest,
            asset=encoded.digest if place is None else None,
            owner=self._job.owner,
            job_id=self._job.id,
            remarks=[*self._attempts.remarks(), *self._remarks],
            attempts=self._attempts.all(),
            charged=charged,
            boundaries=boundaries,
        )

    # --- what several steps need -------------------------------------------------------------

    def _write_video(
        self,
        plan: Plan,
        rendered: Rendered,
        target: Path,
        settings: Mapping[str, Any],
        kind: str,
    ) -> None:
        self._see(
            "encode",
            plan,
            rendered,
            plan=plan.model_dump(mode="json"),
            audio=str(rendered.audio) if rendered.audio is not None else None,
            target=str(target),
            settings=dict(settings),
            format=kind,
        )

    def _see(self, command: str, plan: Plan, rendered: Rendered, /, **more: Any) -> dict[str, Any]:
        """Have a child look at what was made: the one that renders, or that for strange files."""
        video = rendered.facts.video
        arguments = {
            "frames": str(rendered.file),
            "fps": plan.fps if video is None else video.fps,
            "streamed": rendered.streamed,
        }
        return self._run.call(command, arguments | more, light=video is not None)

    def _end(self, error: KinoloomError) -> None:
        """Write down that the job failed, or that it waits for the user.

        It waits while a service may have its order: then nothing is lost, and nothing paid twice.
        """
        told = error.as_dict()
        waits = self._has_order() and not isinstance(error, TimedOut | Cancelled)
        changes: JobChanges = {"error": told}
        if waits:
            changes |= {"run_to": self._job.run + 1, "worker_to": None}
        moved = self._store.jobs.move(
            self._job.id,
            "held" if waits else "failed",
            expect=["running"],
            run=self._job.run,
            worker=self._bench.worker,
            detail={"error": told},
            **changes,
        )
        if moved is not None and waits:
            self._store.events.add(self._job.id, "error", {"error": told})
            self._bench.on_event(self._job.id, {"type": "error", "error": told})


@dataclass(frozen=True)
class _Take:
    """A candidate: its plan with its own seed, what came out, and its video if it is kept."""

    plan: Plan
    rendered: Rendered
    scores: Mapping[str, Any]
    kept: dict[str, Any] | None


@dataclass(frozen=True)
class _Encoded:
    """The finished file's and its poster's digests; a folder of pictures has none."""

    digest: str | None
    poster: str


def _summed(counters: Iterator[dict[str, int]]) -> dict[str, int]:
    total: dict[str, int] = {}
    for counted in counters:
        for name, number in counted.items():
            total[name] = total.get(name, 0) + number
    return total
