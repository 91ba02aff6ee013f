"""Veo with Google's own SDK and google-auth, against the fake over a real connection."""

from __future__ import annotations

import base64
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from fakes.google import PROJECT, TOKEN, FakeGoogle
from fakes.google_schema import Refused
from fakes.orders import PROMPT, order_of, png
from kinoloom.backends.base import RemoteStatus, Ticket
from kinoloom.backends.google import veo
from kinoloom.backends.google.backend import GoogleBackend
from kinoloom.catalog.loader import Catalog
from kinoloom.errors import (
    ContentRejected,
    Forbidden,
    InvalidMedia,
    InvalidRequest,
    KinoloomError,
    ModelNotFound,
    NotAuthenticated,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Uncertain,
    WorkerUnavailable,
)

CARD = Catalog.load().get("google-veo-3.1")
Made = Callable[..., GoogleBackend]
Ended = Callable[..., RemoteStatus]


@pytest.fixture
def google(fake: FakeGoogle, made: Made, service_account: Path) -> GoogleBackend:
    return made(fake.url, None, project=PROJECT, credentials=service_account)


@pytest.fixture
def with_bucket(
    fake: FakeGoogle, made: Made, service_account: Path, monkeypatch: pytest.MonkeyPatch
) -> GoogleBackend:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", fake.url)
    return made(
        fake.url, None, project=PROJECT, credentials=service_account, bucket="gs://clips/kinoloom"
    )


def test_an_order_is_made_once_followed_and_downloaded(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path
) -> None:
    order = order_of(CARD, audio=True, width=1920, height=1080, frames=144, negative="rain")
    ticket = google.submit(order, CARD)
    assert ticket.endpoint == "us-central1"
    assert [google.poll(ticket, CARD).state for _ in range(2)] == ["running", "succeeded"]
    fetched = google.fetch(ticket, CARD, tmp_path)
    assert fetched.video.read_bytes() == fake.video
    assert fetched.versions == {"model": "veo-3.1-generate-001"}
    assert fake.bill == {PROMPT: 1}
    (only,) = fake.made.values()
    assert only.body["parameters"] == {
        "sampleCount": 1,
        "durationSeconds": 6,
        "seed": 7,
        "aspectRatio": "16:9",
        "resolution": "1080p",
        "generateAudio": True,
        "negativePrompt": "rain",
    }
    assert only.body["labels"] == {"kinoloom-order": order.key}


def test_a_new_process_goes_on_from_the_name_alone(
    fake: FakeGoogle, made: Made, service_account: Path, google: GoogleBackend, tmp_path: Path
) -> None:
    fake.regions["us-central1"] = Refused(404, "NOT_FOUND", "was not found")
    more = {"project": PROJECT, "credentials": service_account}
    first = made(fake.url, None, locations=["us-central1", "europe-west4"], **more)
    ticket = first.submit(order_of(CARD), CARD)
    named = Ticket(ticket.remote_id)  # as a user types it: the region is in the name
    google.poll(named, CARD)
    assert google.poll(named, CARD).state == "succeeded"
    assert google.fetch(named, CARD, tmp_path).video.read_bytes() == fake.video


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("t2v", []),
        ("i2v", ["image"]),
        ("flf2v", ["image", "last_image"]),
        ("r2v", ["references.0", "references.1", "references.2"]),
    ],
)
def test_pictures_go_where_they_belong(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path, task: str, names: list[str]
) -> None:
    inputs = {n: png(tmp_path / f"{n}.png", width=8 + i) for i, n in enumerate(names)}
    google.submit(order_of(CARD, task, inputs=inputs), CARD)
    (only,) = fake.made.values()
    (instance,) = only.body["instances"]
    fields = {"image": "image", "last_image": "lastFrame"}
    sent = [instance[fields[n]] for n in names if n in fields]
    sent += [each["image"] for each in instance.get("referenceImages", [])]
    pictures = [base64.b64decode(each["bytesBase64Encoded"]) for each in sent]
    assert pictures == [inputs[n].read_bytes() for n in names]
    assert instance["prompt"] == PROMPT
    assert only.body["parameters"]["generateAudio"] is False


