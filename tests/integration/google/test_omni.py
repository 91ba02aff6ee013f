"""Gemini Omni with Google's own SDK, against the fake over a real connection."""

from __future__ import annotations

import base64
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fakes.google import GOOGLE, KEY, FakeGoogle
from fakes.orders import PROMPT, order_of, png
from fakes.service import Fault
from kinoloom.backends.base import RemoteStatus, Ticket
from kinoloom.backends.google import omni
from kinoloom.backends.google.backend import GoogleBackend
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import (
    ContentRejected,
    Forbidden,
    InvalidMedia,
    InvalidRequest,
    KinoloomError,
    ModelNotFound,
    NetworkFailed,
    NotAuthenticated,
    NotFound,
    ProviderRetired,
    QuotaExceeded,
    RateLimited,
    Uncertain,
    WorkerUnavailable,
)

CARD = Catalog.load().get("google-omni-1.2-flash")
VEO = Catalog.load().get("google-veo-3.1")
Made = Callable[..., GoogleBackend]
Ended = Callable[..., RemoteStatus]


@pytest.fixture
def google(fake: FakeGoogle, made: Made) -> GoogleBackend:
    return made(fake.url)


def test_an_order_is_made_once_followed_and_downloaded(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path
) -> None:
    fake.states = ("queued", "in_progress", "completed")
    order = order_of(CARD, width=1080, height=1920, frames=240, seed=41)
    ticket = google.submit(order, CARD)
    seen = [google.poll(ticket, CARD) for _ in range(3)]
    assert [(s.state, s.detail) for s in seen] == [
        ("queued", "queued"),
        ("running", "in_progress"),
        ("succeeded", "completed"),
    ]
    fetched = google.fetch(ticket, CARD, tmp_path)
    assert fetched.video.read_bytes() == fake.video
    assert fetched.versions == {"model": "gemini-omni-1.2-flash"}
    assert fake.bill == {PROMPT: 1}
    (only,) = fake.made.values()
    assert only.body["response_format"] == {
        "type": "video",
        "delivery": "uri",
        "aspect_ratio": "9:16",
        "resolution": "1080p",
        "duration": "10s",
    }
    assert only.body["generation_config"] == {
        "seed": 41,
        "video_config": {"task": "text_to_video"},
    }
    assert only.body["background"] is True


def test_a_ticket_holds_nothing_but_the_id(fake: FakeGoogle, google: GoogleBackend) -> None:
    fake.at_once = True
    fake.outcome = "inline"
    ticket = google.submit(order_of(CARD), CARD)
    assert ticket == Ticket(next(iter(fake.made)))
    assert google.poll(ticket, CARD).state == "succeeded"


def test_a_new_process_goes_on_from_the_ticket(
    fake: FakeGoogle, tmp_path: Path, ended: Ended, made: Made
) -> None:
    ticket = made(fake.url).submit(order_of(CARD), CARD)
    other = made(fake.url)
    assert ended(other, ticket, CARD).state == "succeeded"
    assert other.fetch(ticket, CARD, tmp_path).video.read_bytes() == fake.video


@pytest.mark.parametrize(
    ("task", "names", "words", "job"),
    [
        ("i2v", ["image"], f"<FIRST_FRAME> {PROMPT}", "image_to_video"),
        ("flf2v", ["image", "last_image"], f"<FIRST_FRAME> <LAST_FRAME> {PROMPT}", None),
        ("r2v", ["references.0", "references.1"], PROMPT, "reference_to_video"),
    ],
)
def test_pictures_go_with_their_tags(
    fake: FakeGoogle,
    google: GoogleBackend,
    tmp_path: Path,
    task: str,
    names: list[str],
    words: str,
    job: str | None,
) -> None:
    inputs = {n: png(tmp_path / f"{n}.png", width=8 + i) for i, n in enumerate(names)}
    google.submit(order_of(CARD, task, inputs=inputs), CARD)
    (only,) = fake.made.values()
    content = only.body["input"][0]["content"]
    sent = [base64.b64decode(part["data"]) for part in content[:-1]]
    assert sent == [inputs[n].read_bytes() for n in names]
    assert content[-1] == {"type": "text", "text": words}
    assert only.body["generation_config"].get("video_config", {}).get("task") == job


