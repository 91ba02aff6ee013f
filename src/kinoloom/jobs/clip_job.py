"""How does a job of a clip go on from wherever it is?

    plan -> cache -> render -> quality -> encode -> publish

What a step leaves behind is a file in the store and a row that names it; a later run of the same
job, by whichever worker, finds the row and goes on. Heavy and hostile work is done by the worker's
child process. Every write is conditional on the job's `run`: a worker that was thought dead and
comes back writes nothing.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

from kinoloom.config import Settings
from kinoloom.errors import Cancelled, KinoloomError, TimedOut, WorkerUnavailable
from kinoloom.jobs.leftovers import tidy, work_folder
from kinoloom.jobs.naming import output_path
from kinoloom.jobs.planning import load_catalog, machine_of
from kinoloom.jobs.record import (
    RenderFacts,
    clip_record,
    measurement_of,
    settings_of,
    take_settings,
)
from kinoloom.jobs.render_process import RenderProcess
from kinoloom.jobs.reuse import find_again
from kinoloom.jobs.room import check_place
from kinoloom.jobs.telling import Telling
from kinoloom.media.output import disk_errors, whole_file
from kinoloom.planner import resolve
from kinoloom.planner.plan import Plan
from kinoloom.store.clips import ClipRecord
from kinoloom.store.jobs import JobRecord
from kinoloom.store.statistics import REUSED
from kinoloom.store.store import Store

ATTEMPTS = 2
"""How often a step is tried whose child process died."""
_PAUSE = 1.0
"""Seconds before the second attempt, times a random factor of 1 to 2."""


class Superseded(Exception):
    """This run of the job is over: it was held, cancelled, or given to another worker."""


class Watch(Protocol):
    """What the worker knows of a job that it runs."""

    def over(self) -> bool:
        """Whether the run must stop: cancelled, held, taken over or out of time."""
        ...

    def timed_out(self) -> bool:
        """Whether it must stop for its deadline."""
        ...

    def seconds_left(self) -> float:
        """Until the deadline."""
        ...


@dataclass(frozen=True)
class Bench:
    """What a worker has to run jobs with; `on_event` sees what the job tells, as it happens.

    `device_lock` is held while a device renders: one job at a time on each.
    """

    settings: Settings
    store: Store
    worker: str
    child: RenderProcess
    device_lock: Callable[[str, Callable[[], bool]], Any]
    on_event: Callable[[str, Mapping[str, Any]], None]


class ClipJob:
    """One run of a job on this worker."""

    def __init__(self, job: JobRecord, bench: Bench, watch: Watch) -> None:
        self._job = job
        self._bench = bench
        self._store = bench.store
        self._watch = watch
        self._telling = Telling(job, bench.store, bench.on_event)
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
        takes = [self._take(plan, number, folder) for number in range(plan.candidates)]
        best = max(takes, key=lambda take: float(take.scores["overall"]))
        encoded = self._encode(plan, best, place, folder)
        kept = [take.kept for take in takes if take.kept is not None]
        self._publish(plan, best, takes, kept, encoded, place)

    # --- the steps --------------------------------------------------------------------------

    def _plan(self) -> Plan:
        """The job's plan; made again where this machine is not the one it was made for."""
        plan = Plan.model_validate(self._job.plan)
        machine = machine_of(self._bench.settings)
        if plan.backend != "local" or plan.device == machine.device:
            return plan
        values = plan.request.model_dump() | {"seed": plan.seed}
        again = resolve.plan(
            type(plan.request)(**values),
            catalog=load_catalog(self._bench.settings),
            settings=self._bench.settings,
            machine=machine,
            inputs=plan.inputs,
        )
        self._write(plan=again.model_dump(mode="json"), plan_key=again.key)
        return again

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
        known = self._store.jobs.artefact(self._job.id, "place")
        if known is not None:
            return Path(str(known.data["path"]))
        outputs = Path(str(self._job.request.get("outputs") or self._bench.settings.outputs))
        path = output_path(plan, outputs).absolute()
        check_place(plan, path)
        self._keep("place", None, {"path": str(path)})
        return path

    def _take(self, plan: Plan, number: int, folder: Path) -> _Take:
        """Render and score one candidate, and of several keep each one's video."""
        take = plan.with_seed(plan.seed + number) if plan.candidates > 1 else plan
        rendered = self._rendered(plan, number, folder)
        scored = self._scored(take, number, rendered)
        kept = None
        if plan.candidates > 1:
            kept = self._kept_take(take, number, rendered, folder)
        return _Take(take, rendered, scored, kept)

    def _rendered(self, plan: Plan, number: int, folder: Path) -> _Rendered:
        name = f"render:{number}"
        if (known := self._store.jobs.artefact(self._job.id, name)) is None:
            with self._bench.device_lock(plan.device, self._watch.over) as free:
                if not free:
                    self._stop()
                answer = self._call(
                    "render",
                    {
                        "plan": plan.model_dump(mode="json"),
                        "number": number,
                        "folder": str(folder),
                        "inputs": self._inputs(plan),
                    },
                )
            put = self._store.assets.put_file
            frames = put(Path(answer["frames"]), "frames", link=True).digest
            audio = answer["audio"]
            sound = put(Path(audio), "audio").digest if audio is not None else None
            self._keep(name, frames, {"rendered": answer["rendered"], "audio": sound})
            if sound is not None:
                self._keep(f"{name}:audio", sound, {})
            known = self._store.jobs.artefact(self._job.id, name)
            assert known is not None  # kept just now
        assert known.digest is not None
        sound = known.data["audio"]
        return _Rendered(
            self._store.assets.path(known.digest),
            self._store.assets.path(str(sound)) if sound is not None else None,
            RenderFacts.from_dict(known.data["rendered"]),
        )

    def _scored(self, take: Plan, number: int, rendered: _Rendered) -> Mapping[str, Any]:
        name = f"quality:{number}"
        if (known := self._store.jobs.artefact(self._job.id, name)) is None:
            arguments = {"frames": str(rendered.frames), "fps": take.fps}
            scores: dict[str, Any] = self._call("score", arguments)["scores"]
            self._keep(name, None, scores)
            return scores
        return known.data

    def _kept_take(
        self, take: Plan, number: int, rendered: _Rendered, folder: Path
    ) -> dict[str, Any]:
        name = f"take:{number}"
        known = self._store.jobs.artefact(self._job.id, name)
        if known is None:
            file = folder / f"take-{number}.mp4"
            self._write_video(take, rendered, file, take_settings(take), "mp4")
            digest = self._store.assets.put_file(file, "take", link=True).digest
            self._keep(name, digest, {})
        else:
            digest = str(known.digest)
        return {"seed": take.seed, "asset": digest}

    def _encode(self, plan: Plan, best: _Take, place: Path | None, folder: Path) -> _Encoded:
        """The finished file beside its place, or in the store; and the picture for it."""
        known = self._store.jobs.artefact(self._job.id, "encode")
        withdrawn = known is not None and known.digest is None and not (place and place.is_dir())
        if known is None or withdrawn:
            versions = best.rendered.facts.all_versions
            settings = settings_of(self._job.id, best.plan, best.scores, versions)
            picture = self._poster(best, folder)
            kind = plan.request.format
            if place is not None and kind == "png":  # a folder, which is no asset
                self._write_video(best.plan, best.rendered, place, settings, kind)
                self._keep("encode", None, {"poster": picture})
            else:
                file = folder / f"clip.{kind}"
                self._write_video(best.plan, best.rendered, file, settings, kind)
                digest = self._store.assets.put_file(file, "clip", link=True).digest
                self._keep("encode", digest, {"poster": picture})
            known = self._store.jobs.artefact(self._job.id, "encode")
            assert known is not None  # kept just now
        return _Encoded(known.digest, str(known.data["poster"]))

    def _poster(self, best: _Take, folder: Path) -> str:
        """The digest of the picture that stands for the clip."""
        if (known := self._store.jobs.artefact(self._job.id, "poster")) is not None:
            return str(known.digest)
        target = folder / "poster.png"
        self._call("poster", {"frames": str(best.rendered.frames), "target": str(target)})
        digest = self._store.assets.put_file(target, "poster").digest
        self._keep("poster", digest, {})
        return digest

    def _publish(
        self,
        plan: Plan,
        best: _Take,
        takes: list[_Take],
        kept: list[dict[str, Any]],
        encoded: _Encoded,
        place: Path | None,
    ) -> None:
        """Put the file where it belongs and write the clip's record, unless the run is over."""
        if self._watch.over():
            if encoded.digest is None:  # the folder is where it belongs by now
                self._withdraw(place)
            self._stop()
        if place is not None and encoded.digest is not None:
            with whole_file(place, mark=self._job.id) as part, disk_errors(place):
                shutil.copyfile(self._store.assets.path(encoded.digest), part)
        record = self._record(plan, best, takes, kept, encoded, place)
        finished = self._store.jobs.finish(
            self._job.id,
            run=self._job.run,
            worker=self._bench.worker,
            clip=record,
            measurements=[measurement_of(t.plan, t.rendered.facts) for t in takes],
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
    ) -> ClipRecord:
        facts = best.rendered.facts
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
        )

    # --- what all steps need ----------------------------------------------------------------

    def _call(self, command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        """Have the child do something; tried again when it dies, which is not the job's fault."""
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return self._bench.child.call(
                    command,
                    arguments,
                    on_message=self._telling.message,
                    should_stop=self._watch.over,
                    timeout=self._watch.seconds_left(),
                )
            except WorkerUnavailable as error:
                if self._watch.over():  # ended, for this worker goes
                    self._stop()
                if attempt == ATTEMPTS:
                    raise
                self._telling.log(f"{error.message} It is tried once more.")
                self._pause()
            except Cancelled:
                self._stop()
        raise AssertionError("the last attempt answers or raises")

    def _pause(self) -> None:
        until = time.monotonic() + _PAUSE * (1 + random.random())
        while time.monotonic() < until:
            if self._watch.over():
                self._stop()
            time.sleep(0.05)

    def _stop(self) -> None:
        """Raise what a run that must stop ends with."""
        if self._watch.timed_out():
            raise TimedOut(
                "The job took longer than it may.",
                cause=f"Its deadline was {_shown(self._job.deadline_at)}."
                if self._job.deadline_at is not None
                else f"A job may take {self._bench.settings.job_timeout} seconds.",
                hints=["Make it smaller, or give it more time: --timeout, or job_timeout."],
            )
        raise Superseded

    def _write_video(
        self,
        plan: Plan,
        rendered: _Rendered,
        target: Path,
        settings: Mapping[str, Any],
        kind: str,
    ) -> None:
        self._call(
            "encode",
            {
                "plan": plan.model_dump(mode="json"),
                "frames": str(rendered.frames),
                "audio": str(rendered.audio) if rendered.audio is not None else None,
                "target": str(target),
                "settings": dict(settings),
                "format": kind,
            },
        )

    def _inputs(self, plan: Plan) -> dict[str, str]:
        """Where the given media are on this machine, by the names of the plan's inputs.

        They were kept in the store when the job was handed in; a folder of pictures was not.
        """
        return {
            name: str(media.path if media.path.is_dir() else self._store.assets.path(media.digest))
            for name, media in plan.inputs.files.items()
        }

    def _keep(self, name: str, digest: str | None, data: Mapping[str, Any]) -> None:
        kept = self._store.jobs.keep_artefact(
            self._job.id, name, run=self._job.run, digest=digest, data=data
        )
        if not kept:
            raise Superseded

    def _write(self, **changes: Any) -> None:
        if not self._store.jobs.update(self._job.id, run=self._job.run, **changes):
            raise Superseded

    def _end(self, error: KinoloomError) -> None:
        self._store.jobs.move(
            self._job.id,
            "failed",
            expect=["running"],
            run=self._job.run,
            worker=self._bench.worker,
            error=error.as_dict(),
            detail={"error": error.as_dict()},
        )


@dataclass(frozen=True)
class _Rendered:
    """Where a take's frames and sound are, and what is known of its render."""

    frames: Path
    audio: Path | None
    facts: RenderFacts


@dataclass(frozen=True)
class _Take:
    """A candidate: its plan with its own seed, what came out, and its video if it is kept."""

    plan: Plan
    rendered: _Rendered
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


def _shown(moment: datetime | None) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC") if moment is not None else ""
