"""What is tried when an attempt failed: another backend, other words, or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fakes.plain import PlainService, offer, write_card
from kinoloom.backends.base import RemoteStatus
from kinoloom.config import Settings
from kinoloom.config_sections import BudgetSettings, FallbackSettings, RewordSettings
from kinoloom.errors import (
    BudgetExceeded,
    ContentRejected,
    InvalidMedia,
    KinoloomError,
    QuotaExceeded,
    Uncertain,
)
from kinoloom.jobs import job_run, recovery, remote_take
from kinoloom.planner.plan import Plan
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store
from unit.jobs.elsewhere import Agency

HALF = Decimal("0.5")
REFUSED = RemoteStatus("failed", error=ContentRejected("Not these words."), charged=Decimal(0))
Open = Callable[..., Agency]


@pytest.fixture
def opened(
    tmp_path: Path, tiny_cards: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Open]:
    """A function that opens an agency of three services: plain, other and gratis."""
    monkeypatch.setattr(job_run, "_PAUSE", 0.0)
    monkeypatch.setattr(remote_take, "_FIRST_PAUSE", 0.0)
    for name in ("ARRIVAL_SECONDS", "SENDING_SECONDS"):
        monkeypatch.setattr(remote_take, name, 0.0)
    agencies: list[Agency] = []

    def opening(*, rewording: bool = True, **given: Any) -> Agency:
        cards = tmp_path / "cards"
        cards.mkdir()
        write_card(cards, rewording=rewording)
        write_card(cards, "other")
        write_card(cards, "gratis", price="price: free")
        services = {name: PlainService() for name in ("plain", "other", "gratis")}
        offer(monkeypatch, **services)
        values: dict[str, Any] = {
            "fallback": FallbackSettings(chain=("plain", "other", "gratis")),
            "budgets": BudgetSettings(day=Decimal(10)),
        }
        settings = Settings(
            home=tmp_path / "home",
            models=cards,
            device="cpu",
            outputs=tmp_path / "out",
            **values | given,
        )
        agencies.append(Agency(settings, store, services))
        return agencies[-1]

    yield opening
    for agency in agencies:
        agency.service.close()


def failing(agency: Agency, error: KinoloomError, *names: str) -> None:
    for name in names or ("plain",):
        agency.services[name].answers.append(error)


def made_by(agency: Agency, job: JobRecord) -> str:
    clip = agency.store.clips.get(job.id)
    assert clip is not None
    return clip.backend


def test_the_next_backend_makes_it_and_the_clip_says_so(opened: Open) -> None:
    agency = opened()
    failing(agency, QuotaExceeded("No credit."))
    job = agency.make()
    assert (job.state, job.error, job.backend, job.model) == ("succeeded", None, "other", "other-1")
    clip = agency.store.clips.get(job.id)
    assert clip is not None
    assert (clip.backend, clip.model, clip.seed, clip.cost) == ("other", "other-1", 7, HALF)
    first, second = clip.attempts
    assert (first["backend"], first["error"]["kind"], first["charged"]) == (
        "plain",
        "quota_exceeded",
        "0",
    )
    assert (second["backend"], second["error"], second["charged"]) == ("other", None, "0.5")
    assert [a["call"] for a in clip.attempts] == [c.id for c in agency.calls(job)]
    assert "plain-1 on plain failed: No credit." in clip.warnings
    assert any("Going on with other-1 on other (0.50 USD)" in line for line in agency.logs(job))
    # What was asked is as it was.
    assert Plan.model_validate(job.plan).request.model == "plain-1"


def test_the_chain_goes_on_to_its_end(opened: Open) -> None:
    agency = opened()
    failing(agency, QuotaExceeded("No credit."), "plain", "other", "gratis")
    job = agency.make()
    assert (job.state, (job.error or {})["kind"]) == ("failed", "quota_exceeded")
    assert [c.backend for c in agency.calls(job)] == ["plain", "other", "gratis"]
    # Asked again, the last one makes it, and nothing that was tried is forgotten.
    done = agency.carry_out(agency.service.retry(job.id))
    clip = agency.store.clips.get(job.id)
    assert clip is not None
    assert (done.state, made_by(agency, job), len(clip.attempts)) == ("succeeded", "gratis", 4)


def test_without_a_budget_only_what_is_free_is_tried(opened: Open) -> None:
    agency = opened(budgets=BudgetSettings())
    failing(agency, QuotaExceeded("No credit."))
    assert made_by(agency, agency.make()) == "gratis"


def test_a_highest_cost_is_consent_too(opened: Open) -> None:
    agency = opened(budgets=BudgetSettings())
    failing(agency, QuotaExceeded("No credit."))
    assert made_by(agency, agency.make(max_cost=Decimal(1))) == "other"


def test_what_the_budget_does_not_cover_is_passed_over(opened: Open) -> None:
    agency = opened(budgets=BudgetSettings(day=Decimal("0.7")))
    # The failed one was charged, so the next that costs does not fit.
    agency.plain.looks = [RemoteStatus("failed", error=QuotaExceeded("No."), charged=HALF)]
    agency.services["gratis"].looks = [RemoteStatus("succeeded", charged=Decimal(0))]
    job = agency.make()
    assert (job.state, made_by(agency, job), job.cost) == ("succeeded", "gratis", HALF)
    clip = agency.store.clips.get(job.id)
    assert clip is not None
    kinds = [(a["error"] or {}).get("kind") for a in clip.attempts]
    assert kinds == ["quota_exceeded", "budget_exceeded", None]


@pytest.mark.parametrize("how", ["request", "settings", "kind", "rejected"])
def test_nothing_is_tried_without_consent(opened: Open, how: str) -> None:
    rule = FallbackSettings(chain=("plain", "other", "gratis"), enabled=how != "settings")
    agency = opened(fallback=rule)
    errors = {"kind": InvalidMedia("Too dark."), "rejected": ContentRejected("No.")}
    failing(agency, errors.get(how, QuotaExceeded("No credit.")))
    job = agency.make(**({"fallback": False} if how == "request" else {}))
    assert (job.state, len(agency.calls(job))) == ("failed", 1)


def test_rejected_content_goes_elsewhere_only_if_asked(opened: Open) -> None:
    rule = FallbackSettings(chain=("plain", "other"), after_rejection=True)
    agency = opened(fallback=rule)
    failing(agency, ContentRejected("No."))
    assert made_by(agency, agency.make()) == "other"


def test_nothing_else_is_tried_while_an_order_may_be_there(opened: Open) -> None:
    agency = opened()
    agency.plain.findable = False
    agency.plain.answers.append(("accepted", Uncertain("No answer.")))
    job = agency.make()
    assert (job.state, [c.backend for c in agency.calls(job)]) == ("held", ["plain"])
    agency.plain.looks = [KinoloomError("What?")] * 5
    again = agency.carry_out(agency.service.resolve(job.id, remote_id="remote-1"))
    assert (again.state, [c.backend for c in agency.calls(job)]) == ("held", ["plain"])


def test_whoever_dies_after_a_decision_goes_on_with_it(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    agency = opened()
    failing(agency, QuotaExceeded("No credit."))
    job = agency.submit()

    def die(*_: object) -> None:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(job_run.JobRun, "keep_plan", die)
        with pytest.raises(SystemExit):
            agency.carry_out(job)
    assert agency.service.get(job.id).backend == "plain"
    done = agency.carry_out(agency.revived(job))
    assert (done.state, done.backend) == ("succeeded", "other")
    assert [c.backend for c in agency.calls(job)] == ["plain", "other"]


# --- several takes ------------------------------------------------------------------------------


def test_of_several_takes_each_is_paid_and_the_best_is_kept(opened: Open) -> None:
    agency = opened()
    agency.child.overall = lambda frames: 0.9 if frames.endswith("8") else 0.2
    job = agency.make(candidates=3)
    clip = agency.store.clips.get(job.id)
    assert clip is not None
    assert (job.state, clip.seed, clip.cost, len(clip.takes)) == ("succeeded", 8, HALF * 3, 3)
    assert [o.take.seed for o in agency.plain.orders.values()] == [7, 8, 9]


def test_a_take_that_fails_after_others_ends_with_those(opened: Open) -> None:
    agency = opened()
    agency.plain.answers.extend([None, QuotaExceeded("No credit.")])
    job = agency.submit(candidates=3)
    assert agency.states(job) == ["new", "new", "new"]
    done = agency.carry_out(job)
    clip = agency.store.clips.get(job.id)
    assert clip is not None
    assert (done.state, clip.backend, clip.cost) == ("succeeded", "plain", HALF)
    assert "1 of 3 takes were made: No credit." in clip.warnings
    # What was set aside for the third is free again.
    assert agency.states(job) == ["succeeded", "failed", "released"]


def test_all_takes_are_set_aside_before_the_first(opened: Open) -> None:
    agency = opened(budgets=BudgetSettings(clip=Decimal("1.2")))
    with pytest.raises(BudgetExceeded):
        agency.submit(candidates=3)
    assert agency.service.list() == []
    assert agency.store.remote_calls.spent() == 0
    assert agency.make(candidates=2).state == "succeeded"


def test_a_budget_of_the_day_counts_what_others_reserved(opened: Open) -> None:
    agency = opened(budgets=BudgetSettings(day=Decimal("0.9")))
    first = agency.submit()
    with pytest.raises(BudgetExceeded, match="today"):
        agency.submit(seed=8)
    agency.service.cancel(first.id)
    assert agency.make(seed=9).state == "succeeded"


def test_a_clip_that_is_there_costs_nothing(opened: Open) -> None:
    agency = opened(budgets=BudgetSettings(day=Decimal("0.5")))
    first = agency.make()
    again = agency.make()
    assert (again.state, again.reused, again.clip_id) == ("succeeded", True, first.clip_id)
    assert agency.states(again) == []


# --- other words --------------------------------------------------------------------------------


@pytest.fixture
def reworder(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int, str]]:
    """What is asked to be reworded; the words get a number."""
    asked: list[tuple[str, int, str]] = []

    class Reworder:
        def __init__(self, settings: Settings) -> None:
            pass

        def reword(self, prompt: str, attempt: int, reason: str) -> str | None:
            asked.append((prompt, attempt, reason))
            return f"a blue ball {attempt}"

    monkeypatch.setattr(recovery, "Reworder", Reworder)
    return asked


def test_rejected_words_are_changed_if_asked(
    opened: Open, reworder: list[tuple[str, int, str]]
) -> None:
    agency = opened(reword=RewordSettings(enabled=True))
    failing(agency, ContentRejected("No.", cause="It shows a ball."))
    job = agency.make()
    assert (job.state, reworder) == ("succeeded", [("a red ball", 1, "It shows a ball.")])
    clip = agency.store.clips.get(job.id)
    assert clip is not None
    first, second = clip.attempts
    assert (first["prompt"], first["reworded"]) == ("a red ball", "a blue ball 1")
    assert second["error"] is None
    assert [o.take.prompt for o in agency.plain.orders.values()] == ["a blue ball 1"]
    assert clip.prompt == "a red ball"  # as it was asked
    assert any("a blue ball 1" in warning for warning in clip.warnings)
    # It is another clip than the one that was asked for, so that is not found in its place.
    assert agency.make(cache="use").reused is False


def test_words_are_changed_twice_at_most(
    opened: Open, reworder: list[tuple[str, int, str]]
) -> None:
    agency = opened()
    agency.plain.looks = [REFUSED]
    job = agency.make(reword=True)
    assert (job.state, (job.error or {})["kind"]) == ("failed", "content_rejected")
    assert [(prompt, n) for prompt, n, _ in reworder] == [("a red ball", 1), ("a blue ball 1", 2)]
    assert len(agency.calls(job)) == 3


@pytest.mark.parametrize("how", ["unasked", "request", "forbidden"])
def test_words_stay_where_nobody_asked_or_the_service_forbids(
    opened: Open, reworder: list[tuple[str, int, str]], how: str
) -> None:
    enabled = RewordSettings(enabled=how != "unasked")
    agency = opened(rewording=how != "forbidden", reword=enabled)
    failing(agency, ContentRejected("No."))
    job = agency.make(**({"reword": False} if how == "request" else {}))
    assert (job.state, reworder) == ("failed", [])
