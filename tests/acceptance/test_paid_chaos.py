"""Is every paid clip charged once and delivered once, whoever is killed while it is made?"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from acceptance.paid import PaidChaos
from acceptance.stage import Stage
from fakes.replicate import TOKEN
from fakes.runway import KEY
from fakes.watched import WatchedReplicate, WatchedRunway
from kinoloom.request import VideoRequest

pytestmark = [pytest.mark.slow]

JOBS = int(os.environ.get("PAID_JOBS", "200"))
KILLS = int(os.environ.get("PAID_KILLS", "10"))
FEWER = max(1, JOBS // 10), max(1, KILLS // 5)
"""Jobs and kills where whoever goes on looks for half a minute at least for an order that somebody
else may have sent, or that got no answer."""


@pytest.fixture
def seed() -> int:
    """Of the moments and of who is killed; CHAOS_SEED repeats those of a run that failed."""
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    print(f"CHAOS_SEED={seed}")
    return seed


def test_paid_jobs_of_a_service_that_cannot_be_asked_for_an_order(
    tmp_path: Path, chaos_cards: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WatchedRunway() as runway:
        monkeypatch.setenv("RUNWAYML_API_SECRET", KEY)
        monkeypatch.setenv("RUNWAYML_BASE_URL", runway.url)
        with Stage(tmp_path, chaos_cards, ttl=2) as stage:
            print(PaidChaos(stage, runway, "runway-gen4.5", seed).run(JOBS, KILLS))


def test_paid_jobs_of_a_service_that_can_be_asked(
    tmp_path: Path, chaos_cards: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with WatchedReplicate() as service:
        monkeypatch.setenv("REPLICATE_API_TOKEN", TOKEN)
        monkeypatch.setenv("REPLICATE_BASE_URL", service.url)
        with Stage(tmp_path, chaos_cards, ttl=2) as stage:
            model = "replicate-kling-v2.5-turbo-pro"
            cost = stage.service.plan(VideoRequest(prompt="a price", model=model)).cost
            assert cost.amount is not None
            service.price = cost.amount
            print(PaidChaos(stage, service, model, seed).run(*FEWER))
