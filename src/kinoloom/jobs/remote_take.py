"""How is one take made elsewhere, so that it is never ordered twice and never lost?

    reserve -> new -> sent -> submit -> accepted -> poll ... -> fetch -> kept -> succeeded

Each arrow is a committed row of `store.remote_calls`. `sent` is written before the call is made: a
run that finds it without a ticket knows that somebody may have made the call, asks the service, and
where that cannot say leaves it to the user. An order that was accepted belongs to the job until it
is over: a run that was taken over, held or killed leaves it alone, and only a job that is cancelled
or out of time has it stopped.
"""

from __future__ import annotations

import time
from collections.abc import Container
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from statistics import median
from typing import Any, NoReturn

from kinoloom.backends.base import Fetched, Order, RemoteStatus, Ticket
from kinoloom.errors import (
    Cancelled,
    InvalidMedia,
    KinoloomError,
    NetworkFailed,
    NotFound,
    RateLimited,
    Uncertain,
)
from kinoloom.jobs.job_run import JobRun, Rendered, Superseded
from kinoloom.jobs.locks import has_ended, process_mark
from kinoloom.jobs.messages import error_from
from kinoloom.jobs.notices import notified_at
from kinoloom.jobs.planning import load_catalog, remote_for
from kinoloom.jobs.record import RenderFacts, VideoFacts
from kinoloom.jobs.remote_end import end_order, order_of, ticket_of
from kinoloom.jobs.remote_telling import RemoteTelling
from kinoloom.jobs.spending import reserve_take
from kinoloom.jobs.takes import plan_of_take
from kinoloom.planner.cost import shown
from kinoloom.planner.plan import Plan
from kinoloom.store.money import plain_or_none
from kinoloom.store.remote_calls import RemoteCall

SUBMITS = 5
"""How often an order is handed in that was certainly not accepted because nobody answered."""
ARRIVAL_SECONDS = 5.0
"""So long after a call has ended its order may not be found yet, though it arrived."""
SENDING_SECONDS = 75.0
"""So long after another run sent an order, that one may still be making the call: it may have been
held and not have died, and a backend waits for a minute for an answer. Of a process that is known
to be over, the call has ended."""
FIND_SECONDS = 300.0
"""How long a service that does not answer is asked whether it has an order."""
ODD_ANSWERS = 5
"""So many answers in a row that make no sense end the looking at an order."""
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 60.0
_KEEPING_SECONDS = 60.0
"""How long a ticket is tried to be written down while the database is away."""


