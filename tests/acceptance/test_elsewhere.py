"""Does somebody who uses a paid service for the first time get a video, or the right advice?"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest

from acceptance.command import Ended, User
from fakes import google, replicate, runway
from fakes.google import FakeGoogle
from fakes.replicate import FakeReplicate
from fakes.runway import Failure, FakeRunway
from kinoloom.media.images import save_png

PROMPT = "a fox in the snow"
RUNWAY = ("generate", PROMPT, "--model", "runway-gen4.5", "--duration", "2")


@pytest.fixture
def service(user: User) -> Iterator[FakeRunway]:
    """Runway, and the user's key for it."""
    with FakeRunway() as fake:
        user.environment |= {
            "RUNWAYML_API_SECRET": runway.KEY,
            "RUNWAYML_BASE_URL": fake.url,
        }
        yield fake


def ended(user: User, *arguments: str | Path) -> Ended:
    done = user.run(*arguments)
    assert runway.KEY not in done.out + done.err
    assert "Traceback" not in done.out + done.err
    return done


def spent(user: User) -> Decimal:
    rows = json.loads(ended(user, "costs", "--json").succeeded().out)["rows"]
    return sum((Decimal(row["charged"]) for row in rows), Decimal(0))


def test_a_first_video_says_what_it_cost(user: User, service: FakeRunway) -> None:
    plan = ended(user, "plan", PROMPT, "--model", "runway-gen4.5", "--duration", "2").succeeded()
    assert "0.24 USD" in plan.out
    assert not service.bill
    done = ended(user, *RUNWAY, "--json", "--seed", "7").succeeded()
    clip = done.events()[-1]["clip"]
    assert Path(clip["path"]).is_file()
    assert service.bill == {PROMPT: 1}
    assert spent(user) == Decimal("0.24")
    # The same again is there, and costs nothing more.
    again = ended(user, *RUNWAY, "--json", "--seed", "7").succeeded()
    assert again.events()[-1]["reused"]
    assert service.bill == {PROMPT: 1}


def test_without_a_key_it_says_which_variable(user: User) -> None:
    found = ended(user, *RUNWAY).failed("authentication")
    assert "RUNWAYML_API_SECRET" in found.err
    told = ended(user, "backends").succeeded().out
    assert "RUNWAYML_API_SECRET" in told


def test_a_wrong_key_costs_nothing(user: User, service: FakeRunway) -> None:
    user.environment["RUNWAYML_API_SECRET"] = "key_of_somebody_else_987654"
    found = ended(user, *RUNWAY).failed("authentication")
    assert "key_of_somebody_else" not in found.err
    assert spent(user) == 0


def test_no_credit_is_told_as_such(user: User, service: FakeRunway) -> None:
    service.answer_create(400, {"error": "You do not have enough credits to run this task."})
    ended(user, *RUNWAY).failed("quota_exceeded")
    assert spent(user) == 0


def test_what_is_more_than_allowed_is_never_sent(user: User, service: FakeRunway) -> None:
    found = ended(user, *RUNWAY, "--max-cost", "0.23").failed("budget_exceeded")
    assert "0.24 USD" in found.err
    (user.folder / "kinoloom.yaml").write_text("budgets: {day: 0.30}\n")
    ended(user, *RUNWAY, "--seed", "1").succeeded()
    found = ended(user, *RUNWAY, "--seed", "2").failed("budget_exceeded")
    assert "day" in found.err
    assert sum(service.bill.values()) == 1


def test_a_price_that_nobody_knows_needs_a_yes(user: User, service: FakeRunway) -> None:
    asked = ("generate", PROMPT, "--model", "runway-wan-3", "--seed", "1")
    ended(user, *asked).failed("invalid_params", code=2)
    assert not service.bill
    ended(user, *asked, "--unknown-price").succeeded()
    assert service.bill == {PROMPT: 1}


def test_rejected_words_are_neither_repeated_nor_passed_on(user: User, service: FakeRunway) -> None:
    service.failures[PROMPT] = Failure("SAFETY.INPUT.TEXT", "The prompt was rejected.", False)
    (user.folder / "kinoloom.yaml").write_text("budgets: {day: 5}\nreword: {enabled: true}\n")
    found = ended(user, *RUNWAY).failed("content_rejected")
    assert "rejected" in found.err
    assert service.bill == {PROMPT: 1}  # which Runway does not give back
    assert spent(user) == Decimal("0.24")


def test_a_server_error_is_held_and_never_repeated(user: User, service: FakeRunway) -> None:
    service.answer_create(500, {"error": "oops"}, accepted=True)
    found = ended(user, *RUNWAY, "--seed", "3").failed("uncertain")
    assert "jobs resolve" in found.err
    assert service.bill == {PROMPT: 1}
    held = json.loads(ended(user, "jobs", "list", "--json").succeeded().out)
    (job,) = held["jobs"] if isinstance(held, dict) else held
    assert job["state"] == "held"
    # The user looks it up at the service, and says what is there.
    (task,) = service.tasks
    ended(user, "jobs", "resolve", job["id"], "--remote-id", task).succeeded()
    ended(user, *RUNWAY, "--seed", "3").succeeded()
    assert service.bill == {PROMPT: 1}


def test_a_clip_longer_than_the_model_makes_is_said_before(user: User, service: FakeRunway) -> None:
    asked = ("generate", PROMPT, "--model", "runway-gen4.5", "--duration", "60", "--dry-run")
    found = ended(user, *asked).succeeded()
    assert "duration: 60.0 -> 10.0" in found.out + found.err
    assert "1.20 USD" in found.out + found.err


def test_a_4k_picture_is_made_to_fit(user: User, service: FakeRunway) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (2160, 3840, 3), np.uint8)
    save_png(user.folder / "large.png", noise)  # 25 MB, more than any address of data may hold
    ended(user, *RUNWAY, "--image", "large.png").succeeded()
    (task,) = service.tasks.values()
    assert task.body["promptImage"]
    assert service.bill == {PROMPT: 1}


def test_a_retired_model_names_its_successor(user: User) -> None:
    found = ended(user, "generate", PROMPT, "--model", "google-omni-flash-preview")
    assert "google-omni-1" in found.failed("provider_retired").err


def test_a_region_that_is_blocked_falls_back_only_within_the_budget(user: User) -> None:
    """Google refuses the region; Replicate does it, once there is a budget for it."""
    with FakeGoogle() as first, FakeReplicate() as second:
        user.environment |= {
            "GEMINI_API_KEY": google.KEY,
            "GOOGLE_GEMINI_BASE_URL": first.url,
            "REPLICATE_API_TOKEN": replicate.TOKEN,
            "REPLICATE_BASE_URL": second.url,
        }
        blocked = {
            "error": {
                "code": 400,
                "status": "FAILED_PRECONDITION",
                "message": "User location is not supported for the API use.",
            }
        }
        asked = ("generate", PROMPT, "--model", "google-omni-1.2-flash", "--seed", "5", "--json")
        first.answer_create(400, blocked)
        refused = ended(user, *asked)
        assert refused.code == 1
        assert refused.events()[-1]["error"]["kind"] == "forbidden"
        assert not second.bill
        (user.folder / "kinoloom.yaml").write_text("budgets: {clip: 10}\n")
        first.answer_create(400, blocked)
        done = ended(user, *asked).succeeded()
        clip = done.events()[-1]["clip"]
        assert clip["backend"] == "replicate"
        assert [a["backend"] for a in clip["attempts"]] == ["google", "replicate"]
        assert second.bill == {PROMPT: 1}
        assert not first.bill
