"""Who is killed, when, and what must hold afterwards, whatever it was?

`Chaos` kills servers, workers and the processes that render at moments that a seed decides, gives
each another chance to come back, and in the end reads the journal of its `Stage`: every job was
done once, and nothing that was finished was done again.
"""

from __future__ import annotations

import json
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from acceptance.stage import LIMIT, Entry, Program, Stage, until
from kinoloom.store.job_record import ACTIVE

Target = Literal["server", "worker", "child", "pause"]
"""What is killed; `pause` is a worker that is stopped until its time to live is over."""

_WAITING = 3
"""So many jobs at least are not finished while there still is something to kill."""
_MILESTONES = ("running", "progress", "render:0", "quality:0", "poster", "encode", "clip")
"""Of these one is waited for: lines of the journal by what they say or name, in their order."""
_LONGEST_WAIT = 0.3
"""Seconds from there to the blow; most of what lies between two of them takes less."""
_RENDERING = ("load", "encode", "denoise", "decode")
# Of a child that was killed twice in one step, or workers that were killed thrice with one job.
_EXCUSED = ("failed", "dead")


@dataclass
class Tally:
    """What happened; `during` counts the kills by what the job was in, a phase or a state."""

    kills: Counter[str] = field(default_factory=Counter)
    during: Counter[str] = field(default_factory=Counter)
    clips: int = 0
    taken_over: int = 0
    retried: int = 0
    steps: int = 0
    again: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.kills.total()} kills ({_counted(self.kills)}; during {_counted(self.during)})"
            f" over {self.clips} clips in {self.seconds:.0f} s:"
            f" {self.taken_over} runs went on after a death,"
            f" {self.retried} jobs were given up and retried,"
            f" {self.again} of {self.steps} finished steps ran again"
        )


