"""Who dies while paid work is under way, and what trouble does the service have itself?

An `Attack` kills workers at moments that a seed decides: while a service takes an order, before it
answers, at a look, in the middle of a download, or at any time between. The service is a fake that
speaks the real protocol to the real backend, keeps a bill, and has faults of its own.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from decimal import Decimal
from typing import Any, Protocol

from acceptance.stage import Program, Stage
from kinoloom.jobs.queues import FILM
from kinoloom.store.job_record import JobRecord

MOMENTS = ("order", "ordered", "look", "download", "between")
"""When a worker is killed: as an order comes in, when it is charged and not answered, ..."""


class Service(Protocol):
    """The fake of a service, as far as an attack needs it."""

    bill: Counter[str]
    faults: deque[Any]
    polls: deque[int]
    truncate: deque[int]

    at: Callable[[str], None]
    """Called with a moment when it comes."""

    def faulty(self, luck: random.Random) -> Any:
        """A fault of the next create."""
        ...

    def order_of(self, prompt: str, seed: int, seconds: float) -> str | None:
        """The id of the order of such a clip, which only a person could look up."""
        ...

    def charged(self) -> Decimal:
        """The money that all orders cost."""
        ...


class Attack:
    """Processes of a stage that pay a service, which are killed and started again."""

    def __init__(self, stage: Stage, service: Service, seed: int, *, spread: int = 8) -> None:
        """A moment is let pass up to `spread` - 1 times before somebody is killed at it."""
        self.luck = random.Random(seed)
        self.kills: Counter[str] = Counter()
        self.uncertain = self.released = self.retried = 0
        self._stage, self._service = stage, service
        self._programs: dict[str, Program] = {}
        self._spread = spread
        self._armed: str | None = None
        self._skip = 0
        self._lock = threading.Lock()
        service.at = self._moment

    def begin(self) -> None:
        """Start the workers."""
        for name in ("anna", "berta"):
            self._programs[name] = self._start(name)

    def go_on(self, kills: int, *, trouble: bool) -> None:
        """Start whoever died, arm the next of so many kills, and settle what is held.

        With `trouble` the service may have a bad moment of its own too.
        """
        for name, program in self._programs.items():
            if not program.running:
                self._programs[name] = self._start(name)
        if self.kills.total() < kills and self._armed is None:
            self._arm()
        if trouble and self.luck.random() < 0.1:
            self._trouble()
        self._settle_held()

    def stop(self) -> None:
        """No kill comes any more."""
        self._service.at = lambda _moment: None

    def kill(self, worker: str | None, moment: str) -> bool:
        """Kill the process of a worker, at a moment of the caller's; whether it was there."""
        record = self._stage.store.workers.get(worker or "")
        with self._lock:
            for program in self._programs.values():
                if record is not None and program.pid == record.pid and program.running:
                    program.process.kill()
                    self.kills[moment] += 1
                    return True
        return False

    # --- kills ------------------------------------------------------------------------------

    def _start(self, name: str) -> Program:
        arguments = ("worker", "--name", name, "--queue", "api")
        return self._stage.start(*arguments, machine=name, name=name)

    def _arm(self) -> None:
        """Choose the next moment; each comes at least once."""
        new = [moment for moment in MOMENTS if not self.kills[moment]]
        moment = new[0] if new else self.luck.choice(MOMENTS)
        with self._lock:
            self._skip = self.luck.randrange(self._spread)
            self._armed = moment
        if moment == "between":
            time.sleep(self.luck.random())
            self._moment("between", at_once=True)

    def _moment(self, moment: str, *, at_once: bool = False) -> None:
        """A moment has come; also called by the service's threads."""
        with self._lock:
            if self._armed != moment:
                return
            if self._skip and not at_once:
                self._skip -= 1
                return
            there = {worker.pid for worker in self._stage.store.workers.live(3600)}
            alive = [p for p in self._programs.values() if p.running and p.pid in there]
            if not alive:
                return
            self.luck.choice(alive).process.kill()
            self.kills[moment] += 1
            self._armed = None

    def _trouble(self) -> None:
        """The service has a bad moment of its own: one of a kind at a time.

        While everybody waits for something, bad moments would else pile up, and whoever is left
        would meet them all, each with a longer pause than the one before.
        """
        service, what = self._service, self.luck.randrange(6)
        if what == 0 and not service.polls:
            service.polls.append(503)
        elif what == 1 and not service.truncate:
            service.truncate.append(self.luck.randrange(1, 900))
        elif what == 2 and not service.faults:
            service.faults.append(service.faulty(self.luck))

    # --- what a user does -------------------------------------------------------------------

    def _settle_held(self) -> None:
        """Do what a user would with the jobs that wait for one."""
        service = self._stage.service
        for job in service.list(states=["held"], limit=500):
            kind = (job.error or {}).get("kind")
            if kind is None or job.kind == FILM:  # it is being handed in, or waits for its clips
                continue
            if kind == "uncertain":
                self._look_up(job)
                continue
            service.release(job.id)
            self.released += 1
        for job in service.list(states=["dead"], limit=500):
            service.retry(job.id)
            self.retried += 1

    def _look_up(self, job: JobRecord) -> None:
        """Say what became of an order that nobody is certain about."""
        calls = self._stage.store.remote_calls
        assert job.id in {call.job_id for call in calls.list(states=("uncertain",))}
        assert job.plan is not None
        seed, seconds = job.plan["seed"], job.plan["frames"] / job.plan["fps"]
        there = self._service.order_of(job.prompt, seed, seconds)
        self._stage.service.resolve(job.id, remote_id=there, not_accepted=there is None)
        self.uncertain += 1