def test_tags_of_the_users_own_are_left_alone(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path
) -> None:
    words = "[# Sources <FIRST_FRAME>@Image1 <LAST_FRAME>@Image1] it loops"
    inputs = {"image": png(tmp_path / "a.png")}
    google.submit(order_of(CARD, "i2v", inputs=inputs, prompt=words), CARD)
    assert fake.bill == {words: 1}


def test_large_pictures_are_uploaded_first(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(omni, "INLINE_BYTES", 1000)
    inputs = {
        "image": png(tmp_path / "a.png", filler=600),
        "last_image": png(tmp_path / "b.png", filler=700),
    }
    google.submit(order_of(CARD, "flf2v", inputs=inputs), CARD)
    assert set(fake.uploads.values()) == {inputs[name].read_bytes() for name in inputs}
    (only,) = fake.made.values()
    assert all("uri" in part for part in only.body["input"][0]["content"][:-1])


def test_a_picture_that_nobody_takes_is_refused_before(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(omni, "INLINE_BYTES", 100)
    monkeypatch.setattr(omni, "PICTURE_BYTES", 500)
    inputs = {"image": png(tmp_path / "a.png", filler=600)}
    with pytest.raises(InvalidMedia, match="takes 500") as caught:
        google.submit(order_of(CARD, "i2v", inputs=inputs, width=3840, height=2160), CARD)
    assert "1920x1080" in caught.value.hints[0]
    assert fake.creates == 0


def test_more_references_than_it_takes_are_refused_before(
    fake: FakeGoogle, google: GoogleBackend
) -> None:
    assert CARD.frame_rule("t2v").allows(360)
    assert not CARD.frame_rule("flf2v").allows(360)
    seven = {f"references.{i}": Path("none.png") for i in range(7)}
    with pytest.raises(InvalidRequest, match="cannot make") as caught:
        google.submit(order_of(CARD, "r2v", inputs=seven), CARD)
    assert caught.value.problems[0].field == "references"
    assert fake.creates == 0


def test_a_long_seed_is_cut_and_told(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path, ended: Ended
) -> None:
    ticket = google.submit(order_of(CARD, seed=2**31 + 5), CARD)
    assert next(iter(fake.made.values())).body["generation_config"]["seed"] == 5
    assert ended(google, ticket, CARD).state == "succeeded"
    (note,) = google.fetch(ticket, CARD, tmp_path).notes
    assert "5 was used" in note


# --- creates that go wrong -------------------------------------------------------------------


@pytest.mark.parametrize("accepted", [True, False])
def test_a_create_without_an_answer_is_uncertain(
    fake: FakeGoogle, google: GoogleBackend, accepted: bool
) -> None:
    fake.drop_create(accepted=accepted)
    order = order_of(CARD)
    with pytest.raises(Uncertain) as caught:
        google.submit(order, CARD)
    assert fake.creates == 1
    assert sum(fake.bill.values()) == int(accepted)
    assert "kinoloom jobs resolve" in caught.value.hints[0]
    with pytest.raises(Uncertain, match="cannot be asked"):
        google.find(order, CARD)


def test_a_create_that_is_waited_for_too_long_is_uncertain(
    fake: FakeGoogle, google: GoogleBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(omni, "_CREATE_SECONDS", 0.2)
    fake.faults.append(Fault(accepted=True, hold=True))
    with pytest.raises(Uncertain, match="Nobody knows") as caught:
        google.submit(order_of(CARD), CARD)
    assert "Timeout" in caught.value.cause
    assert fake.creates == 1


@pytest.mark.parametrize(
    ("status", "body"),
    [(500, None), (503, None), (408, None), (200, b"{not json"), (200, {"status": "completed"})],
)
def test_an_answer_that_says_nothing_is_uncertain(
    fake: FakeGoogle, google: GoogleBackend, status: int, body: Any
) -> None:
    fake.answer_create(status, body, accepted=True)
    with pytest.raises(Uncertain):
        google.submit(order_of(CARD), CARD)
    assert fake.creates == 1


@pytest.mark.parametrize(
    ("status", "word", "text", "kind"),
    [
        (401, "UNAUTHENTICATED", "Request had invalid credentials.", NotAuthenticated),
        (403, "PERMISSION_DENIED", "The caller does not have permission", Forbidden),
        (400, "FAILED_PRECONDITION", "User location is not supported for the API use.", Forbidden),
        (404, "NOT_FOUND", "models/gemini-omni-9 is not found", ModelNotFound),
        (404, "NOT_FOUND", "This model is no longer available.", ProviderRetired),
        (400, "INVALID_ARGUMENT", "Invalid value at 'response_format'", InvalidRequest),
        (400, "invalid_request", "Unable to process input image", InvalidMedia),
        (400, "INVALID_ARGUMENT", "blocked for safety reasons", ContentRejected),
        (402, "FAILED_PRECONDITION", "Prepaid credits are depleted", QuotaExceeded),
        (429, "RESOURCE_EXHAUSTED", "Quota exceeded, requests per day, limit: 0", QuotaExceeded),
    ],
)
def test_a_refusal_is_of_the_right_kind(
    fake: FakeGoogle,
    google: GoogleBackend,
    status: int,
    word: str,
    text: str,
    kind: type[KinoloomError],
) -> None:
    fake.answer_create(status, {"error": {"code": status, "message": text, "status": word}})
    with pytest.raises(kind) as caught:
        google.submit(order_of(CARD), CARD)
    assert type(caught.value) is kind
    assert text in caught.value.cause
    assert fake.creates == 1
    assert not fake.bill


def test_a_rate_limit_says_how_long_to_wait(fake: FakeGoogle, google: GoogleBackend) -> None:
    info = {"@type": "type.googleapis.com/google.rpc.RetryInfo", "retryDelay": "34s"}
    told = {"code": 429, "message": "Slow down.", "status": "RESOURCE_EXHAUSTED", "details": [info]}
    fake.answer_create(429, [{"error": told}])
    with pytest.raises(RateLimited) as caught:
        google.submit(order_of(CARD), CARD)
    assert caught.value.retry_after == 34
    fake.answer_create(429, Retry_After="7")
    with pytest.raises(RateLimited) as caught:
        google.submit(order_of(CARD), CARD)
    assert caught.value.retry_after == 7
    assert fake.creates == 2


def test_where_no_connection_is_made_nothing_was_ordered(made: Made) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    with pytest.raises(NetworkFailed):
        made(f"http://127.0.0.1:{free}").submit(order_of(CARD), CARD)


def test_a_wrong_key_is_told_and_never_shown(
    fake: FakeGoogle, caplog: pytest.LogCaptureFixture, made: Made
) -> None:
    caplog.set_level(logging.DEBUG)
    wrong = "AIzaWrongKey000000000000000000000000000"
    google = made(fake.url, wrong)
    with pytest.raises(NotAuthenticated) as caught:
        google.submit(order_of(CARD), CARD)
    assert "GEMINI_API_KEY" in caught.value.hints[0]
    told = str(caught.value.as_dict()) + caplog.text + repr(caught.value.__cause__)
    assert wrong not in told
    verified = google.verify()
    assert not verified.ready
    assert "does not accept the API key" in verified.reasons[0]


def test_a_good_key_is_in_no_log_and_no_ticket(
    fake: FakeGoogle,
    google: GoogleBackend,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
    ended: Ended,
) -> None:
    caplog.set_level(logging.DEBUG)
    assert google.verify().ready
    ticket = google.submit(order_of(CARD), CARD)
    ended(google, ticket, CARD)
    google.fetch(ticket, CARD, tmp_path)
    fake.answer_create(400, {"error": {"code": 400, "message": f"bad {KEY}", "status": "X"}})
    with pytest.raises(InvalidRequest) as caught:
        google.submit(order_of(CARD), CARD)
    assert KEY not in caplog.text + repr(ticket) + str(caught.value.as_dict())


# --- orders that end otherwise ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("outcome", "cause"), [("text", "I can't make videos of that."), ("empty", "no reason")]
)
def test_completed_without_a_video_is_a_rejection(
    fake: FakeGoogle, google: GoogleBackend, outcome: Any, cause: str, ended: Ended
) -> None:
    fake.outcome = outcome
    status = ended(google, google.submit(order_of(CARD), CARD), CARD)
    assert status.state == "failed"
    assert isinstance(status.error, ContentRejected)
    assert cause in status.error.cause
    assert any("EEA" in hint for hint in status.error.hints)


def test_a_video_that_was_made_and_not_given_is_no_rejection(
    fake: FakeGoogle, google: GoogleBackend, ended: Ended
) -> None:
    fake.outcome = "lost"
    status = ended(google, google.submit(order_of(CARD), CARD), CARD)
    assert status.error is not None
    assert status.error.kind == "unknown"
    assert "may be charged" in status.error.message


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 13, "message": "Try again"}, WorkerUnavailable),
        ({"code": 3, "message": "blocked by the safety filter"}, ContentRejected),
        ({"code": 8, "message": "No room."}, RateLimited),
    ],
)
@pytest.mark.parametrize("place", ["interaction", "step"])
def test_a_failure_is_mapped_wherever_it_stands(
    fake: FakeGoogle,
    google: GoogleBackend,
    place: str,
    error: dict[str, Any],
    kind: type[KinoloomError],
    ended: Ended,
) -> None:
    fake.error = error
    if place == "step":
        fake.outcome = "error"
    else:
        fake.states = ("failed",)
        words = {13: "internal_error", 3: "safety", 8: "RESOURCE_EXHAUSTED"}
        fake.error = error | {"code": words[error["code"]]}
    status = ended(google, google.submit(order_of(CARD), CARD), CARD)
    assert status.state == "failed"
    assert isinstance(status.error, kind)


