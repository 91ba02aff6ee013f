"""Who dies while paid work is under way, and what does the service's bill say afterwards?

`PaidChaos` kills workers at moments that a seed decides: while a service takes an order, before it
answers, at a look, in the middle of a download, or at any time between. The service is a fake that
speaks the real protocol to the real backend, keeps a bill, and has faults of its own.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Protocol

from acceptance.stage import Program, Stage
from kinoloom.errors import OutputFailed
from kinoloom.request import VideoRequest
from kinoloom.store.jobs import ACTIVE, JobRecord

MOMENTS = ("order", "ordered", "look", "download", "between")
"""When a worker is killed: as an order comes in, when it is charged and not answered, ..."""
_LIMIT = 400.0
_LOOK = 0.05


class Service(Protocol):
    """The fake of a service, as far as the chaos needs it."""

    bill: Counter[str]
    faults: deque[Any]
    polls: deque[int]
    truncate: deque[int]

    at: Callable[[str], None]
    """Called with a moment when it comes."""

    def faulty(self, luck: random.Random) -> Any:
        """A fault of the next create."""
        ...

    def order_of(self, prompt: str) -> str | None:
        """The id of the order with these words, which only a person could look up."""
        ...

    def charged(self) -> Decimal:
        """The money that all orders cost."""
        ...


@dataclass
class Tally:
    """What happened."""

    kills: Counter[str] = field(default_factory=Counter)
    jobs: int = 0
    uncertain: int = 0
    released: int = 0
    retried: int = 0
    seconds: float = 0.0

    def __str__(self) -> str:
        """One line for people."""
        kills = ", ".join(f"{self.kills[moment]} {moment}" for moment in MOMENTS)
        return (
            f"{self.kills.total()} kills ({kills}) over {self.jobs} paid jobs in"
            f" {self.seconds:.0f} s: {self.uncertain} uncertain orders were held and resolved,"
            f" {self.released} jobs with an order were released,"
            f" {self.retried} without one were given up and retried"
        )


class PaidChaos:
    """Kills the workers of a stage while they have a service make clips."""

    def __init__(self, stage: Stage, service: Service, model: str, seed: int) -> None:
        self._stage, self._service, self._model = stage, service, model
        self._luck = random.Random(seed)
        self._workers: dict[str, Program] = {}
        self._armed: str | None = None
        self._skip = 0
        self._asks = True
        self._lock = threading.Lock()
        self._jobs: dict[str, str] = {}
        self.tally = Tally()
        service.at = self._moment

    def run(self, jobs: int, kills: int) -> Tally:
        """Have so many clips made with so many kills; what happened.

        Raises AssertionError when something was charged twice, lost, or delivered twice.
        """
        began = time.monotonic()
        self.tally.jobs = jobs
        for name in ("anna", "berta"):
            self._workers[name] = self._start(name)
        # While the workers are at it already, as users would.
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(self._submit, jobs)
            try:
                self._go_on(asking, kills)
            finally:
                self._asks = False
                self._service.at = lambda _moment: None
        self._stage.end_all()
        self.tally.seconds = time.monotonic() - began
        faults = [*self._judge(), *self._stage.left_over()]
        assert not faults, f"{self.tally}\n" + "\n".join(faults[:50])
        return self.tally

    # --- making it hard ---------------------------------------------------------------------

    def _go_on(self, asking: Future[None], kills: int) -> None:
        """Until all is made: start whoever died, settle what is held, and arm the next kill."""
        until_ = time.monotonic() + _LIMIT
        while not self._done(asking):
            assert time.monotonic() < until_, f"{self.tally}\n{self._left()}"
            for name, worker in self._workers.items():
                if not worker.running:
                    self._workers[name] = self._start(name)
            if self.tally.kills.total() < kills and self._armed is None:
                self._arm()
            if self._luck.random() < 0.1:
                self._trouble()
            self._settle_held()
            time.sleep(_LOOK)

    def _arm(self) -> None:
        """Choose the next moment; each comes at least once."""
        new = [moment for moment in MOMENTS if not self.tally.kills[moment]]
        moment = new[0] if new else self._luck.choice(MOMENTS)
        with self._lock:
            self._skip = self._luck.randrange(8)
            self._armed = moment
        if moment == "between":
            time.sleep(self._luck.random())
            self._moment("between", at_once=True)

    def _moment(self, moment: str, *, at_once: bool = False) -> None:
        """A moment has come; also called by the service's threads."""
        with self._lock:
            if self._armed != moment:
                return
            if self._skip and not at_once:
                self._skip -= 1
                return
            alive = [w for w in self._workers.values() if w.running and "serves" in w.said()]
            if not alive:
                return
            self._luck.choice(alive).process.kill()
            self.tally.kills[moment] += 1
            self._armed = None

    def _trouble(self) -> None:
        """The service has a bad moment of its own."""
        what = self._luck.randrange(6)
        if what == 0:
            self._service.polls.append(503)
        elif what == 1:
            self._service.truncate.append(self._luck.randrange(1, 900))
        elif what == 2:
            self._service.faults.append(self._service.faulty(self._luck))

    def _settle_held(self) -> None:
        """Do what a user would with the jobs that wait for one."""
        service, store = self._stage.service, self._stage.store
        for job in service.list(states=["held"], limit=500):
            kind = (job.error or {}).get("kind")
            if kind is None:  # it is being handed in at this moment
                continue
            if kind != "uncertain":
                service.release(job.id)
                self.tally.released += 1
                continue
            listed = {call.job_id for call in store.remote_calls.list(states=("uncertain",))}
            assert job.id in listed
            there = self._service.order_of(job.prompt)
            service.resolve(job.id, remote_id=there, not_accepted=there is None)
            self.tally.uncertain += 1
        for job in service.list(states=["dead"], limit=500):
            service.retry(job.id)
            self.tally.retried += 1

    def _start(self, name: str) -> Program:
        return self._stage.start(
            "worker", "--name", name, "--queue", "api", machine=name, name=name
        )

    def _submit(self, jobs: int) -> None:
        for number in range(jobs):
            if not self._asks:  # for something went wrong
                return
            request = VideoRequest(prompt=f"paid clip {number}", model=self._model, seed=number)
            while True:
                try:
                    job = self._stage.service.submit(request)
                except OutputFailed:  # the database is busy with all of that
                    continue
                break
            self._jobs[job.id] = request.prompt

    # --- judging ----------------------------------------------------------------------------

    def _all(self) -> list[JobRecord]:
        return list(self._stage.service.list(limit=10_000))

    def _done(self, asking: Future[None]) -> bool:
        if not asking.done():
            return False
        asking.result()
        return not self._stage.service.list(states=[*ACTIVE, "dead"], limit=1)

    def _left(self) -> str:
        states: Mapping[str, int] = Counter(job.state for job in self._all())
        return f"{len(self._jobs)} jobs: {dict(states)}"

    def _judge(self) -> list[str]:
        """What is wrong with the bill, the books, or what was delivered."""
        faults = []
        store, bill = self._stage.store, self._service.bill
        for job in self._all():
            if job.state != "succeeded":
                faults.append(f"{job.id} is {job.state}: {job.error}")
            if bill[job.prompt] != 1:
                faults.append(f"{job.prompt!r} was charged {bill[job.prompt]} times")
            told = self._stage.journal.entries(job.id)
            delivered = sum(entry.what in ("clip", "success") for entry in told)
            if delivered != 2:
                faults.append(f"{job.id} was delivered by {delivered} lines, not a clip and a word")
            paid = [call for call in store.remote_calls.of_job(job.id) if call.charged]
            if [call.state for call in paid] != ["succeeded"]:
                faults.append(f"{job.id}: the books say {[call.state for call in paid]}")
        if extra := set(bill) - set(self._jobs.values()):
            faults.append(f"charged and never asked for: {sorted(extra)}")
        books, billed = store.remote_calls.spending(), self._service.charged()
        if (books.charged, books.reserved) != (billed, 0):
            faults.append(f"the books say {books}, the bill {billed}")
        if store.remote_calls.list(states=("new", "sent", "accepted", "uncertain")):
            faults.append("calls are open though all jobs have ended")
        return faults
