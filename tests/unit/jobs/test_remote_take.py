"""Is a clip that a service makes ordered once, whoever is busy, silent or just sending?"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from PIL import Image

from kinoloom.backends.base import Order, RemoteStatus
from kinoloom.errors import KinoloomError, NetworkFailed, NotAuthenticated, RateLimited
from kinoloom.jobs import remote_take
from kinoloom.jobs.takes import take_of
from kinoloom.planner.plan import Plan
from kinoloom.store.job_record import JobRecord
from unit.jobs.elsewhere import LOST, MONEY, RUNNING, Agency


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