def test_a_word_nobody_knows_is_work_under_way(fake: FakeGoogle, google: GoogleBackend) -> None:
    fake.states = ("upscaling", "completed")
    ticket = google.submit(order_of(CARD), CARD)
    status = google.poll(ticket, CARD)
    assert (status.state, status.detail) == ("running", "upscaling")
    assert google.poll(ticket, CARD).state == "succeeded"


def test_a_file_that_is_still_stored_is_waited_for(fake: FakeGoogle, google: GoogleBackend) -> None:
    fake.states = ("completed",)
    fake.file_states.extend(["PROCESSING", "ACTIVE", "FAILED"])
    ticket = google.submit(order_of(CARD), CARD)
    assert google.poll(ticket, CARD).state == "running"
    assert google.poll(ticket, CARD).state == "succeeded"
    failed = google.poll(ticket, CARD)
    assert isinstance(failed.error, WorkerUnavailable)


def test_reads_are_made_again(fake: FakeGoogle, google: GoogleBackend) -> None:
    ticket = google.submit(order_of(CARD), CARD)
    fake.polls.extend([(503, "UNAVAILABLE"), (500, "INTERNAL"), (429, "RESOURCE_EXHAUSTED")])
    assert google.poll(ticket, CARD).state == "running"
    assert fake.creates == 1


