"""Is every paid clip charged once and delivered once, whoever is killed while it is made?"""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from acceptance.paid import PaidChaos
from acceptance.stage import Stage
from fakes import replicate
from fakes.runway import KEY, FakeRunway
from fakes.service import Fault
from kinoloom.request import VideoRequest

pytestmark = [pytest.mark.slow]

JOBS = int(os.environ.get("PAID_JOBS", "200"))
KILLS = int(os.environ.get("PAID_KILLS", "10"))
FEWER = max(1, JOBS // 10), max(1, KILLS // 5)
"""Jobs and kills where whoever goes on waits for over a minute until an order cannot arrive any
more that somebody else may have sent."""


@pytest.fixture
def seed() -> int:
    """Of the moments and of who is killed; CHAOS_SEED repeats those of a run that failed."""
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    print(f"CHAOS_SEED={seed}")
    return seed


class Runway(FakeRunway):
    """Runway, which tells when something happens to it."""

    def __init__(self) -> None:
        self.at: Callable[[str], None] = lambda _moment: None
        super().__init__()
        # Whoever is killed leaves a connection that is reset.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]

    @property
    def video(self) -> bytes:
        """Read once for each download."""
        self.at("download")
        return self._video

    @video.setter
    def video(self, video: bytes) -> None:
        self._video = video

    def accept(self, body: dict[str, Any]) -> Any:
        self.at("order")
        task = super().accept(body)
        self.at("ordered")
        return task

    def look(self, task: Any) -> dict[str, Any]:
        self.at("look")
        return super().look(task)

    def faulty(self, luck: random.Random) -> Fault:
        busy = Fault(False, 429, {"error": "Too many requests."}, {"Retry-After": "0"})
        broken = Fault(luck.random() < 0.5, 500, {"error": "Internal error."})
        return luck.choice([busy, broken, Fault(True), Fault(False)])

    def order_of(self, prompt: str) -> str | None:
        with self.lock:
            return next((t.id for t in self.tasks.values() if t.prompt == prompt), None)

    def charged(self) -> Decimal:
        return Decimal(sum(task.credits for task in self.tasks.values())) / 100


def test_paid_jobs_of_a_service_that_cannot_be_asked_for_an_order(
    tmp_path: Path, chaos_cards: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Runway() as runway:
        monkeypatch.setenv("RUNWAYML_API_SECRET", KEY)
        monkeypatch.setenv("RUNWAYML_BASE_URL", runway.url)
        with Stage(tmp_path, chaos_cards, ttl=2) as stage:
            print(PaidChaos(stage, runway, "runway-gen4.5", seed).run(JOBS, KILLS))


class Replicate(replicate.FakeReplicate):
    """Replicate, which tells when something happens to it."""

    def __init__(self) -> None:
        self.at: Callable[[str], None] = lambda _moment: None
        self.price = Decimal(0)
        super().__init__()
        self.states = ("processing:45", "succeeded")
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]

    @property
    def video(self) -> bytes:
        """Read once for each download."""
        self.at("download")
        return self._video

    @video.setter
    def video(self, video: bytes) -> None:
        self._video = video

    def accept(self, model: str, body: dict[str, Any], lifetime: float | None) -> Any:
        self.at("order")
        prediction = super().accept(model, body, lifetime)
        self.at("ordered")
        return prediction

    def look(self, one: Any) -> dict[str, Any]:
        self.at("look")
        return super().look(one)

    def faulty(self, luck: random.Random) -> Fault:
        busy = Fault(False, 429, {"detail": "Slowly."}, {"Retry-After": "0"})
        return luck.choice([busy, Fault(True), Fault(False)])

    def order_of(self, prompt: str) -> str | None:
        with self.lock:
            found = (p.id for p in self.predictions.values() if p.input.get("prompt") == prompt)
            return next(found, None)

    def charged(self) -> Decimal:
        return self.price * self.bill.total()


def test_paid_jobs_of_a_service_that_can_be_asked(
    tmp_path: Path, chaos_cards: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Replicate() as service:
        monkeypatch.setenv("REPLICATE_API_TOKEN", replicate.TOKEN)
        monkeypatch.setenv("REPLICATE_BASE_URL", service.url)
        with Stage(tmp_path, chaos_cards, ttl=2) as stage:
            model = "replicate-kling-v2.5-turbo-pro"
            cost = stage.service.plan(VideoRequest(prompt="a price", model=model)).cost
            assert cost.amount is not None
            service.price = cost.amount
            print(PaidChaos(stage, service, model, seed).run(*FEWER))
