"""What becomes of an order that a service has: looked at, stopped, fetched, and paid once?"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from kinoloom.backends.base import RemoteStatus
from kinoloom.errors import InvalidMedia, KinoloomError, NetworkFailed, NotFound, OutputFailed
from kinoloom.jobs import remote_take
from kinoloom.jobs.dead import MAX_DEATHS, hand_back
from kinoloom.jobs.remote_end import end_left_orders
from kinoloom.store.job_record import JobRecord
from unit.jobs.elsewhere import LOST, MONEY, RUNNING, Agency

SUCCESS = RemoteStatus("succeeded", charged=MONEY)


# --- looking at it ------------------------------------------------------------------------------


def test_looking_is_tried_again_and_odd_answers_hold_the_job(agency: Agency) -> None:
    agency.plain.looks = [NetworkFailed("Gone."), SUCCESS]
    assert agency.make().state == "succeeded"
    odd = KinoloomError("What?")
    agency.plain.looks = [odd] * remote_take.ODD_ANSWERS + [SUCCESS]
    job = agency.make(seed=8)
    # The order is still there: nothing is given up, and nothing is paid again.
    assert (job.state, agency.states(job)) == ("held", ["accepted"])
    assert agency.carry_out(agency.service.release(job.id)).state == "succeeded"
    assert agency.plain.most_paid == 1


def test_an_order_that_failed_fails_the_job(agency: Agency) -> None:
    error = InvalidMedia("The picture is too dark.")
    agency.plain.looks = [RemoteStatus("failed", error=error, charged=Decimal(0))]
    job = agency.make()
    assert (job.state, job.error) == ("failed", error.as_dict())
    assert [(c.state, c.charged) for c in agency.calls(job)] == [("failed", Decimal(0))]


def test_an_order_that_is_gone_may_be_ordered_again(agency: Agency) -> None:
    agency.plain.looks = [NotFound("It is not known."), SUCCESS]
    job = agency.make()
    assert (job.state, (job.error or {})["kind"]) == ("failed", "not_found")
    assert agency.calls(job)[0].charged == MONEY  # nobody says that it was not
    agency.plain.looks = [SUCCESS]
    assert agency.carry_out(agency.service.retry(job.id)).state == "succeeded"


def test_an_order_that_was_cancelled_there(agency: Agency) -> None:
    agency.plain.looks = [RemoteStatus("cancelled")]
    job = agency.make()
    assert (job.state, (job.error or {})["kind"]) == ("failed", "cancelled")
    assert [(c.state, c.charged) for c in agency.calls(job)] == [("cancelled", MONEY)]


@pytest.mark.parametrize(
    ("answer", "state", "charged"),
    [
        (RemoteStatus("cancelled", charged=Decimal("0.1")), "cancelled", Decimal("0.1")),
        (RemoteStatus("running"), "cancelled", MONEY),  # it cannot be stopped there
        (RemoteStatus("succeeded"), "succeeded", MONEY),
        (RemoteStatus("failed", charged=Decimal(0)), "failed", Decimal(0)),
        (NotFound("Gone."), "failed", MONEY),
    ],
)
def test_cancelling_stops_the_order(
    agency: Agency, answer: Any, state: str, charged: Decimal
) -> None:
    agency.plain.looks, agency.plain.cancelled = [RUNNING], answer
    job = agency.submit()
    agency.plain.at = lambda step: cancel(agency, job) if step == "poll done" else None
    now = agency.carry_out(job)
    assert now.state == "cancelling"  # and the worker ends it
    assert [(c.state, c.charged) for c in agency.calls(job)] == [(state, charged)]
    assert agency.plain.cancels == ["remote-1"]


def cancel(agency: Agency, job: JobRecord) -> None:
    agency.service.cancel(job.id)
    agency.watch.stopped = True


def test_an_order_that_cannot_be_stopped_now_is_stopped_later(agency: Agency) -> None:
    agency.plain.looks, agency.plain.cancelled = [RUNNING], NetworkFailed("Gone.")
    job = agency.submit()
    agency.plain.at = lambda step: cancel(agency, job) if step == "poll done" else None
    agency.carry_out(job)
    agency.plain.at = lambda _step: None
    assert agency.states(job) == ["accepted"]
    agency.store.jobs.move(job.id, "cancelled", expect=["cancelling"])
    agency.plain.cancelled = RemoteStatus("cancelled", charged=Decimal(0))
    end_left_orders(agency.store, agency.settings)
    assert [(c.state, c.charged) for c in agency.calls(job)] == [("cancelled", Decimal(0))]


def test_a_run_that_is_over_leaves_its_order_alone(agency: Agency) -> None:
    agency.plain.looks = [RUNNING]
    job = agency.submit()

    def hold(step: str) -> None:
        if step == "poll done":
            agency.service.hold(job.id)
            agency.watch.stopped = True

    agency.plain.at = hold
    assert agency.carry_out(job).state == "held"
    assert (agency.plain.cancels, agency.states(job)) == ([], ["accepted"])
    agency.plain.at, agency.watch.stopped = lambda _step: None, False
    agency.plain.looks = [SUCCESS]
    assert agency.carry_out(agency.service.release(job.id)).state == "succeeded"
    assert agency.plain.most_paid == 1


def test_a_held_job_that_is_cancelled_stops_its_order(agency: Agency) -> None:
    agency.plain.looks = [KinoloomError("What?")] * remote_take.ODD_ANSWERS + [RUNNING]
    job = agency.make()
    assert agency.states(job) == ["accepted"]
    ended = agency.service.cancel(job.id)
    assert (ended.state, ended.cost, agency.plain.cancels) == (
        "cancelled",
        Decimal("0.1"),
        ["remote-1"],
    )


def test_a_job_out_of_time_stops_its_order(agency: Agency) -> None:
    agency.plain.looks = [RUNNING]
    agency.plain.at = lambda step: setattr(agency.watch, "late", True)
    job = agency.make()
    assert (job.state, (job.error or {})["kind"]) == ("failed", "timeout")
    assert (agency.states(job), agency.plain.cancels) == (["cancelled"], ["remote-1"])


def test_a_service_that_says_so_is_looked_at_at_once(
    agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    object.__setattr__(agency.settings, "public_url", "https://studio.example")
    monkeypatch.setattr("fakes.plain.PlainBackend.poll_seconds", 3600.0)
    agency.plain.looks = [RUNNING, SUCCESS]
    job = agency.submit()

    def say(step: str) -> None:
        if step == "poll done":
            (call,) = agency.calls(job)
            agency.store.remote_calls.nudge(call.id)

    agency.plain.at = say
    assert agency.carry_out(job).state == "succeeded"
    (order,) = agency.plain.orders.values()
    assert order.notify == f"https://studio.example/api/hooks/plain/{order.key}"


# --- getting it ---------------------------------------------------------------------------------


def test_a_download_that_breaks_off_is_begun_again(agency: Agency) -> None:
    agency.plain.fetches.append(NetworkFailed("It broke off."))
    assert agency.make().state == "succeeded"


def test_what_cannot_be_kept_waits_for_room(agency: Agency) -> None:
    agency.plain.fetches.append(OutputFailed("The disk is full."))
    job = agency.make()
    assert (job.state, (job.error or {})["kind"]) == ("held", "output_failed")
    assert agency.carry_out(agency.service.release(job.id)).state == "succeeded"
    assert agency.plain.most_paid == 1


def test_what_is_no_video_is_paid_and_said(agency: Agency) -> None:
    agency.child.video = {"kind": "image", "width": 64, "height": 64}
    job = agency.make()
    assert (job.state, (job.error or {})["kind"]) == ("failed", "invalid_media")
    assert [(c.state, c.charged) for c in agency.calls(job)] == [("failed", MONEY)]


# --- death at every step ------------------------------------------------------------------------


class Killer:
    """Ends the process, so to say, at the nth of all steps of the service and of the books."""

    def __init__(self, agency: Agency, monkeypatch: pytest.MonkeyPatch) -> None:
        self.left = -1
        agency.plain.at = lambda _step: self.step()
        books = agency.store.remote_calls
        for name in ("reserve", "send", "unsend", "accept", "doubt", "settle"):
            monkeypatch.setattr(books, name, self.around(getattr(books, name)))
        jobs = agency.store.jobs
        for name in ("keep_artefact", "finish"):
            monkeypatch.setattr(jobs, name, self.around(getattr(jobs, name)))

    def step(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise SystemExit

    def around(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def called(*arguments: Any, **options: Any) -> Any:
            self.step()
            answer = method(*arguments, **options)
            self.step()
            return answer

        return called


@pytest.mark.parametrize("answers", [[], [("accepted", LOST)], [LOST]], ids=["ok", "lost", "not"])
@pytest.mark.parametrize("findable", [True, False])
def test_whoever_dies_wherever_pays_once(
    agency: Agency, monkeypatch: pytest.MonkeyPatch, findable: bool, answers: list[Any]
) -> None:
    killer = Killer(agency, monkeypatch)
    agency.plain.findable = findable
    agency.plain.looks = [SUCCESS]
    for number in count(1):
        agency.plain.answers = deque(answers)
        job = agency.submit(seed=number)
        killer.left, killed, waiting = number, False, job
        while True:
            try:
                now = agency.carry_out(waiting)
            except SystemExit:
                killed = True
                if agency.service.get(job.id).state == "succeeded":
                    break
                waiting = agency.revived(job)
                continue
            if now.state != "held":
                break
            # Only what cannot be looked up is left to the user, who looks it up.
            assert not findable
            assert (now.error or {})["kind"] == "uncertain"
            try:
                waiting = resolved(agency, job)
            except SystemExit:
                killed = True
                again = agency.states(job) == ["uncertain"]
                waiting = resolved(agency, job) if again else agency.service.release(job.id)
        assert agency.service.get(job.id).state == "succeeded", number
        assert agency.plain.most_paid == 1
        assert agency.service.get(job.id).cost == MONEY
        assert len(agency.plain.orders) == number
        assert agency.video(job).endswith(f"seed {number}")
        if not killed:
            break
    assert number > 15
    assert len(agency.store.clips.list(limit=500)) == number


def resolved(agency: Agency, job: JobRecord) -> JobRecord:
    """The job after somebody looked at the service whether it has the order."""
    (call,) = agency.calls(job)
    there = [number for number, key in agency.plain.tickets.items() if key == call.id]
    return agency.service.resolve(job.id, remote_id=next(iter(there), None), not_accepted=not there)


# --- what is left over --------------------------------------------------------------------------


def left(agency: Agency) -> JobRecord:
    """A job that ended while its call was `sent`, and whether the service has it is unknown."""
    job = agency.submit()
    (call,) = agency.calls(job)
    assert agency.store.remote_calls.send(call.id)
    agency.store.jobs.move(job.id, "failed", expect=["queued"])
    return job


def test_a_sent_order_of_a_job_that_ended_is_looked_up(agency: Agency) -> None:
    job = left(agency)
    end_left_orders(agency.store, agency.settings)
    assert agency.states(job) == ["released"]  # the service does not have it
    assert agency.store.remote_calls.spent() == 0


def test_a_sent_order_that_cannot_be_looked_up_is_listed(agency: Agency) -> None:
    agency.plain.findable = False
    job = left(agency)
    end_left_orders(agency.store, agency.settings)
    assert [c.job_id for c in agency.store.remote_calls.list(states=("uncertain",))] == [job.id]


def test_a_finished_order_of_a_job_that_ended_is_settled_and_not_cancelled(agency: Agency) -> None:
    agency.plain.looks = [KinoloomError("What?")] * remote_take.ODD_ANSWERS + [SUCCESS]
    job = agency.make()
    agency.store.jobs.move(job.id, "failed", expect=["held"])
    end_left_orders(agency.store, agency.settings)
    assert [(c.state, c.charged) for c in agency.calls(job)] == [("succeeded", MONEY)]
    assert agency.plain.cancels == []
    # And if it is run again after all, what was made is fetched, and nothing is paid.
    assert agency.carry_out(agency.service.retry(job.id)).state == "succeeded"
    assert agency.plain.most_paid == 1


def test_a_job_whose_worker_keeps_dying_waits_while_a_service_has_its_order(
    agency: Agency,
) -> None:
    agency.plain.looks = [KinoloomError("What?")] * remote_take.ODD_ANSWERS + [SUCCESS]
    job = agency.service.release(agency.make().id)
    running = agency.store.jobs.move(job.id, "running", expect=["queued"], deaths=MAX_DEATHS - 1)
    assert running is not None
    assert hand_back(agency.store, running, died=True)
    held = agency.service.get(job.id)
    assert (held.state, held.deaths, (held.error or {})["kind"]) == (
        "held",
        MAX_DEATHS,
        "worker_unavailable",
    )
    assert agency.carry_out(agency.service.release(job.id)).state == "succeeded"
    assert agency.plain.most_paid == 1


def test_what_another_job_lets_go_of_just_now_is_kept_again(
    agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, gone = agency.store.assets.put_file, [1, 1]

    def raced(path: Path, kind: str, *, link: bool = False) -> Any:
        asset = put(path, kind, link=link)
        if kind == "video" and gone:
            gone.pop()
            agency.store.assets.discard(asset.digest)
        return asset

    monkeypatch.setattr(agency.store.assets, "put_file", raced)
    job = agency.make()
    assert (job.state, job.error, gone) == ("succeeded", None, [])
