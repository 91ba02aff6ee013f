"""The backend for /v1/videos against fakes of its servers, over a real connection."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fakes.openai_videos import KEY, FakeVideos
from fakes.orders import PROMPT, order_of, png
from fakes.service import Fault
from kinoloom.backends.base import RemoteStatus, Ticket
from kinoloom.backends.openai.backend import OpenAIBackend
from kinoloom.backends.remote import retries
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import (
    ContentRejected,
    InvalidRequest,
    KinoloomError,
    ModelNotFound,
    NetworkFailed,
    NotAuthenticated,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Uncertain,
    WorkerUnavailable,
)

MODELS = {
    "engine": {"model": "wan", "like": "wan-2.1-t2v-1.3b", "price": "free"},
    "openai": {"model": "sora-2", "like": "runway-veo-3.1", "price": "0.10"},
    "openrouter": {"model": "google/veo-3.1", "like": "runway-veo-3.1"},
}


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_SECONDS", 0.001)


@pytest.fixture(params=["engine", "openai", "openrouter"])
def any_fake(request: pytest.FixtureRequest) -> Iterator[FakeVideos]:
    with FakeVideos(request.param) as server:
        yield server


@pytest.fixture
def fake() -> Iterator[FakeVideos]:
    with FakeVideos("engine") as server:
        yield server


def made(
    fake: FakeVideos, key: str | None = KEY, **changes: Any
) -> tuple[OpenAIBackend, ModelCard]:
    """The backend with one server, and the card of its model."""
    server: dict[str, Any] = {"url": fake.url, "models": {"ours": MODELS[fake.dialect] | changes}}
    if key is not None:
        server["api_key"] = key
    settings = Settings.model_validate({"backends": {"openai": {"box": server}}})
    backend = OpenAIBackend(settings)
    (card,) = backend.cards(Catalog.load())
    return backend, card


def ended(backend: OpenAIBackend, ticket: Ticket, card: ModelCard) -> RemoteStatus:
    for _ in range(20):
        status = backend.poll(ticket, card)
        if status.state not in ("queued", "running"):
            return status
    raise AssertionError("the video did not end")


def test_an_order_is_made_once_followed_and_downloaded(
    any_fake: FakeVideos, tmp_path: Path
) -> None:
    backend, card = made(any_fake)
    order = order_of(card, width=1280, height=720)
    ticket = backend.submit(order, card)
    seen = [backend.poll(ticket, card) for _ in range(3)]
    assert [s.state for s in seen] == ["queued", "running", "succeeded"]
    assert [s.progress for s in seen] == [None, 0.4, 1.0]
    got = backend.fetch(ticket, card, tmp_path)
    assert got.video.read_bytes() == any_fake.video
    assert any_fake.bill == {PROMPT: 1}
    assert any_fake.only().key == order.key


def test_an_engine_gets_the_numbers_of_the_sampler(fake: FakeVideos) -> None:
    backend, card = made(fake)
    order = order_of(card, width=832, height=480, frames=33, steps=12, seed=9, negative="blur")
    backend.submit(order, card)
    assert fake.only().asked == {
        "prompt": PROMPT,
        "model": "wan",
        "size": "832x480",
        "num_frames": "33",
        "fps": "16",
        "num_inference_steps": "12",
        "guidance_scale": str(card.guidance.default),
        "seed": "9",
        "negative_prompt": "blur",
    }


def test_a_gateway_gets_openais_own_form() -> None:
    with FakeVideos("openai") as fake:
        backend, card = made(fake)
        backend.submit(order_of(card, width=1280, height=720, frames=192), card)
        assert fake.only().asked == {
            "prompt": PROMPT,
            "model": "sora-2",
            "size": "1280x720",
            "seconds": "8",
        }


def test_openrouter_gets_its_own_body_and_says_what_it_charged(tmp_path: Path) -> None:
    with FakeVideos("openrouter") as fake:
        fake.states = [
            {"status": "in_progress"},
            {"status": "completed", "usage": {"cost": 3.2, "is_byok": False}},
        ]
        backend, card = made(fake)
        picture = png(tmp_path / "first.png")
        order = order_of(card, "i2v", inputs={"image": picture}, width=1280, height=720)
        ticket = backend.submit(order, card)
        asked = fake.only().asked
        assert asked["duration"] == 8
        assert asked["frame_images"][0]["frame_type"] == "first_frame"
        assert asked["frame_images"][0]["image_url"]["url"].startswith("data:image/png;base64,")
        assert ended(backend, ticket, card).charged == Decimal("3.2")


def test_a_picture_goes_along_as_a_file(fake: FakeVideos, tmp_path: Path) -> None:
    backend, card = made(fake, like="wan-2.2-ti2v-5b")
    picture = png(tmp_path / "first.png")
    backend.submit(order_of(card, "i2v", inputs={"image": picture}), card)
    assert fake.only().picture == picture.read_bytes()


def test_another_process_follows_an_order_by_its_ticket(fake: FakeVideos, tmp_path: Path) -> None:
    backend, card = made(fake)
    ticket = backend.submit(order_of(card), card)
    later, _ = made(fake)
    assert ended(later, Ticket(ticket.remote_id, ticket.endpoint), card).state == "succeeded"
    assert later.fetch(ticket, card, tmp_path).video.is_file()


@pytest.mark.parametrize("accepted", [True, False])
def test_a_create_without_an_answer_is_uncertain_and_never_repeated(
    fake: FakeVideos, accepted: bool
) -> None:
    backend, card = made(fake)
    fake.faults.append(Fault(accepted))
    with pytest.raises(Uncertain) as caught:
        backend.submit(order_of(card), card)
    assert "Look whether" in caught.value.hints[0]
    assert [a for a in fake.asked if a[0] == "POST"] == [("POST", "/v1/videos")]
    assert sum(fake.bill.values()) == accepted


@pytest.mark.parametrize(
    ("status", "body"), [(500, {}), (502, b"<html>"), (503, {}), (200, b"<html>"), (200, {})]
)
def test_a_create_with_an_answer_that_says_nothing_is_uncertain(
    fake: FakeVideos, status: int, body: Any
) -> None:
    backend, card = made(fake)
    fake.faults.append(Fault(True, status, body))
    with pytest.raises(Uncertain):
        backend.submit(order_of(card), card)


def test_without_any_connection_an_order_certainly_did_not_arrive(fake: FakeVideos) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    fake.url = f"http://127.0.0.1:{port}/v1"
    backend, card = made(fake)
    with pytest.raises(NetworkFailed):
        backend.submit(order_of(card), card)


@pytest.mark.parametrize(
    ("status", "error", "kind"),
    [
        (429, {"code": "rate_limit_exceeded", "message": "Slow down."}, RateLimited),
        (429, {"code": "insufficient_quota", "message": "Check your plan."}, QuotaExceeded),
        (402, {"code": 402, "message": "Insufficient credits"}, QuotaExceeded),
        (401, {"code": "invalid_api_key", "message": "Not you."}, NotAuthenticated),
        (400, {"code": "moderation_blocked", "message": "Blocked."}, ContentRejected),
        (404, {"code": "model_not_found", "message": "No such model."}, ModelNotFound),
        (400, {"code": None, "message": "Invalid size."}, InvalidRequest),
        (422, None, InvalidRequest),
    ],
)
def test_a_create_that_was_refused_says_why(
    fake: FakeVideos, status: int, error: dict[str, Any] | None, kind: type[KinoloomError]
) -> None:
    backend, card = made(fake)
    body = {"detail": [{"msg": "bad"}]} if error is None else {"error": error}
    fake.faults.append(Fault(False, status, body, {"Retry-After": "7"}))
    with pytest.raises(kind) as caught:
        backend.submit(order_of(card), card)
    assert ("bad" if error is None else error["message"]) in caught.value.cause
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after == 7


def test_a_model_that_the_server_does_not_have_is_named_as_such(fake: FakeVideos) -> None:
    backend, card = made(fake, model="wan-9")
    with pytest.raises(ModelNotFound) as caught:
        backend.submit(order_of(card), card)
    assert "wan-9" in caught.value.cause


def test_an_address_without_its_version_is_recognised(fake: FakeVideos) -> None:
    fake.url = fake.url.removesuffix("/v1") + "/v0/x"
    backend, card = made(fake)
    with pytest.raises(NotFound) as caught:
        backend.submit(order_of(card), card)
    assert "/v1" in caught.value.hints[0]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": "insufficient_vram", "message": "Too little memory."}, "insufficient_vram"),
        ({"code": 500, "message": "CUDA out of memory"}, "insufficient_vram"),
        ({"message": "It fell over."}, "unknown"),
        ("It fell over.", "unknown"),
        ({"code": "content_policy_violation", "message": "No."}, "content_rejected"),
        (None, "unknown"),
    ],
)
def test_a_video_that_failed_says_why(fake: FakeVideos, error: Any, kind: str) -> None:
    fake.states = [{"status": "failed", "error": error}]
    backend, card = made(fake)
    status = backend.poll(backend.submit(order_of(card), card), card)
    assert status.state == "failed"
    assert status.error is not None
    assert status.error.kind == kind
    assert status.charged == 0


def test_a_paid_video_that_failed_has_an_unknown_charge() -> None:
    with FakeVideos("openai") as fake:
        fake.states = [{"status": "failed", "error": {"code": "x", "message": "y"}}]
        backend, card = made(fake)
        ticket = backend.submit(order_of(card, width=1280, height=720), card)
        assert backend.poll(ticket, card).charged is None


def test_an_order_is_not_looked_for_by_words_that_another_take_has_too() -> None:
    with FakeVideos("openai") as fake:
        backend, card = made(fake)
        order = order_of(card, width=1280, height=720)
        fake.faults.append(Fault(True))
        with pytest.raises(Uncertain):
            backend.submit(order, card)
        with pytest.raises(Uncertain) as caught:
            backend.find(order, card)
        assert fake.only().id in caught.value.cause


def test_an_order_for_nothing_that_is_not_in_the_list_never_arrived(fake: FakeVideos) -> None:
    backend, card = made(fake)
    assert backend.find(order_of(card), card) is None
    backend.submit(order_of(card), card)
    assert backend.find(order_of(card, prompt="something else"), card) is None
    with pytest.raises(Uncertain):
        backend.find(order_of(card), card)


def test_a_paid_order_that_is_not_in_the_list_stays_uncertain() -> None:
    with FakeVideos("openai") as fake:
        backend, card = made(fake)
        with pytest.raises(Uncertain):
            backend.find(order_of(card), card)


def test_an_order_is_found_by_our_key_on_a_later_page(fake: FakeVideos) -> None:
    backend, card = made(fake, price="0.1")
    order = order_of(card)
    wanted = backend.submit(order, card)
    for _ in range(4):
        backend.submit(order_of(card), card)
    for video in fake.made.values():
        video.now["kinoloom"] = {"idempotency_key": video.key}
    fake.page = 2
    assert backend.find(order, card) == wanted
    assert backend.find(order_of(card), card) is None


def test_a_server_without_a_list_leaves_an_order_uncertain(fake: FakeVideos) -> None:
    fake.lists = False
    backend, card = made(fake)
    with pytest.raises(Uncertain):
        backend.find(order_of(card), card)


def test_a_server_that_is_down_is_asked_again_later(fake: FakeVideos) -> None:
    backend, card = made(fake)
    fake.answers.extend([(503, {})] * retries.ATTEMPTS)
    with pytest.raises(WorkerUnavailable) as caught:
        backend.find(order_of(card), card)
    assert caught.value.recovery.retry == "later"


def test_a_read_is_repeated_while_the_server_is_down(fake: FakeVideos) -> None:
    backend, card = made(fake)
    ticket = backend.submit(order_of(card), card)
    fake.answers.extend([(502, b"<html>"), (503, {}), (200, b"not json")])
    assert backend.poll(ticket, card).state == "queued"


def test_a_video_that_the_server_forgot_is_not_found(fake: FakeVideos) -> None:
    backend, card = made(fake)
    ticket = backend.submit(order_of(card), card)
    fake.made.clear()
    with pytest.raises(NotFound):
        backend.poll(ticket, card)
    with pytest.raises(WorkerUnavailable):  # it may be there again tomorrow
        backend.poll(Ticket("x", endpoint="another"), card)


@pytest.mark.parametrize("content", ["absent", "elsewhere"])
def test_a_video_that_lies_elsewhere_is_fetched_from_there_without_the_key(
    fake: FakeVideos, tmp_path: Path, content: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What lies elsewhere must be public; the fake's storage is this machine under another name.
    allow_this_machine(monkeypatch)
    fake.content = content
    fake.states = [{"status": "completed", "url": fake.storage}]
    backend, card = made(fake)
    ticket = backend.submit(order_of(card), card)
    assert backend.fetch(ticket, card, tmp_path).video.read_bytes() == fake.video
    assert fake.leaked == []


def test_an_address_in_the_answer_never_leads_into_the_local_network(
    fake: FakeVideos, tmp_path: Path
) -> None:
    fake.content = "absent"
    fake.states = [{"status": "completed", "url": fake.storage}]
    backend, card = made(fake)
    ticket = backend.submit(order_of(card), card)
    with pytest.raises(NetworkFailed):
        backend.fetch(ticket, card, tmp_path)
    assert not [path for _, path in fake.asked if path.startswith("/out/")]


def test_a_download_that_breaks_off_goes_on(fake: FakeVideos, tmp_path: Path) -> None:
    backend, card = made(fake)
    ticket = backend.submit(order_of(card), card)
    ended(backend, ticket, card)
    fake.truncate.extend([100, 300])
    assert backend.fetch(ticket, card, tmp_path).video.read_bytes() == fake.video


def test_cancelling_deletes_a_video_that_is_not_finished(fake: FakeVideos) -> None:
    backend, card = made(fake)
    ticket = backend.submit(order_of(card), card)
    assert backend.cancel(ticket, card) == RemoteStatus("cancelled", charged=Decimal(0))
    assert fake.made == {}
    assert backend.cancel(ticket, card).state == "cancelled"


def test_a_finished_video_is_not_deleted_by_a_late_cancel(fake: FakeVideos) -> None:
    backend, card = made(fake)
    ticket = backend.submit(order_of(card), card)
    ended(backend, ticket, card)
    assert backend.cancel(ticket, card).state == "succeeded"
    assert fake.made


def test_a_server_that_cannot_stop_a_video_says_that_it_goes_on(fake: FakeVideos) -> None:
    fake.deletes = False
    fake.states = [{"status": "processing"}]
    backend, card = made(fake)
    ticket = backend.submit(order_of(card), card)
    assert backend.cancel(ticket, card).state == "running"


def test_readiness_names_a_server_that_does_not_answer(fake: FakeVideos) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    fake.url = f"http://127.0.0.1:{port}/v1"
    backend, card = made(fake)
    told = backend.readiness(card)
    assert not told.ready
    assert fake.url in told.reasons[0]


@pytest.mark.parametrize(
    ("key", "ready"),
    [(KEY, True), (f" {KEY}\n", True), ("sk-wrong-and-secret", False), (None, False)],
)
def test_readiness_and_verify_say_whether_the_key_is_taken(
    fake: FakeVideos, key: str | None, ready: bool
) -> None:
    backend, card = made(fake, key)
    for told in (backend.readiness(card), backend.verify()):
        assert told.ready is ready
        assert "sk-wrong" not in str(told)
        assert ready or "api_key" in told.hints[0]
    assert len(fake.asked) == 1  # one answer holds for a moment


def test_a_key_that_cannot_be_sent_is_a_reason_and_makes_nothing_uncertain(
    fake: FakeVideos,
) -> None:
    backend, card = made(fake, "sk-wrong and blank")
    assert not backend.readiness(card).ready
    with pytest.raises(NotAuthenticated):
        backend.submit(order_of(card), card)
    assert fake.asked == []


def test_openais_own_key_is_never_sent(fake: FakeVideos, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    backend, card = made(fake, None)
    assert not backend.readiness(card).ready


def allow_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    from kinoloom.backends.remote import download as module

    guarded: Callable[..., Any] = module.guarded_client
    monkeypatch.setattr(
        module, "guarded_client", lambda **given: guarded(**given | {"loopback": True})
    )