def test_an_interaction_nobody_knows_is_not_found(google: GoogleBackend) -> None:
    with pytest.raises(NotFound) as caught:
        google.poll(Ticket("v1_gone"), CARD)
    assert "55 days" in caught.value.hints[0]


def test_an_order_is_cancelled(fake: FakeGoogle, google: GoogleBackend) -> None:
    ticket = google.submit(order_of(CARD), CARD)
    assert google.cancel(ticket, CARD).state == "cancelled"
    assert google.poll(ticket, CARD).state == "cancelled"


def test_what_is_finished_is_not_cancelled(
    fake: FakeGoogle, google: GoogleBackend, ended: Ended
) -> None:
    ticket = google.submit(order_of(CARD), CARD)
    ended(google, ticket, CARD)
    assert google.cancel(ticket, CARD).state == "succeeded"


# --- downloads --------------------------------------------------------------------------------


def test_a_download_goes_on_where_it_broke_off(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path, ended: Ended
) -> None:
    ticket = google.submit(order_of(CARD), CARD)
    ended(google, ticket, CARD)
    fake.truncate.extend([100, 200])
    assert google.fetch(ticket, CARD, tmp_path).video.read_bytes() == fake.video
    assert not list(tmp_path.glob("*.part"))


def test_an_expired_address_is_asked_for_anew(
    fake: FakeGoogle,
    google: GoogleBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ended: Ended,
) -> None:
    ticket = google.submit(order_of(CARD), CARD)
    ended(google, ticket, CARD)
    once = google._omni._get  # the fetch's own look happens just before the file expires

    def then_expire(asked: Ticket) -> Any:
        monkeypatch.setattr(google._omni, "_get", once)
        found = once(asked)
        fake.expire()
        return found

    monkeypatch.setattr(google._omni, "_get", then_expire)
    assert google.fetch(ticket, CARD, tmp_path).video.read_bytes() == fake.video


