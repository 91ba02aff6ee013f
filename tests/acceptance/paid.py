"""What does a service's bill say when workers were killed while it made clips for them?"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from acceptance.attack import MOMENTS, Attack, Service
from acceptance.stage import Stage
from kinoloom.errors import OutputFailed
from kinoloom.request import VideoRequest
from kinoloom.store.job_record import ACTIVE, JobRecord

_LIMIT = 400.0
_LOOK = 0.05
_FEW = 5
"""With less than one in so many jobs left, the service has no bad moments any more: the last ones
would meet all of them."""


@dataclass
class Tally:
    """What happened."""

    jobs: int
    kills: Counter[str]
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
        self._attack = Attack(stage, service, seed)
        self._asks = True
        self._jobs: dict[str, str] = {}

    def run(self, jobs: int, kills: int) -> Tally:
        """Have so many clips made with so many kills; what happened.

        Raises AssertionError when something was charged twice, lost, or delivered twice.
        """
        began = time.monotonic()
        self._attack.begin()
        # While the workers are at it already, as users would.
        with ThreadPoolExecutor(1) as pool:
            asking = pool.submit(self._submit, jobs)
            try:
                self._go_on(asking, jobs, kills)
            finally:
                self._asks = False
                self._attack.stop()
        self._stage.end_all()
        tally = self._tally(jobs, time.monotonic() - began)
        faults = [*self._judge(), *self._stage.left_over()]
        assert not faults, f"{tally}\n" + "\n".join(faults[:50])
        return tally

    def _go_on(self, asking: Future[None], jobs: int, kills: int) -> None:
        """Until all is made."""
        until_ = time.monotonic() + _LIMIT
        while not self._done(asking):
            assert time.monotonic() < until_, f"{self._tally(jobs, _LIMIT)}\n{self._left()}"
            few = max(1, jobs // _FEW)
            left = len(self._stage.service.list(states=ACTIVE, limit=few))
            self._attack.go_on(kills, trouble=left == few)
            time.sleep(_LOOK)

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

    def _tally(self, jobs: int, seconds: float) -> Tally:
        attack = self._attack
        held = attack.uncertain, attack.released, attack.retried
        return Tally(jobs, attack.kills, *held, seconds)

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
        return [*faults, *unbalanced(self._stage, self._service)]


def unbalanced(stage: Stage, service: Service) -> list[str]:
    """How the books of a stage differ from the bill of the only service that it paid."""
    faults, calls = [], stage.store.remote_calls
    books, billed = calls.spending(), service.charged()
    if (books.charged, books.reserved) != (billed, 0):
        faults.append(f"the books say {books}, the bill {billed}")
    if calls.list(states=("new", "sent", "accepted", "uncertain")):
        faults.append("calls are open though all jobs have ended")
    return faults