class RemoteTake:
    """One take of a plan whose backend works elsewhere."""

    def __init__(
        self, run: JobRun, plan: Plan, number: int, folder: Path, past: Container[str]
    ) -> None:
        """`number` counts from 0; `past` has the ids of calls whose failure was dealt with."""
        self._run = run
        self._calls = run.store.remote_calls
        self._plan = plan
        self._take = plan_of_take(plan, number) if plan.candidates > 1 else plan
        self._number = number
        self._folder = folder
        self._past = past
        self._backend = remote_for(plan.backend, run.settings)
        self._card = load_catalog(run.settings).get(plan.model)
        self._telling = RemoteTelling(run.telling, self._backend.name, number, plan.candidates)
        self._pictures: dict[str, Path] | None = None
        self._nudged: datetime | None = None

    def make(self) -> Rendered:
        """The video, ordered only once. Raises KinoloomError and Superseded."""
        name = f"render:{self._number}"
        if (known := self._run.artefact(name)) is None:
            self._fetch(self._accepted(self._current()), name)
            known = self._run.artefact(name)
            assert known is not None  # kept just now
        assert known.digest is not None
        charged = known.data["charged"]
        self._calls.settle(
            str(known.data["call"]),
            "succeeded",
            charged=None if charged is None else Decimal(charged),
        )
        facts = RenderFacts.from_dict(known.data["rendered"])
        return Rendered(self._run.store.assets.path(known.digest), None, facts)

    # --- handing it in ----------------------------------------------------------------------

    def _current(self) -> RemoteCall:
        """The call of this take that counts; a new one where there is none."""
        call = self._calls.current(self._run.job.id, self._number)
        if call is not None and call.state == "new" and not self._is_of_plan(call):
            self._calls.release(self._run.job.id)  # reserved before the plan was changed
            call = None
        if call is None or call.state == "released" or call.id in self._past:
            return reserve_take(
                self._run.store, self._run.settings, self._run.job, self._plan, self._number
            )
        if call.state in ("failed", "cancelled"):  # and then somebody was killed
            raise error_from(call.error or {})
        return call

    def _is_of_plan(self, call: RemoteCall) -> bool:
        return (call.backend, call.model) == (self._plan.backend, self._plan.model)

    def _accepted(self, call: RemoteCall) -> RemoteCall:
        """The call with its ticket."""
        tries, pause = 0, _FIRST_PAUSE
        while call.state not in ("accepted", "succeeded"):
            self._run.check()
            if call.state in ("sent", "uncertain"):  # by a run that is over
                call = self._reconciled(call, None)
                continue
            order = self._ordered(call)
            if not self._calls.send(call.id):
                raise Superseded
            self._sign(call)
            tries += 1
            try:
                ticket = self._submit(order)
            except Uncertain as error:
                call = self._reconciled(self._known(call), error)
            except (RateLimited, NetworkFailed) as error:
                asked = error.retry_after if isinstance(error, RateLimited) else 0.0
                seconds = max(asked, pause)
                late = seconds >= self._run.watch.seconds_left()
                if late or (tries >= SUBMITS and isinstance(error, NetworkFailed)):
                    self._fail(call, error, Decimal(0))
                self._calls.unsend(call.id)
                call = self._known(call)
                self._telling.waiting(error, seconds)
                self._run.pause(seconds)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except KinoloomError as error:
                self._fail(call, error, Decimal(0))
            else:
                call = self._accept(call, ticket)
        return call

    def _sign(self, call: RemoteCall) -> None:
        """Write down which process makes the call: after its end nobody waits for an answer to it.

        Without that, all go on as if it lived.
        """
        sent = self._known(call)
        data = {**process_mark(), **_sending(sent)}
        with suppress(KinoloomError):
            self._run.store.jobs.keep_artefact(
                self._run.job.id, self._signed, run=self._run.job.run, digest=None, data=data
            )

    def _sender_ended(self, call: RemoteCall) -> bool:
        """Whether the process that made a call is over, and so is the call."""
        known = self._run.artefact(self._signed)
        if known is None or any(known.data.get(k) != v for k, v in _sending(call).items()):
            return False  # it was made before somebody else made the call anew
        return has_ended(known.data)

    @property
    def _signed(self) -> str:
        return f"sent:{self._number}"

    def _submit(self, order: Order) -> Ticket:
        try:
            return self._backend.submit(order, self._card)
        except KinoloomError:
            raise
        except Exception as error:  # a mistake in a backend's code, which may have called by then
            raise Uncertain(
                f"Nobody knows whether {self._backend.name} accepted the order.",
                cause=f"{type(error).__name__} while it was handed in.",
            ) from error

    def _accept(self, call: RemoteCall, ticket: Ticket) -> RemoteCall:
        """Keep the ticket, whatever it takes: without it the order is lost from sight."""
        until = time.monotonic() + _KEEPING_SECONDS
        while True:
            try:
                if not self._calls.accept(
                    call.id,
                    remote_id=ticket.remote_id,
                    endpoint=ticket.endpoint,
                    data=ticket.data,
                    cost=ticket.cost,
                ):
                    raise Superseded
                return self._known(call)
            except KinoloomError:
                if time.monotonic() >= until:
                    raise
                time.sleep(_FIRST_PAUSE)

    def _reconciled(self, call: RemoteCall, doubt: Uncertain | None) -> RemoteCall:
        """A call that was sent, as it is once the service said whether it has it.

        Raises Uncertain where it cannot say: then the call and its job wait for the user.
        """
        order, until, pause = self._ordered(call), time.monotonic() + FIND_SECONDS, _FIRST_PAUSE
        arrived = None if doubt is None else _arrived(call)
        while True:
            if arrived is None and self._sender_ended(call):
                arrived = _arrived(call)
            try:
                ticket = self._backend.find(order, self._card)
            except KinoloomError as error:
                if error.recovery.retry == "no" or time.monotonic() >= until:
                    self._doubt(call, doubt or error)
                self._telling.waiting(error, pause)
            else:
                if ticket is not None:
                    return self._accept(call, ticket)
                self._run.check()  # a later run may be sending the call by now
                passed = _since(call.sent_at)
                if passed is None or passed >= (SENDING_SECONDS if arrived is None else arrived):
                    self._calls.unsend(call.id)
                    return self._known(call)
            self._run.pause(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _doubt(self, call: RemoteCall, error: KinoloomError) -> NoReturn:
        job = self._run.job.id
        told = Uncertain(
            f"Nobody knows whether {self._backend.name} accepted the order.",
            cause=error.cause or error.message,
            hints=[
                *error.hints,
                f"If it is there: kinoloom jobs resolve {job} --remote-id ID",
                f"If it is not: kinoloom jobs resolve {job} --not-accepted",
                f"Have the service asked again: kinoloom jobs release {job}",
            ],
            details={"backend": self._backend.name, "call": call.id},
        )
        self._calls.doubt(call.id, told.as_dict())
        raise told

    def _ordered(self, call: RemoteCall) -> Order:
        """What the backend is handed; the pictures are made fit for it once."""
        run = self._run
        if self._pictures is None:
            fitted: dict[str, str] = {}
            if given := run.inputs(self._plan):
                arguments = {
                    "plan": self._take.model_dump(mode="json"),
                    "inputs": given,
                    "folder": str(self._folder),
                }
                fitted = run.call("fit", arguments, light=True)["inputs"]
            self._pictures = {name: Path(path) for name, path in fitted.items()}
        return order_of(self._plan, call, run.settings, self._pictures)

    # --- looking at it ----------------------------------------------------------------------

    def _finished(self, call: RemoteCall, ticket: Ticket) -> RemoteStatus:
        """What the service says at last of an order that it made."""
        typical = self._calls.seconds(call.backend, call.model)
        expected = median(typical) if typical else None
        odd, pause = 0, self._backend.poll_seconds
        while True:
            if self._run.watch.over():
                self._let_go(call)
            try:
                status = self._backend.poll(ticket, self._card)
            except NotFound as error:
                self._fail(call, error, call.reserved)
            except KinoloomError as error:
                odd += error.recovery.retry == "no"
                if odd >= ODD_ANSWERS:
                    raise
                pause = min(2 * pause, _LONGEST_PAUSE)
                self._telling.waiting(error, pause)
            else:
                odd, pause = 0, self._backend.poll_seconds
                self._telling.status(status, _since(call.accepted_at), expected)
                if status.state == "succeeded":
                    return status
                if status.state == "failed":
                    why = status.error or KinoloomError(f"{self._backend.name} failed.")
                    self._fail(call, why, status.charged)
                if status.state == "cancelled":
                    gone = Cancelled(f"The order was cancelled at {self._backend.name}.")
                    self._settle(call, "cancelled", status.charged, gone)
                    raise gone
            self._wait(call, pause)

    def _wait(self, call: RemoteCall, seconds: float) -> None:
        """Until it is time to look again, or the service says so, or the run is over."""
        looked = time.monotonic()

        def nudged() -> bool:
            nonlocal looked
            if notified_at(self._run.settings, call) is None:
                return False
            if time.monotonic() - looked < _FIRST_PAUSE:
                return False
            looked = time.monotonic()
            known, self._nudged = self._nudged, self._known(call).nudged_at
            return known != self._nudged

        self._run.wait(seconds, enough=nudged)

    def _let_go(self, call: RemoteCall) -> NoReturn:
        """End the looking: stop the order if the job is cancelled or out of time, else leave it."""
        if self._run.watch.timed_out() or self._run.cancelling():
            end_order(self._run.store, call, self._backend, self._card, self._run.telling.log)
        self._run.stop()

    # --- getting it -------------------------------------------------------------------------

    def _fetch(self, call: RemoteCall, name: str) -> None:
        """Get the finished video, look what it is, and keep it."""
        run, ticket = self._run, ticket_of(call)
        status = RemoteStatus("succeeded")
        if call.state != "succeeded":  # else its books are closed, and only the file is missing
            status = self._finished(call, ticket)
        began = time.perf_counter()
        fetched = self._fetched(call, ticket)
        try:
            facts = run.call("probe", {"path": str(fetched.video)}, light=True)
            if facts["kind"] != "video":
                raise InvalidMedia(f"{self._backend.name} sent a picture and no video.")
        except InvalidMedia as error:
            self._fail(call, error, status.charged if status.charged is not None else call.reserved)
        video = VideoFacts(facts["width"], facts["height"], facts["frames"], facts["fps"])
        charged = status.charged if status.charged is not None else call.charged
        rendered = RenderFacts(
            seconds={
                "render": _since(call.accepted_at) or 0.0,
                "fetch": time.perf_counter() - began,
            },
            device=call.endpoint or call.backend,
            versions=dict(fetched.versions),
            notes=tuple(self._notes(video, facts["has_audio"], status, fetched, call)),
            video=video,
        )
        data = {
            "rendered": rendered.as_dict(),
            "call": call.id,
            "charged": plain_or_none(charged),
        }
        run.keep_file(name, fetched.video, "video", data, link=True)

    def _fetched(self, call: RemoteCall, ticket: Ticket) -> Fetched:
        pause, odd = _FIRST_PAUSE, 0
        while True:
            if self._run.watch.over():
                self._let_go(call)
            self._telling.fetching()
            try:
                return self._backend.fetch(ticket, self._card, self._folder)
            except (NotFound, InvalidMedia) as error:
                self._fail(call, error, call.reserved)
            except KinoloomError as error:
                odd += error.recovery.retry == "no"
                if odd:
                    raise
                self._telling.waiting(error, pause)
            self._run.wait(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    def _notes(
        self,
        video: VideoFacts,
        has_audio: bool,
        status: RemoteStatus,
        fetched: Fetched,
        call: RemoteCall,
    ) -> list[str]:
        """What the user should know of what came, beginning with how it differs from the plan."""
        plan, notes = self._take, []
        if (video.width, video.height) != plan.size:
            notes.append(f"asked {plan.width}x{plan.height}, got {video.width}x{video.height}")
        if abs(video.fps - plan.fps) > 0.01 * plan.fps:
            notes.append(f"asked {plan.fps:g} fps, got {video.fps:.5g}")
        if video.frames != plan.frames:
            notes.append(f"asked {plan.frames} frames, got {video.frames}")
        if plan.audio != has_audio:
            got = "with sound" if has_audio else "without sound"
            notes.append(f"it came {got}, which was not asked for")
        if status.prompt is not None and status.prompt != plan.prompt:
            notes.append(f"{self._backend.name} made it from these words: {status.prompt}")
        if None not in (status.charged, call.reserved) and status.charged != call.reserved:
            paid, expected = (
                "unknown" if x is None else shown(x, call.currency)
                for x in (status.charged, call.reserved)
            )
            notes.append(f"{self._backend.name} charged {paid}; expected was {expected}")
        return [*notes, *fetched.notes]

    # --- the books --------------------------------------------------------------------------

    def _known(self, call: RemoteCall) -> RemoteCall:
        found = self._calls.get(call.id)
        assert found is not None  # the books forget nothing
        return found

    def _settle(
        self, call: RemoteCall, state: Any, charged: Decimal | None, error: KinoloomError
    ) -> None:
        self._calls.settle(call.id, state, charged=charged, error=error.as_dict())

    def _fail(self, call: RemoteCall, error: KinoloomError, charged: Decimal | None) -> NoReturn:
        self._settle(call, "failed", charged, error)
        raise error


def _sending(call: RemoteCall) -> dict[str, str]:
    """What tells one sending of a call from all others."""
    return {"call": call.id, "at": "" if call.sent_at is None else call.sent_at.isoformat()}


def _arrived(call: RemoteCall) -> float:
    """How long after it was sent a call will have arrived that has ended by now, in seconds."""
    return (_since(call.sent_at) or 0.0) + ARRIVAL_SECONDS


def _since(moment: datetime | None) -> float | None:
    return None if moment is None else max(0.0, (datetime.now(UTC) - moment).total_seconds())