class Chaos:
    """Kills what runs on a stage, as long as it is told to."""

    def __init__(self, stage: Stage, seed: int, *, workers: Sequence[str] = ()) -> None:
        """With `workers` these are there; without, a server with its own one."""
        self._stage = stage
        self._random = random.Random(seed)
        self._names = tuple(workers)
        self._workers = {name: stage.start_worker(name) for name in workers}
        self._server = None if workers else stage.start_server()
        self._since_server = 0
        self._chances: Mapping[Target, int] = (
            {"worker": 6, "child": 5, "pause": 1}
            if workers
            else {"worker": 2, "child": 3, "server": 1}
        )
        self._jobs: list[str] = []
        self.tally = Tally()

    def run(self, kills: int, on_kill: Callable[[Tally], None] = lambda _: None) -> Tally:
        """Strike so often, then let everything finish; what happened.

        `on_kill` sees the tally after each. Raises AssertionError when something was lost, done
        twice or left over.
        """
        began = time.monotonic()
        while self.tally.kills.total() < kills:
            self._keep_busy()
            target = self._target()
            if self._strike(target):
                self.tally.seconds = time.monotonic() - began
                on_kill(self.tally)
        self._drain()
        self._stage.end_all()
        self.tally.seconds = time.monotonic() - began
        faults = [*self._judge(), *self._stage.left_over()]
        assert not faults, f"{self.tally}\n" + "\n".join(faults[:50])
        return self.tally

    # --- killing ----------------------------------------------------------------------------

    def _target(self) -> Target:
        if new := [target for target in self._chances if not self.tally.kills[target]]:
            return self._random.choice(new)
        # A server waits longer each time before it starts its worker again; a new one does not.
        if self._since_server >= 2:
            return "server"
        return self._random.choices(list(self._chances), list(self._chances.values()))[0]

    def _strike(self, target: Target) -> bool:
        """Wait for a job to begin, and for a random moment after that, and strike who has it."""
        begun = self._a_job_begins()
        if begun is None:
            return False
        after = self._random.choice(_MILESTONES)
        until(lambda: self._is_past(begun, after), f"{begun} is past {after}")
        time.sleep(self._random.uniform(0, _LONGEST_WAIT))  # the moment, which is what is tested
        job = self._stage.service.get(begun)
        if self._server is not None:
            struck = self._strike_server(self._server, target)
        else:
            # It may wait again, or be done.
            name = job.worker or self._random.choice(self._names)
            struck = self._strike_worker(self._workers[name], target)
        if struck:
            self.tally.kills[target] += 1
            phase = job.progress["phase"] if job.progress is not None else "start"
            self.tally.during[phase if job.state == "running" else job.state] += 1
        return struck

    def _is_past(self, job: str, milestone: str) -> bool:
        entries = self._stage.journal.entries(job)
        if any(milestone in (entry.what, entry.detail) for entry in entries):
            return True
        state = self._stage.service.get(job).state
        return milestone == state or state not in ACTIVE

    def _strike_server(self, server: Program, target: Target) -> bool:
        worker = self._stage.serving_pid(server)
        if worker is None:
            return False
        if target == "child":
            return self._kill_child(worker)
        if target == "worker":
            self._stage.kill(worker)
            self._since_server += 1
        else:
            server.kill()
            self._since_server = 0
            until(lambda: not self._stage.pids(), "the worker ends with its server", 60)
            self._server = self._stage.start_server()
        return True

    def _strike_worker(self, worker: Program, target: Target) -> bool:
        if target == "child":
            return self._kill_child(worker.pid)
        if target == "worker":
            worker.kill()
            if self._random.random() < 0.5:  # else another one has taken its jobs over by then
                self._others_take_over(worker.name)
            self._workers[worker.name] = self._stage.start_worker(worker.name)
        else:
            worker.process.send_signal(signal.SIGSTOP)
            try:
                self._others_take_over(worker.name)
            finally:
                worker.process.send_signal(signal.SIGCONT)
        return True

    def _others_take_over(self, name: str) -> None:
        store = self._stage.store
        until(lambda: store.workers.get(name) is None, f"somebody notices that {name} is gone")

    def _kill_child(self, worker: int) -> bool:
        child = self._stage.child_of(worker)
        if child is None:
            return False
        self._stage.kill(child)
        return True

    # --- jobs -------------------------------------------------------------------------------

    def _keep_busy(self) -> None:
        """See to it that enough jobs wait, and that those that were given up run again."""
        self._retry()
        states = self._states()
        active = sum(state in ACTIVE for state in states.values())
        for _ in range(active, _WAITING):
            self._jobs.append(self._stage.submit(seed=len(self._jobs)))

    def _a_job_begins(self) -> str | None:
        """A job that has just begun to run; None when all were finished meanwhile."""
        before = {job for job, state in self._states().items() if state == "running"}
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            states = self._states()
            running = {job for job, state in states.items() if state == "running"}
            if new := running - before:
                return min(new)
            if not any(state in ACTIVE for state in states.values()):
                return None
            before &= running
            time.sleep(0.02)
        raise AssertionError(f"no job began to run: {self._states()}")

    def _retry(self) -> None:
        for job_id, state in self._states().items():
            if state in _EXCUSED:
                job = self._stage.service.get(job_id)
                assert job.error is not None
                assert job.error["kind"] == "worker_unavailable", job.error
                self._stage.service.retry(job_id)
                self.tally.retried += 1

    def _drain(self) -> None:
        """Let all jobs end."""

        def ended() -> bool:
            self._retry()
            return not any(state in ACTIVE for state in self._states().values())

        until(ended, "all jobs end")
        rows = self._stage.journal.engine_rows
        until(lambda: not rows(self._stage.settings), "the engine has nothing left", 60)

    def _states(self) -> Mapping[str, str]:
        found = self._stage.store.jobs.states(self._jobs)
        return {job_id: found[job_id][0] for job_id in self._jobs}

    # --- judging ----------------------------------------------------------------------------

    def _judge(self) -> Iterator[str]:
        """Every way in which a job did not go as it must; the tally is brought to its end."""
        self.tally.clips = len(self._jobs)
        for job_id in self._jobs:
            entries = self._stage.journal.entries(job_id)
            again = list(repeated(entries))
            self.tally.again += len(again)
            self.tally.steps += sum(entry.what == "kept" for entry in entries)
            self.tally.taken_over += sum("its worker died" in entry.detail for entry in entries)
            yield from (f"{job_id}: {what}" for what in [*again, *unfinished(entries)])
            job = self._stage.service.get(job_id)
            if job.state != "succeeded" or job.clip_id is None:
                yield f"{job_id} is {job.state}: {job.error}"


def _counted(numbers: Counter[str]) -> str:
    return ", ".join(f"{number} {name}" for name, number in sorted(numbers.items()))


def repeated(entries: Sequence[Entry]) -> Iterator[str]:
    """The finished steps of a job, by its lines of the journal, that ran or began again."""
    kept: set[str] = set()
    for entry in entries:
        if entry.what == "kept":
            kept.add(entry.detail)
        elif entry.what == "kept again":
            yield f"the step {entry.detail} was finished twice"
        elif entry.what == "progress":
            told = json.loads(entry.detail)
            phase, take = told["phase"], told["take"] - 1
            if phase in _RENDERING and f"render:{take}" in kept:
                yield f"take {take} was rendered again: {entry.detail}"
            if phase == "write" and "encode" in kept:
                yield f"the file was written again: {entry.detail}"


def unfinished(entries: Sequence[Entry]) -> Iterator[str]:
    """What a job that is done did not do exactly once, by its lines of the journal."""
    for what in ("clip", "success"):
        count = sum(entry.what == what for entry in entries)
        if count != 1:
            yield f"{count} times {what}"
