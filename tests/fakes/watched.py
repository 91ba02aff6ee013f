"""Which fakes of services tell of each moment at which somebody could be killed?"""

from __future__ import annotations

import random
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from fakes.replicate import FakeReplicate, Prediction
from fakes.runway import FakeRunway, Task
from fakes.service import Fault


class WatchedRunway(FakeRunway):
    """Runway, which calls `at` with a moment when it comes."""

    def __init__(self) -> None:
        self.at: Callable[[str], None] = lambda _moment: None
        super().__init__()
        # Whoever is killed leaves a connection that is reset.
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]

    def video_of(self, task: Task) -> bytes:
        self.at("download")
        return super().video_of(task)

    def accept(self, body: dict[str, Any]) -> Task:
        self.at("order")
        task = super().accept(body)
        self.at("ordered")
        return task

    def look(self, task: Task) -> dict[str, Any]:
        self.at("look")
        return super().look(task)

    def faulty(self, luck: random.Random) -> Fault:
        """A fault of the next create."""
        busy = Fault(False, 429, {"error": "Too many requests."}, {"Retry-After": "0"})
        broken = Fault(luck.random() < 0.5, 500, {"error": "Internal error."})
        return luck.choice([busy, broken, Fault(True), Fault(False)])

    def order_of(self, prompt: str, seed: int, seconds: float) -> str | None:
        """The id of the order with these words, this seed and this length."""
        wanted = (prompt, seed, round(seconds))
        with self.lock:
            asked = {
                t.id: (t.prompt, t.body["seed"], t.body["duration"]) for t in self.tasks.values()
            }
        return next((id_ for id_, values in asked.items() if values == wanted), None)

    def charged(self) -> Decimal:
        """What all orders cost, in dollars."""
        return Decimal(sum(task.credits for task in self.tasks.values())) / 100


class WatchedReplicate(FakeReplicate):
    """Replicate, which calls `at` with a moment when it comes. A prediction costs `price`."""

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

    def accept(self, model: str, body: dict[str, Any], lifetime: float | None) -> Prediction:
        self.at("order")
        prediction = super().accept(model, body, lifetime)
        self.at("ordered")
        return prediction

    def look(self, one: Prediction) -> dict[str, Any]:
        self.at("look")
        return super().look(one)

    def faulty(self, luck: random.Random) -> Fault:
        """A fault of the next create."""
        busy = Fault(False, 429, {"detail": "Slowly."}, {"Retry-After": "0"})
        return luck.choice([busy, Fault(True), Fault(False)])

    def order_of(self, prompt: str, seed: int, seconds: float) -> str | None:
        """The id of the order with these words; its models take no seed."""
        with self.lock:
            found = (p.id for p in self.predictions.values() if p.input.get("prompt") == prompt)
            return next(found, None)

    def charged(self) -> Decimal:
        """What all orders cost, in dollars."""
        return self.price * self.bill.total()