def test_more_references_than_it_takes_are_refused_before(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path
) -> None:
    inputs = {f"references.{i}": png(tmp_path / f"{i}.png") for i in range(4)}
    with pytest.raises(InvalidRequest) as caught:
        google.submit(order_of(CARD, "r2v", inputs=inputs), CARD)
    (problem,) = caught.value.problems
    assert (problem.field, problem.value) == ("references", "4 pictures")
    assert fake.creates == 0


def test_the_card_says_how_long_each_task_is() -> None:
    assert CARD.frame_rule("t2v").allows(96)
    assert not CARD.frame_rule("r2v").allows(96)
    assert CARD.frame_rule("r2v").allows(192)


def test_a_picture_that_is_too_large_is_refused_before(
    fake: FakeGoogle, google: GoogleBackend, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(veo, "PICTURE_BYTES", 500)
    inputs = {"image": png(tmp_path / "a.png", filler=600)}
    with pytest.raises(InvalidMedia) as caught:
        google.submit(order_of(CARD, "i2v", inputs=inputs, width=2160, height=3840), CARD)
    assert "1920x1080" in caught.value.hints[0]
    inputs = {"references.0": png(tmp_path / "b.png", filler=600)}
    with pytest.raises(InvalidMedia, match="takes 500") as caught:
        google.submit(order_of(CARD, "r2v", inputs=inputs, width=1920, height=1080), CARD)
    assert caught.value.hints == ("Give it smaller, or with less detail.",)
    assert fake.creates == 0


def test_threads_share_it(fake: FakeGoogle, google: GoogleBackend, tmp_path: Path) -> None:
    fake.states = ("completed",)

    def make(number: int) -> bytes:
        ticket = google.submit(order_of(CARD, prompt=f"clip {number}"), CARD)
        assert google.poll(ticket, CARD).state == "succeeded"
        folder = tmp_path / str(number)
        folder.mkdir()
        return google.fetch(ticket, CARD, folder).video.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        videos = list(pool.map(make, range(16)))
    assert videos == [fake.video] * 16
    assert fake.bill == {f"clip {number}": 1 for number in range(16)}
    assert sum(path == "/token" for _, path in fake.asked) == 1


# --- the bucket -------------------------------------------------------------------------------


def test_a_video_in_the_bucket_is_downloaded(
    fake: FakeGoogle, with_bucket: GoogleBackend, ended: Ended, tmp_path: Path
) -> None:
    order = order_of(CARD)
    ticket = with_bucket.submit(order, CARD)
    (only,) = fake.made.values()
    assert only.body["parameters"]["storageUri"] == f"gs://clips/kinoloom/{order.key}/"
    assert ended(with_bucket, ticket, CARD).state == "succeeded"
    fake.truncate.append(100)
    assert with_bucket.fetch(ticket, CARD, tmp_path).video.read_bytes() == fake.video


def test_an_order_without_an_answer_is_found_by_its_video(
    fake: FakeGoogle, with_bucket: GoogleBackend, tmp_path: Path
) -> None:
    order = order_of(CARD)
    fake.drop_create(accepted=True)
    with pytest.raises(Uncertain, match="Nobody knows"):
        with_bucket.submit(order, CARD)
    with pytest.raises(Uncertain, match="cannot be asked") as caught:
        with_bucket.find(order, CARD)
    assert order.key in caught.value.hints[0]
    (only,) = fake.made.values()
    uri = fake.veo_video(only)["gcsUri"]  # Vertex AI goes on and writes it
    found = with_bucket.find(order, CARD)
    assert found == Ticket(uri)
    assert with_bucket.poll(found, CARD).state == "succeeded"
    assert with_bucket.fetch(found, CARD, tmp_path).video.read_bytes() == fake.video
    assert fake.creates == 1


def test_a_video_that_was_deleted_is_not_found(with_bucket: GoogleBackend, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        with_bucket.fetch(Ticket("gs://clips/kinoloom/gone/sample_0.mp4"), CARD, tmp_path)


def test_a_bucket_that_may_not_be_read_is_told(
    fake: FakeGoogle, with_bucket: GoogleBackend, ended: Ended, tmp_path: Path
) -> None:
    ticket = with_bucket.submit(order_of(CARD), CARD)
    ended(with_bucket, ticket, CARD)
    fake.closed_bucket = True
    with pytest.raises(Forbidden) as caught:
        with_bucket.fetch(ticket, CARD, tmp_path)
    assert any("Storage Object User" in hint for hint in caught.value.hints)


def test_without_a_bucket_nothing_can_be_found(google: GoogleBackend) -> None:
    with pytest.raises(Uncertain) as caught:
        google.find(order_of(CARD), CARD)
    assert "backends.google.bucket" in caught.value.hints[0]


# --- regions ----------------------------------------------------------------------------------


@pytest.fixture
def three(fake: FakeGoogle, made: Made, service_account: Path) -> GoogleBackend:
    return made(
        fake.url,
        None,
        project=PROJECT,
        credentials=service_account,
        locations=["us-central1", "us-east5", "europe-west4"],
    )


@pytest.mark.parametrize(
    "refusal",
    [
        Refused(404, "NOT_FOUND", "Publisher Model was not found or you do not have access."),
        Refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded for online prediction requests."),
        Refused(403, "PERMISSION_DENIED", "The model is not available in this region."),
        Refused(400, "FAILED_PRECONDITION", "Unsupported region for this model."),
    ],
)
def test_the_next_region_is_asked_after_a_refusal(
    fake: FakeGoogle, three: GoogleBackend, refusal: Refused
) -> None:
    fake.regions = {"us-central1": refusal, "us-east5": refusal}
    ticket = three.submit(order_of(CARD), CARD)
    assert ticket.endpoint == "europe-west4"
    assert "/locations/europe-west4/" in ticket.remote_id
    assert fake.creates == 3
    assert fake.bill == {PROMPT: 1}


@pytest.mark.parametrize(
    ("status", "kind"), [(None, Uncertain), (500, Uncertain), (503, Uncertain)]
)
def test_no_region_is_asked_after_doubt(
    fake: FakeGoogle, three: GoogleBackend, status: int | None, kind: type[KinoloomError]
) -> None:
    if status is None:
        fake.drop_create(accepted=True)
    else:
        fake.answer_create(status, accepted=True)
    with pytest.raises(kind):
        three.submit(order_of(CARD), CARD)
    assert fake.creates == 1


@pytest.mark.parametrize(
    ("refusal", "kind"),
    [
        (Refused(403, "PERMISSION_DENIED", "Permission denied on the resource."), Forbidden),
        (Refused(400, "INVALID_ARGUMENT", "Invalid prompt."), InvalidRequest),
        (Refused(400, "INVALID_ARGUMENT", "Support codes: 58061214"), ContentRejected),
    ],
)
def test_no_region_is_asked_after_what_all_would_say(
    fake: FakeGoogle, three: GoogleBackend, refusal: Refused, kind: type[KinoloomError]
) -> None:
    fake.regions = {"us-central1": refusal}
    with pytest.raises(kind):
        three.submit(order_of(CARD), CARD)
    assert fake.creates == 1


def test_where_every_region_refuses_waiting_is_told(fake: FakeGoogle, three: GoogleBackend) -> None:
    gone = Refused(404, "NOT_FOUND", "was not found")
    busy = Refused(429, "RESOURCE_EXHAUSTED", "Quota exceeded")
    fake.regions = {"us-central1": gone, "us-east5": busy, "europe-west4": gone}
    with pytest.raises(RateLimited) as caught:
        three.submit(order_of(CARD), CARD)
    assert "europe-west4" in caught.value.cause
    fake.regions = dict.fromkeys(fake.regions, gone)
    with pytest.raises(ModelNotFound):
        three.submit(order_of(CARD), CARD)
    assert not fake.bill


# --- creates and reads that go wrong ----------------------------------------------------------


@pytest.mark.parametrize("body", [b"{not json", {}, {"name": ""}])
def test_an_answer_that_says_nothing_is_uncertain(
    fake: FakeGoogle, google: GoogleBackend, body: Any
) -> None:
    fake.answer_create(200, body, accepted=True)
    with pytest.raises(Uncertain) as caught:
        google.submit(order_of(CARD), CARD)
    assert "kinoloom-order" in caught.value.hints[0]
    assert fake.creates == 1


def test_a_token_that_is_not_accepted_is_told_and_never_shown(
    fake: FakeGoogle, google: GoogleBackend, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ticket = google.submit(order_of(CARD), CARD)
    fake.token = "ya29.another-token-of-the-tests"
    with pytest.raises(NotAuthenticated) as caught:
        google.submit(order_of(CARD), CARD)
    with pytest.raises(NotAuthenticated):
        google.poll(ticket, CARD)
    assert TOKEN not in caplog.text + repr(ticket) + str(caught.value.as_dict())


def test_an_operation_nobody_knows_is_not_found(fake: FakeGoogle, google: GoogleBackend) -> None:
    ticket = google.submit(order_of(CARD), CARD)
    fake.made.clear()
    with pytest.raises(NotFound):
        google.poll(ticket, CARD)


def test_reads_are_made_again(fake: FakeGoogle, google: GoogleBackend) -> None:
    ticket = google.submit(order_of(CARD), CARD)
    fake.polls.extend([(503, "UNAVAILABLE"), (500, "INTERNAL")])
    assert google.poll(ticket, CARD).state == "running"
    assert fake.creates == 1


def test_it_cannot_be_stopped_and_says_so(
    fake: FakeGoogle, google: GoogleBackend, ended: Ended
) -> None:
    ticket = google.submit(order_of(CARD), CARD)
    status = google.cancel(ticket, CARD)
    assert status.state == "running"
    assert "cannot stop it" in status.detail
    assert ended(google, ticket, CARD).state == "succeeded"
    assert google.cancel(ticket, CARD).state == "succeeded"


# --- what the filters hold back ---------------------------------------------------------------


def test_a_filtered_clip_says_what_it_was_filtered_for(
    fake: FakeGoogle, google: GoogleBackend, ended: Ended, tmp_path: Path
) -> None:
    reason = "Veo could not generate videos. Support codes: 61493863, 29310472."
    fake.operation = {"response": {"raiMediaFilteredCount": 1, "raiMediaFilteredReasons": [reason]}}
    ticket = google.submit(order_of(CARD), CARD)
    status = ended(google, ticket, CARD)
    assert status.state == "failed"
    assert isinstance(status.error, ContentRejected)
    assert "violence, celebrities" in status.error.message
    assert status.error.details == {
        "codes": ["61493863", "29310472"],
        "about": ["violence", "celebrities"],
    }
    with pytest.raises(ContentRejected):
        google.fetch(ticket, CARD, tmp_path)


def test_of_a_batch_what_is_left_is_delivered(
    fake: FakeGoogle, google: GoogleBackend, ended: Ended, tmp_path: Path
) -> None:
    data = base64.b64encode(fake.video).decode()
    fake.operation = {
        "response": {
            "raiMediaFilteredCount": 1,
            "raiMediaFilteredReasons": ["Support codes: 90789179"],
            "videos": [{"bytesBase64Encoded": data, "mimeType": "video/mp4"}],
        }
    }
    ticket = google.submit(order_of(CARD), CARD)
    assert ended(google, ticket, CARD).state == "succeeded"
    fetched = google.fetch(ticket, CARD, tmp_path)
    assert fetched.video.read_bytes() == fake.video
    assert "held back 1" in fetched.notes[0]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        ({"code": 13, "message": "Internal error. Please try again."}, WorkerUnavailable),
        ({"code": 8, "message": "Resource exhausted."}, RateLimited),
        ({"code": 3, "message": "Your prompt violates our policies."}, ContentRejected),
        ({"code": 3, "message": "Blocked. Support codes: 58061214"}, ContentRejected),
        ({"code": 7, "message": "The caller cannot write to the bucket."}, Forbidden),
        ({"code": 9, "message": "Billing account is closed: enable billing."}, QuotaExceeded),
        ({"code": 99, "message": "Something new."}, KinoloomError),
    ],
)
def test_the_error_of_an_operation_is_mapped(
    fake: FakeGoogle,
    google: GoogleBackend,
    ended: Ended,
    error: dict[str, Any],
    kind: type[KinoloomError],
) -> None:
    fake.operation = {"error": error}
    status = ended(google, google.submit(order_of(CARD), CARD), CARD)
    assert status.state == "failed"
    assert type(status.error) is kind
    assert error["message"] in status.error.cause


def test_done_with_nothing_is_told(fake: FakeGoogle, google: GoogleBackend, ended: Ended) -> None:
    fake.operation = {"response": {}}
    status = ended(google, google.submit(order_of(CARD), CARD), CARD)
    assert status.error is not None
    assert "gave no video" in status.error.message
