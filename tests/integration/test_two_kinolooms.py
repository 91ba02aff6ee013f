"""One Kinoloom drives another over /v1/videos: a real server and worker, the shipped model."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from fakes.orders import order_of, png
from kinoloom.backends.base import Order, RemoteStatus, Ticket
from kinoloom.backends.openai.backend import OpenAIBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import NotFound
from kinoloom.media.reader import probe

pytestmark = [pytest.mark.model, pytest.mark.slow]

LIMIT = 300.0
"""Seconds after which the other Kinoloom counts as hung, on a machine however busy."""
QUICK = {"frames": 17, "steps": 8, "prompt": "a red ball rolling to the right on green grass"}


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the other Kinoloom serves its API; it ends after the tests."""
    place = tmp_path_factory.mktemp("other")
    kept = {k: v for k, v in os.environ.items() if not k.startswith("KINOLOOM_")}
    own = {"KINOLOOM_HOME": str(place / "home"), "XDG_CONFIG_HOME": str(place / "config")}
    log = place / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "kinoloom", "serve", "--port", "0"],
            cwd=place,
            env=kept | own | {"PYTHONUNBUFFERED": "1"},
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
    try:
        deadline = time.monotonic() + LIMIT
        while "http://" not in (text := log.read_text(encoding="utf-8")):
            assert process.poll() is None, f"the server ended:\n{text}"
            assert time.monotonic() < deadline, f"the server did not start:\n{text}"
            time.sleep(0.05)
        yield "http://" + text.partition("http://")[2].split()[0] + "/v1"
    finally:
        process.terminate()
        process.wait(LIMIT)


def made(address: str) -> tuple[OpenAIBackend, ModelCard]:
    """The backend of this Kinoloom, which knows the other as a server with the model spark."""
    model = {"model": "spark", "like": "spark", "price": "free"}
    server = {"url": address, "models": {"spark-there": model}}
    settings = Settings.model_validate({"backends": {"openai": {"other": server}}})
    backend = OpenAIBackend(settings)
    (card,) = backend.cards(Catalog.load())
    return backend, card


def followed(
    backend: OpenAIBackend, ticket: Ticket, card: ModelCard, *until: str
) -> list[RemoteStatus]:
    """What is seen of an order until it has one of these states."""
    deadline = time.monotonic() + LIMIT
    seen: list[RemoteStatus] = []
    while time.monotonic() < deadline:
        seen.append(backend.poll(ticket, card))
        if seen[-1].state in until:
            return seen
        threading.Event().wait(0.2)  # the server takes ten requests a second
    raise AssertionError(f"the order never was {' or '.join(until)}: {seen[-1]}")


def fields_of(address: str, ticket: Ticket) -> dict[str, Any]:
    """The plan with which the other Kinoloom made an order."""
    job = ticket.remote_id.removeprefix("video_")
    root = address.removesuffix("/v1")
    plan: dict[str, Any] = httpx.get(f"{root}/api/jobs/{job}").json()["plan"]
    return plan


def test_an_order_comes_back_as_it_was_asked_for(address: str, tmp_path: Path) -> None:
    backend, card = made(address)
    assert backend.readiness(card).ready
    order = order_of(card, seed=2**40 + 7, guidance=2.5, negative="a blue square", **QUICK)
    ticket = backend.submit(order, card)
    seen = followed(backend, ticket, card, "succeeded", "failed", "cancelled")
    assert seen[-1].state == "succeeded", seen[-1].error
    assert seen[-1].charged == Decimal(0)
    got = backend.fetch(ticket, card, tmp_path)
    assert got.notes == ()  # nothing was changed there
    video = probe(got.video)
    assert (video.width, video.height, video.frames, video.fps) == (256, 160, 17, 12)
    plan = fields_of(address, ticket)
    asked = order.take
    assert {name: plan[name] for name in ("seed", "steps", "guidance", "negative", "fps")} == {
        "seed": asked.seed,
        "steps": asked.steps,
        "guidance": asked.guidance,
        "negative": asked.negative,
        "fps": asked.fps,
    }


def test_a_picture_is_carried_along(address: str, tmp_path: Path) -> None:
    backend, card = made(address)
    picture = png(tmp_path / "first.png", 256, 160)
    order = order_of(card, "i2v", inputs={"image": picture}, **QUICK)
    ticket = backend.submit(order, card)
    assert followed(backend, ticket, card, "succeeded", "failed")[-1].state == "succeeded"
    assert fields_of(address, ticket)["task"] == "i2v"
    assert probe(backend.fetch(ticket, card, tmp_path).video).frames == 17


def test_an_order_whose_answer_was_lost_is_found_and_made_once(address: str) -> None:
    backend, card = made(address)
    order = order_of(card, seed=11, **QUICK)
    never = Order("0b0c6f0e-0000-4000-8000-000000000000", order.take)
    ticket = backend.submit(order, card)
    assert backend.find(order, card) == ticket
    assert backend.find(never, card) is None
    assert backend.submit(order, card) == ticket  # the same key makes no second video
    backend.cancel(ticket, card)


def test_a_running_order_is_stopped(address: str) -> None:
    backend, card = made(address)
    order = order_of(card, seed=12, prompt=QUICK["prompt"], frames=49, steps=40)
    ticket = backend.submit(order, card)
    followed(backend, ticket, card, "running")
    assert backend.cancel(ticket, card).state == "cancelled"
    try:
        assert backend.poll(ticket, card).state == "cancelled"
    except NotFound:
        pass  # it is deleted already