def test_a_file_that_is_gone_for_good_is_not_found(
    fake: FakeGoogle,
    google: GoogleBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    ended: Ended,
) -> None:
    ticket = google.submit(order_of(CARD), CARD)
    ended(google, ticket, CARD)
    found = google._omni._get(ticket)
    fake.expire()
    monkeypatch.setattr(google._omni, "_get", lambda _: found)
    with pytest.raises(NotFound) as caught:
        google.fetch(ticket, CARD, tmp_path)
    assert "48 hours" in caught.value.hints[0]


def test_what_is_no_video_is_refused(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path, ended: Ended
) -> None:
    fake.video = b"<html>not a video</html>"
    ticket = google.submit(order_of(CARD), CARD)
    ended(google, ticket, CARD)
    with pytest.raises(InvalidMedia):
        google.fetch(ticket, CARD, tmp_path)
    fake.outcome = "inline"
    with pytest.raises(InvalidMedia):
        google.fetch(ticket, CARD, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_key_goes_to_nobody_else(
    fake: FakeGoogle,
    google: GoogleBackend,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    made: Made,
) -> None:
    seen: list[tuple[str, Any, Any]] = []

    def noted(url: str, target: Path, *, trusted: bool, headers: Any, **_: Any) -> Path:
        seen.append((url, trusted, headers))
        return target

    monkeypatch.setattr(omni, "download", noted)
    ticket = Ticket("v1_any")
    google._omni._download(f"{GOOGLE}/v1beta/files/ab-1:download?alt=media", ticket, tmp_path)
    google._omni._download("https://storage.example.org/clip.mp4", ticket, tmp_path)
    home = made(GOOGLE)
    home._omni._download(f"{GOOGLE}/v1beta/files/ab-1", ticket, tmp_path)
    key = {"x-goog-api-key": KEY}
    assert seen == [
        (f"{fake.url}/v1beta/files/ab-1:download?alt=media", True, key),
        ("https://storage.example.org/clip.mp4?alt=media", False, {}),
        (f"{GOOGLE}/v1beta/files/ab-1:download?alt=media", False, key),
    ]
