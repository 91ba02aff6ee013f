"""One take of a service: handed in once, whatever happens, looked at, fetched and paid."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from decimal import Decimal
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from fakes.plain import PlainService, offer, write_card
from kinoloom.backends.base import Order, RemoteStatus
from kinoloom.config import Settings
from kinoloom.errors import (
    InvalidMedia,
    KinoloomError,
    NetworkFailed,
    NotAuthenticated,
    NotFound,
    OutputFailed,
    RateLimited,
    Uncertain,
)
from kinoloom.jobs import job_run, remote_take
from kinoloom.jobs.dead import MAX_DEATHS, hand_back
from kinoloom.jobs.remote_end import end_left_orders
from kinoloom.jobs.takes import take_of
from kinoloom.planner.plan import Plan
from kinoloom.store.jobs import JobRecord
from kinoloom.store.store import Store
from unit.jobs.elsewhere import Agency

LOST = Uncertain("The service did not answer, and may have taken the order.")
MONEY = Decimal("0.5")
SUCCESS = RemoteStatus("succeeded", charged=MONEY)
RUNNING = RemoteStatus("running")


@pytest.fixture
def agency(
    tmp_path: Path, tiny_cards: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Agency]:
    monkeypatch.setattr(job_run, "_PAUSE", 0.0)
    monkeypatch.setattr(remote_take, "_FIRST_PAUSE", 0.0)
    for name in ("ARRIVAL_SECONDS", "SENDING_SECONDS", "FIND_SECONDS"):
        monkeypatch.setattr(remote_take, name, 0.0)
    cards = tmp_path / "cards"
    cards.mkdir()
    write_card(cards)
    service = PlainService()
    offer(monkeypatch, plain=service)
    settings = Settings(
        home=tmp_path / "home", models=cards, device="cpu", outputs=tmp_path / "out"
    )
    opened = Agency(settings, store, {"plain": service})
    yield opened
    opened.service.close()


def test_a_clip_is_ordered_watched_fetched_and_paid(agency: Agency) -> None:
    job = agency.submit()
    assert (job.queue, job.state, agency.states(job)) == ("api", "queued", ["new"])
    done = agency.carry_out(job)
    assert (done.state, done.error, done.cost, done.currency) == ("succeeded", None, MONEY, "USD")
    (call,) = agency.calls(job)
    assert (call.state, call.charged, call.endpoint) == ("succeeded", MONEY, "east")
    assert agency.plain.most_paid == 1
    assert agency.video(job) == f"mp4 {job.id}: video of a red ball, seed 7"
    clip = agency.store.clips.get(job.id)
    assert clip is not None
    assert (clip.cost, clip.currency, clip.backend, clip.model) == (
        MONEY,
        "USD",
        "plain",
        "plain-1",
    )
    assert clip.versions["plain"] == "1"
    assert "placement" not in clip.versions
    assert set(clip.timings) == {"render", "fetch", "total"}
    assert [(a["call"], a["error"], a["charged"]) for a in clip.attempts] == [
        (call.id, None, "0.5")
    ]
    assert "It was made in the tests." in clip.warnings
    # Nothing is learnt of this machine, and nothing but the clip and its picture is kept.
    assert agency.assets() == ["clip", "poster"]
    assert agency.child.calls == ["probe", "score", "poster", "encode"]


def test_what_the_service_says_is_told(agency: Agency) -> None:
    agency.make()
    told = [
        m for m in agency.told if m["type"] == "progress" and m["phase"] in ("queued", "render")
    ]
    assert told[0] | {"elapsed": 0} == {
        "type": "progress",
        "phase": "queued",
        "step": 0,
        "steps": 0,
        "elapsed": 0,
        "eta": None,
        "take": 1,
        "takes": 1,
        "detail": "plain 2nd in line",
    }
    assert (told[1]["phase"], told[1]["step"], told[1]["steps"]) == ("render", 50, 100)
    assert [m["type"] for m in agency.told].count("preview") == 1
    assert "fetch" in [m.get("phase") for m in agency.told]
    # The second time it is known how long it takes.
    agency.told.clear()
    agency.make(seed=8)
    etas = [m["eta"] for m in agency.told if m.get("phase") == "render"]
    assert len(etas) == 1
    assert etas[0] is not None


def test_pictures_are_made_fit_and_sent(agency: Agency, tmp_path: Path) -> None:
    Image.new("RGB", (80, 60), "red").save(tmp_path / "first.png")
    job = agency.make(image=tmp_path / "first.png")
    assert (job.state, job.error) == ("succeeded", None)
    (order,) = agency.plain.orders.values()
    assert list(order.inputs) == ["image"]
    assert agency.child.calls[0] == "fit"


def test_what_differs_from_the_plan_is_said(agency: Agency) -> None:
    agency.plain.looks = [RemoteStatus("succeeded", charged=Decimal("0.75"), prompt="a red globe")]
    agency.child.video |= {"width": 96, "fps": 24.0, "frames": 25, "has_audio": True}
    job = agency.make()
    clip = agency.store.clips.get(job.id)
    assert clip is not None
    assert (clip.width, clip.height, clip.frames, clip.fps) == (96, 64, 25, 24.0)
    for said in (
        "asked 64x64, got 96x64",
        "asked 12 fps, got 24",
        "asked 12 frames, got 25",
        "it came with sound, which was not asked for",
        "plain made it from these words: a red globe",
        "plain charged 0.75 USD; expected was 0.50 USD",
    ):
        assert said in clip.warnings
    assert clip.cost == Decimal("0.75")


# --- handing it in ------------------------------------------------------------------------------


def test_a_service_that_is_busy_is_asked_again(agency: Agency) -> None:
    agency.plain.answers.extend([RateLimited("Slowly.", retry_after=0.0), NetworkFailed("Gone.")])
    job = agency.make()
    assert (job.state, agency.states(job)) == ("succeeded", ["succeeded"])
    assert agency.plain.most_paid == 1
    assert agency.logs(job) == [
        "Slowly. It is tried again in 0 s.",
        "Gone. It is tried again in 0 s.",
    ]


def test_who_shall_wait_beyond_the_deadline_fails(agency: Agency) -> None:
    agency.plain.answers.append(RateLimited("Slowly.", retry_after=10_000.0))
    job = agency.make()
    assert (job.state, (job.error or {})["kind"]) == ("failed", "rate_limited")
    assert [(c.state, c.charged) for c in agency.calls(job)] == [("failed", Decimal(0))]


def test_a_service_that_cannot_be_reached_is_given_up(agency: Agency) -> None:
    agency.plain.answers.extend([NetworkFailed("Gone.")] * remote_take.SUBMITS)
    job = agency.make()
    assert (job.state, (job.error or {})["kind"]) == ("failed", "network_error")
    assert agency.plain.bill == {}


def test_a_definite_error_ends_the_job_and_a_retry_reserves_anew(agency: Agency) -> None:
    agency.plain.answers.append(NotAuthenticated("The key is wrong."))
    failed = agency.make()
    assert (failed.state, (failed.error or {})["kind"]) == ("failed", "authentication")
    waiting = agency.service.retry(failed.id)
    assert (waiting.state, agency.states(failed)) == ("queued", ["failed", "new"])
    done = agency.carry_out(waiting)
    assert (done.state, done.cost) == ("succeeded", MONEY)
    clip = agency.store.clips.get(failed.id)
    assert clip is not None
    kinds = [(a["error"] or {}).get("kind") for a in clip.attempts]
    assert kinds == ["authentication", None]


@pytest.mark.parametrize("accepted", [True, False])
def test_an_order_without_an_answer_is_looked_for(agency: Agency, accepted: bool) -> None:
    agency.plain.answers.append(("accepted", LOST) if accepted else LOST)
    job = agency.make()
    assert (job.state, agency.states(job)) == ("succeeded", ["succeeded"])
    assert agency.plain.most_paid == 1


def test_a_mistake_in_a_backend_counts_as_no_answer(agency: Agency) -> None:
    agency.plain.answers.append(("accepted", ValueError("surprise")))
    agency.plain.findable = False
    job = agency.make()
    assert (job.state, (job.error or {})["kind"]) == ("held", "uncertain")
    assert "ValueError" in (job.error or {})["cause"]


@pytest.mark.parametrize("accepted", [True, False])
def test_what_nobody_knows_is_held_until_the_user_says(agency: Agency, accepted: bool) -> None:
    agency.plain.findable = False
    agency.plain.answers.append(("accepted", LOST) if accepted else LOST)
    held = agency.make()
    assert (held.state, held.run, held.worker) == ("held", 2, None)
    assert (held.error or {})["kind"] == "uncertain"
    assert f"kinoloom jobs resolve {held.id}" in " ".join((held.error or {})["hints"])
    assert [kind for kind, _ in agency.events(held)].count("error") == 1
    assert agency.states(held) == ["uncertain"]
    # Released it is asked again, and held again.
    again = agency.carry_out(agency.service.release(held.id))
    assert (again.state, agency.states(held)) == ("held", ["uncertain"])
    number = next(iter(agency.plain.tickets), None)
    go = agency.service.resolve(held.id, remote_id=number, not_accepted=not accepted)
    assert (go.state, go.error) == ("queued", None)
    done = agency.carry_out(go)
    assert done.state == "succeeded"
    assert agency.plain.most_paid == 1
    with pytest.raises(KinoloomError, match="uncertain about"):
        agency.service.resolve(held.id, not_accepted=True)


def test_just_one_thing_is_said_of_an_order(agency: Agency) -> None:
    job = agency.submit()
    for said in ({}, {"remote_id": "x", "not_accepted": True}, {"remote_id": "x\n"}):
        with pytest.raises(KinoloomError) as raised:
            agency.service.resolve(job.id, **said)  # type: ignore[arg-type]
        assert raised.value.kind == "invalid_params"


def test_an_order_is_that_of_one_job(agency: Agency) -> None:
    agency.plain.findable = False
    done = agency.make()
    agency.plain.answers.append(("accepted", LOST))
    held = agency.make(cache="bypass")
    with pytest.raises(KinoloomError, match="remote-1 is that of another clip") as raised:
        agency.service.resolve(held.id, remote_id="remote-1")
    assert done.id in raised.value.cause
    assert agency.states(held) == ["uncertain"]
    agency.service.resolve(held.id, remote_id="remote-2")
    assert agency.states(held) == ["accepted"]


def test_an_uncertain_order_of_a_cancelled_job_is_resolved_too(agency: Agency) -> None:
    agency.plain.findable = False
    agency.plain.answers.append(("accepted", LOST))
    held = agency.make()
    agency.service.cancel(held.id)
    assert agency.states(held) == ["uncertain"]
    agency.plain.looks = [RUNNING]
    done = agency.service.resolve(held.id, remote_id="remote-1")
    assert (done.state, done.cost) == ("cancelled", Decimal("0.1"))
    assert agency.plain.cancels == ["remote-1"]


def test_a_service_that_does_not_answer_when_asked_holds_the_job(agency: Agency) -> None:
    agency.plain.answers.append(("accepted", LOST))
    agency.plain.finds.append(NetworkFailed("Gone."))
    job = agency.make()
    assert (job.state, (job.error or {})["kind"]) == ("held", "uncertain")
    assert agency.carry_out(agency.service.release(job.id)).state == "succeeded"
    assert agency.plain.most_paid == 1


def test_what_another_run_may_just_be_sending_is_not_sent_again(
    agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_take, "SENDING_SECONDS", 3600.0)
    job = agency.submit()
    (call,) = agency.calls(job)
    assert agency.store.remote_calls.send(call.id)  # and its answer is still to come
    stop_after_looks(agency, 3)
    agency.carry_out(job)
    assert agency.states(job) == ["sent"]
    # Once it is there, it is found.
    agency.watch.stopped, agency.plain.at = False, lambda _step: None
    agency.plain.orders[call.id] = Order(key=call.id, take=take_of(Plan.model_validate(job.plan)))
    agency.plain.tickets["remote-1"] = call.id
    assert agency.carry_out(agency.revived(job)).state == "succeeded"
    assert agency.plain.bill == {}


@pytest.mark.parametrize("over", [True, False])
def test_a_call_of_a_process_that_is_over_has_ended(
    agency: Agency, monkeypatch: pytest.MonkeyPatch, over: bool
) -> None:
    monkeypatch.setattr(remote_take, "SENDING_SECONDS", 3600.0)
    monkeypatch.setattr(remote_take, "process_mark", lambda: {"file": "theirs"})
    monkeypatch.setattr(remote_take, "has_ended", lambda mark: over and mark["file"] == "theirs")
    job = killed_while_sending(agency)
    stop_after_looks(agency, 3)
    now = agency.carry_out(agency.revived(job))
    assert (now.state, agency.states(job)) == (
        ("succeeded", ["succeeded"]) if over else ("running", ["sent"])
    )
    assert agency.plain.most_paid == over


def test_a_call_that_somebody_else_sent_again_is_not_over(
    agency: Agency, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_take, "SENDING_SECONDS", 3600.0)
    monkeypatch.setattr(remote_take, "has_ended", lambda _mark: True)  # of whoever was the first
    job = killed_while_sending(agency)
    (call,) = agency.calls(job)
    assert agency.store.remote_calls.unsend(call.id)
    assert agency.store.remote_calls.send(call.id)
    stop_after_looks(agency, 3)
    agency.carry_out(agency.revived(job))
    assert agency.states(job) == ["sent"]
    assert agency.plain.bill == {}


def killed_while_sending(agency: Agency) -> JobRecord:
    """A job whose process ended when it was about to hand in the order."""

    def die(step: str) -> None:
        if step == "submit":
            raise SystemExit

    agency.plain.at = die
    job = agency.submit()
    with pytest.raises(SystemExit):
        agency.carry_out(job)
    agency.plain.at = lambda _step: None
    assert agency.states(job) == ["sent"]
    return job


def stop_after_looks(agency: Agency, looks: int) -> None:
    """Let the next run be over once it has looked for its order so often."""
    steps: list[str] = []

    def look(step: str) -> None:
        steps.append(step)
        if steps.count("find done") == looks:
            agency.watch.stopped = True

    agency.plain.at = look


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
