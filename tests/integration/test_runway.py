"""The Runway backend with Runway's own SDK, against the fake over a real connection."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fakes.orders import PROMPT, order_of, png
from fakes.runway import KEY, Failure, FakeRunway
from fakes.service import Fault
from kinoloom.backends.base import RemoteStatus, Ticket
from kinoloom.backends.remote import retries
from kinoloom.backends.runway import backend as module
from kinoloom.backends.runway.backend import RunwayBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import (
    ContentRejected,
    InvalidMedia,
    InvalidRequest,
    KinoloomError,
    MissingPackage,
    NetworkFailed,
    NotAuthenticated,
    NotFound,
    ProviderRetired,
    QuotaExceeded,
    RateLimited,
    Uncertain,
    WorkerUnavailable,
)

CARD = Catalog.load().get("runway-gen4.5")
VEO = Catalog.load().get("runway-veo-3.1")


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_SECONDS", 0.001)
    for name in ("RUNWAYML_API_SECRET", "RUNWAYML_BASE_URL"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def fake() -> Iterator[FakeRunway]:
    with FakeRunway() as server:
        yield server


def made(url: str, key: str | None = KEY) -> RunwayBackend:
    own: dict[str, Any] = {"base_url": url} | ({} if key is None else {"api_key": key})
    return RunwayBackend(Settings.model_validate({"backends": {"runway": own}}))


@pytest.fixture
def runway(fake: FakeRunway) -> RunwayBackend:
    return made(fake.url)


def ended(runway: RunwayBackend, ticket: Ticket, card: ModelCard = CARD) -> RemoteStatus:
    """The status in which an order ends."""
    for _ in range(20):
        status = runway.poll(ticket, card)
        if status.state not in ("queued", "running"):
            return status
    raise AssertionError("the order did not end")


def test_an_order_is_made_once_followed_and_downloaded(
    fake: FakeRunway, runway: RunwayBackend, tmp_path: Path
) -> None:
    fake.states = ("PENDING", "THROTTLED", "RUNNING:0.25", "SUCCEEDED")
    ticket = runway.submit(order_of(CARD), CARD)
    assert ticket.cost == Decimal("0.60")
    seen = [runway.poll(ticket, CARD) for _ in range(4)]
    assert [s.state for s in seen] == ["queued", "queued", "running", "succeeded"]
    assert "THROTTLED" in seen[1].detail
    assert [s.progress for s in seen] == [None, None, 0.25, 1.0]
    assert seen[-1].charged == Decimal("0.60")
    got = runway.fetch(ticket, CARD, tmp_path)
    assert got.video.read_bytes() == fake.video
    assert got.versions == {"runway": "gen4.5"}
    assert fake.bill == {PROMPT: 1}
    assert fake.leaked == []


def test_another_process_follows_an_order_by_its_ticket(
    fake: FakeRunway, runway: RunwayBackend, tmp_path: Path
) -> None:
    ticket = runway.submit(order_of(CARD), CARD)
    again = Ticket(ticket.remote_id, ticket.endpoint, dict(ticket.data))
    later = made(fake.url)
    assert ended(later, again).state == "succeeded"
    assert later.fetch(again, CARD, tmp_path).video.is_file()


def test_small_pictures_go_along_and_large_ones_are_uploaded_without_the_key(
    fake: FakeRunway, runway: RunwayBackend, tmp_path: Path
) -> None:
    small = png(tmp_path / "small.png")
    large = png(tmp_path / "large.png", filler=4_000_000)
    order = order_of(VEO, "flf2v", inputs={"image": small, "last_image": large})
    runway.submit(order, VEO)
    (task,) = fake.tasks.values()
    first, last = task.body["promptImage"]
    assert first["uri"].startswith("data:image/png;base64,")
    assert first["position"] == "first"
    assert last["position"] == "last"
    assert fake.uploads == {last["uri"]: large.read_bytes()}
    assert fake.leaked == []


def test_a_picture_at_the_limit_of_a_data_uri_is_not_uploaded(
    fake: FakeRunway, runway: RunwayBackend, tmp_path: Path
) -> None:
    room = (5_000_000 - len("data:image/png;base64,")) // 4 * 3
    bare = len(png(tmp_path / "a.png", filler=1).read_bytes()) - 1
    at = png(tmp_path / "at.png", filler=room - bare)
    over = png(tmp_path / "over.png", filler=room - bare + 1)
    runway.submit(order_of(CARD, "i2v", inputs={"image": at}), CARD)
    assert not fake.uploads
    runway.submit(order_of(CARD, "i2v", inputs={"image": over}), CARD)
    assert len(fake.uploads) == 1


def test_a_picture_that_is_too_large_for_runway_is_refused_before_anything_is_sent(
    fake: FakeRunway, runway: RunwayBackend, tmp_path: Path
) -> None:
    huge = tmp_path / "huge.png"
    with huge.open("wb") as file:
        file.truncate(200_000_001)
    with pytest.raises(InvalidMedia, match="200000001 bytes"):
        runway.submit(order_of(CARD, "i2v", inputs={"image": huge}), CARD)
    assert fake.asked == []


def test_an_upload_never_goes_into_the_network_that_this_machine_stands_in(
    fake: FakeRunway, runway: RunwayBackend, tmp_path: Path
) -> None:
    fake.storage = "http://10.0.0.1:9"
    large = png(tmp_path / "large.png", filler=4_000_000)
    with pytest.raises(NetworkFailed):
        runway.submit(order_of(CARD, "i2v", inputs={"image": large}), CARD)
    assert not fake.bill


def test_too_long_a_prompt_is_refused_before_anything_is_sent(
    fake: FakeRunway, runway: RunwayBackend, tmp_path: Path
) -> None:
    large = png(tmp_path / "large.png", filler=4_000_000)
    with pytest.raises(InvalidRequest):
        runway.submit(order_of(CARD, "i2v", inputs={"image": large}, prompt="x" * 1001), CARD)
    assert fake.asked == []


@pytest.mark.parametrize("accepted", [True, False])
def test_a_create_without_an_answer_is_uncertain_and_never_repeated(
    fake: FakeRunway, runway: RunwayBackend, accepted: bool
) -> None:
    fake.drop_create(accepted=accepted)
    with pytest.raises(Uncertain) as caught:
        runway.submit(order_of(CARD), CARD)
    assert "https://dev.runwayml.com" in caught.value.hints[0]
    assert len(fake.asked) == 1
    assert sum(fake.bill.values()) == accepted


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_create_answered_with_an_error_of_the_server_is_uncertain(
    fake: FakeRunway, runway: RunwayBackend, status: int
) -> None:
    fake.answer_create(status, {"error": "oops"}, accepted=True)
    with pytest.raises(Uncertain):
        runway.submit(order_of(CARD), CARD)
    assert len(fake.asked) == 1


@pytest.mark.parametrize("body", [b"<html>", b"{}", b"[]", b'{"id": 5}', b'{"id": ""}', b""])
def test_a_create_whose_answer_cannot_be_read_is_uncertain(
    fake: FakeRunway, runway: RunwayBackend, body: bytes
) -> None:
    fake.answer_create(200, body, accepted=True)
    with pytest.raises(Uncertain, match="cannot be read"):
        runway.submit(order_of(CARD), CARD)


def test_a_create_that_takes_too_long_is_uncertain(
    fake: FakeRunway, runway: RunwayBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_TIMEOUT", 0.2)
    fake.faults.append(Fault(accepted=True, status=200, body={"id": "late"}, hold=True))
    with pytest.raises(Uncertain) as caught:
        runway.submit(order_of(CARD), CARD)
    assert caught.value.cause == "ReadTimeout"
    assert len(fake.asked) == 1


def test_without_any_connection_an_order_certainly_did_not_arrive() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with pytest.raises(NetworkFailed):
        made(f"http://127.0.0.1:{port}").submit(order_of(CARD), CARD)


def test_an_order_that_may_have_arrived_cannot_be_looked_up(runway: RunwayBackend) -> None:
    with pytest.raises(Uncertain) as caught:
        runway.find(order_of(CARD), CARD)
    assert "https://dev.runwayml.com" in caught.value.hints[0]


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, {"error": "You do not have enough credits to run this task."}, QuotaExceeded),
        (402, {"error": "Payment required"}, QuotaExceeded),
        (400, {"error": "The model gen4.5 is no longer available."}, ProviderRetired),
        (400, {"error": "Validation of body failed", "issues": [{"path": ["x"]}]}, InvalidRequest),
        (401, {"error": "The API key you provided is not valid."}, NotAuthenticated),
        (429, {"error": "You have reached your daily limit."}, RateLimited),
    ],
)
def test_a_create_that_was_refused_says_why(
    fake: FakeRunway,
    runway: RunwayBackend,
    status: int,
    body: dict[str, Any],
    kind: type[KinoloomError],
) -> None:
    fake.answer_create(status, body, Retry_After="7")
    with pytest.raises(kind) as caught:
        runway.submit(order_of(CARD), CARD)
    assert body["error"] in caught.value.cause
    if isinstance(caught.value, RateLimited):
        assert caught.value.retry_after == 7
    assert len(fake.asked) == 1


def test_a_redirected_create_takes_the_order_nowhere(
    fake: FakeRunway, runway: RunwayBackend
) -> None:
    fake.answer_create(307, {}, Location=f"{fake.storage}/store/x")
    with pytest.raises(KinoloomError):
        runway.submit(order_of(CARD), CARD)
    assert fake.leaked == []
    assert len(fake.asked) == 1


@pytest.mark.parametrize(
    ("code", "kind", "retry"),
    [
        ("SAFETY.INPUT.TEXT", ContentRejected, "no"),
        ("SAFETY.OUTPUT.VIDEO", ContentRejected, "no"),
        ("INTERNAL.BAD_OUTPUT.CODE01", WorkerUnavailable, "later"),
        ("INTERNAL", WorkerUnavailable, "later"),
        ("ASSET.INVALID", InvalidMedia, "no"),
        ("SOMETHING.NEW", KinoloomError, "no"),
        (None, KinoloomError, "no"),
    ],
)
def test_a_task_that_failed_says_why_and_what_it_cost(
    fake: FakeRunway,
    runway: RunwayBackend,
    code: str | None,
    kind: type[KinoloomError],
    retry: str,
) -> None:
    refunded = code != "SAFETY.INPUT.TEXT"
    fake.failures[PROMPT] = Failure(code, "It did not work out.", refunded=refunded)
    status = ended(runway, runway.submit(order_of(CARD), CARD))
    assert status.state == "failed"
    assert type(status.error) is kind
    assert status.error is not None
    assert status.error.recovery.retry == retry
    assert "It did not work out." in status.error.cause
    assert status.charged == (Decimal(0) if refunded else Decimal("0.60"))


def test_no_card_lets_rejected_words_be_tried_again() -> None:
    cards = [card for card in Catalog.load() if card.backend == "runway"]
    assert cards
    assert not any(card.remote.rewording for card in cards if card.remote)


def test_a_look_is_repeated_while_runway_is_down(fake: FakeRunway, runway: RunwayBackend) -> None:
    ticket = runway.submit(order_of(CARD), CARD)
    fake.polls.extend([502, 503, 504])
    assert runway.poll(ticket, CARD).state == "queued"


def test_a_state_that_is_not_known_is_shown_and_waited_for(
    fake: FakeRunway, runway: RunwayBackend
) -> None:
    fake.states = ("POSTPROCESSING", "SUCCEEDED")
    ticket = runway.submit(order_of(CARD), CARD)
    status = runway.poll(ticket, CARD)
    assert (status.state, status.detail) == ("running", "POSTPROCESSING")


def test_an_address_that_expired_is_asked_for_anew(
    fake: FakeRunway, runway: RunwayBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticket = runway.submit(order_of(CARD), CARD)
    ended(runway, ticket)
    task = runway._task

    def then_expire(wanted: Ticket) -> Any:
        told = task(wanted)
        if fake.valid == 0:
            fake.expire()
        return told

    monkeypatch.setattr(runway, "_task", then_expire)
    assert runway.fetch(ticket, CARD, tmp_path).video.read_bytes() == fake.video


def test_a_download_that_breaks_off_goes_on(
    fake: FakeRunway, runway: RunwayBackend, tmp_path: Path
) -> None:
    ticket = runway.submit(order_of(CARD), CARD)
    ended(runway, ticket)
    fake.truncate.extend([100, 300])
    assert runway.fetch(ticket, CARD, tmp_path).video.read_bytes() == fake.video
    assert fake.downloads == 3


def test_what_is_no_video_is_not_taken_for_one(
    fake: FakeRunway, runway: RunwayBackend, tmp_path: Path
) -> None:
    fake.video = b"<html>Sorry</html>"
    ticket = runway.submit(order_of(CARD), CARD)
    ended(runway, ticket)
    with pytest.raises(InvalidMedia):
        runway.fetch(ticket, CARD, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_cancelling_deletes_a_task_and_says_what_is_not_given_back(
    fake: FakeRunway, runway: RunwayBackend
) -> None:
    fake.states = ("PENDING", "RUNNING:0.1", "RUNNING:0.2", "SUCCEEDED")
    waiting, running = (runway.submit(order_of(CARD), CARD) for _ in range(2))
    assert runway.cancel(waiting, CARD) == RemoteStatus("cancelled")
    runway.poll(running, CARD)
    stopped = runway.cancel(running, CARD)
    assert (stopped.state, stopped.charged) == ("cancelled", Decimal("0.60"))
    assert runway.cancel(running, CARD).state == "cancelled"
    with pytest.raises(NotFound):
        runway.poll(running, CARD)


def test_a_finished_task_is_not_deleted_by_a_late_cancel(
    fake: FakeRunway, runway: RunwayBackend, tmp_path: Path
) -> None:
    ticket = runway.submit(order_of(CARD), CARD)
    ended(runway, ticket)
    assert runway.cancel(ticket, CARD).state == "succeeded"
    assert runway.fetch(ticket, CARD, tmp_path).video.is_file()


def test_an_id_that_somebody_made_up_stays_in_its_place(
    fake: FakeRunway, runway: RunwayBackend
) -> None:
    with pytest.raises(NotFound):
        runway.poll(Ticket("../organization"), CARD)


def test_verify_says_the_credit(fake: FakeRunway, runway: RunwayBackend) -> None:
    told = runway.verify()
    assert told.ready
    assert told.reasons == ("The account has 100000 credits (1000.00 USD).",)
    fake.credits = 0
    assert not runway.verify().ready
    assert not fake.bill


def test_a_wrong_key_is_said_as_such_and_not_shown(fake: FakeRunway) -> None:
    wrong = made(fake.url, "key_wrong_but_secret")
    told = wrong.verify()
    assert not told.ready
    assert "RUNWAYML_API_SECRET" in told.hints[0]
    with pytest.raises(NotAuthenticated) as caught:
        wrong.submit(order_of(CARD), CARD)
    assert "key_wrong" not in str(caught.value.as_dict()) + str(told)


@pytest.mark.parametrize("key", [f" {KEY}\n", f"{KEY} x"])
def test_a_key_is_sent_without_blanks_or_not_at_all(fake: FakeRunway, key: str) -> None:
    runway = made(fake.url, key)
    if key.strip() == KEY:
        assert runway.submit(order_of(CARD), CARD).remote_id in fake.tasks
        return
    assert not runway.readiness(CARD).ready
    with pytest.raises(NotAuthenticated):
        runway.submit(order_of(CARD), CARD)
    assert fake.asked == []


def test_readiness_names_the_variable_and_asks_nobody(
    fake: FakeRunway, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = made(fake.url, None).readiness(CARD)
    assert not without.ready
    assert "RUNWAYML_API_SECRET" in without.hints[0]
    monkeypatch.setenv("RUNWAYML_API_SECRET", KEY)
    assert made(fake.url, None).readiness(CARD).ready
    assert fake.asked == []


def test_without_its_sdk_the_backend_says_what_to_install(
    runway: RunwayBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    told = runway.readiness(CARD)
    assert not told.ready
    assert told.hints == ("pip install 'kinoloom[runway]'",)
    monkeypatch.setitem(sys.modules, "runwayml", None)  # an import of it fails
    with pytest.raises(MissingPackage):
        runway.submit(order_of(CARD), CARD)
    with pytest.raises(MissingPackage):
        runway.poll(Ticket("x"), CARD)


def test_a_retired_model_is_not_ready_and_names_its_successor(runway: RunwayBackend) -> None:
    import datetime

    gone = CARD.model_copy(
        update={"retirement": datetime.date(2026, 1, 31), "successor": "runway-veo-3.1"}
    )
    told = runway.readiness(gone)
    assert not told.ready
    assert "2026-01-31" in told.reasons[0]
    assert "runway-veo-3.1" in told.hints[0]


def test_the_sdks_variable_names_another_address(
    fake: FakeRunway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNWAYML_BASE_URL", fake.url + "/")
    monkeypatch.setenv("RUNWAYML_API_SECRET", KEY)
    assert RunwayBackend(Settings()).verify().ready


@pytest.mark.parametrize("url", ["http://[::1", "http://host:99999999", "nonsense", "http://"])
def test_an_address_that_is_none_is_a_known_error(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RUNWAYML_BASE_URL", url)
    monkeypatch.setenv("RUNWAYML_API_SECRET", KEY)
    with pytest.raises(NetworkFailed):
        RunwayBackend(Settings()).submit(order_of(CARD), CARD)
