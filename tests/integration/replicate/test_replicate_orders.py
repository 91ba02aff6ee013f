"""Does an order reach Replicate once, as its card says, and is a lost one found again?"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from fakes.orders import png
from fakes.replicate import FakeReplicate, Prediction
from integration.replicate.asking import KLING, VEO, WAN, card_of, only, order, settings_of
from kinoloom.backends.replicate.backend import ReplicateBackend
from kinoloom.errors import (
    InvalidRequest,
    KinoloomError,
    ModelNotFound,
    NetworkFailed,
    NotAuthenticated,
    QuotaExceeded,
    RateLimited,
    Uncertain,
)
from kinoloom.store.ids import new_id


def test_an_order_becomes_a_video(
    backend: ReplicateBackend, fake: FakeReplicate, tmp_path: Path
) -> None:
    asked = order(audio=True, negative="rain")
    ticket = backend.submit(asked, VEO)
    assert only(fake).input == {
        "prompt": asked.take.prompt,
        "negative_prompt": "rain",
        "aspect_ratio": "16:9",
        "resolution": "720p",
        "duration": 8,
        "generate_audio": True,
        "seed": 7,
    }
    states = [backend.poll(ticket, VEO) for _ in range(3)]
    assert [s.state for s in states] == ["queued", "running", "succeeded"]
    assert (states[1].progress, states[1].step, states[1].steps) == (0.45, 9, 20)
    assert states[2].charged is None
    fetched = backend.fetch(ticket, VEO, tmp_path)
    assert fetched.video.read_bytes() == fake.video
    assert fetched.versions == {"replicate": "google/veo-3.1"}
    assert fake.bill == {asked.take.prompt: 1}
    assert fake.leaked == []


def test_sound_that_is_not_wanted_is_said_not_to_be(
    backend: ReplicateBackend, fake: FakeReplicate
) -> None:
    backend.submit(order(audio=False), VEO)
    assert only(fake).input["generate_audio"] is False


def test_pictures_go_into_the_fields_of_the_card(
    backend: ReplicateBackend, fake: FakeReplicate, tmp_path: Path
) -> None:
    small, large = png(tmp_path / "a.png"), png(tmp_path / "b.png", filler=300_000)
    inputs = {"image": small, "last_image": large}
    backend.submit(order(KLING, "flf2v", inputs=inputs), KLING)
    sent = only(fake).input
    assert sent["start_image"].startswith("data:image/png;base64,")
    assert fake.files[sent["end_image"]] == large.read_bytes()
    assert sent["duration"] == 5
    assert "seed" not in sent


def test_references_are_a_list_in_their_order(
    backend: ReplicateBackend, fake: FakeReplicate, tmp_path: Path
) -> None:
    card = card_of("replicate-veo-3.1-references")
    files = {f"references.{i}": png(tmp_path / f"{i}.png", filler=300_000 + i) for i in range(3)}
    backend.submit(order(card, inputs=files), card)
    sent = only(fake).input["reference_images"]
    assert [fake.files[a] for a in sent] == [
        files[f"references.{i}"].read_bytes() for i in range(3)
    ]


def test_a_model_that_counts_frames_is_told_frames(
    backend: ReplicateBackend, fake: FakeReplicate
) -> None:
    backend.submit(order(WAN), WAN)
    assert only(fake).input == {
        "prompt": order(WAN).take.prompt,
        "num_frames": 81,
        "frames_per_second": 16,
        "aspect_ratio": "16:9",
        "resolution": "480p",
        "interpolate_output": False,
        "seed": 7,
    }


def test_what_a_model_has_no_field_for_is_refused_before_anything_is_paid(
    backend: ReplicateBackend, fake: FakeReplicate
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        backend.submit(order(WAN, negative="rain", audio=True), WAN)
    assert [p.field for p in refused.value.problems] == ["negative", "audio"]
    assert fake.creates == 0


def test_a_schema_is_read_once_for_a_while(backend: ReplicateBackend, fake: FakeReplicate) -> None:
    for _ in range(3):
        backend.submit(order(), VEO)
    assert fake.asked.count(("GET", "/v1/models/google/veo-3.1")) == 1
    assert fake.creates == 3


def test_a_webhook_is_named_only_where_it_can_be_called_and_believed(
    backend: ReplicateBackend, fake: FakeReplicate, tmp_path: Path
) -> None:
    asked = order(notify="https://studio.example/api/hooks/replicate/x")
    backend.submit(order(notify="http://192.0.2.1/api/hooks"), VEO)
    ReplicateBackend(settings_of(fake, tmp_path, webhook_secret=None)).submit(asked, VEO)
    assert [p.webhook for p in fake.predictions.values()] == [None, None]
    fake.predictions.clear()
    backend.submit(asked, VEO)
    assert only(fake).webhook == asked.notify


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (
            401,
            {"title": "Unauthenticated", "detail": "Invalid token.", "status": 401},
            NotAuthenticated,
        ),
        (
            402,
            {"title": "Insufficient credit", "detail": "You have insufficient credit."},
            QuotaExceeded,
        ),
        (422, {"title": "Input validation failed", "detail": "- input: no"}, InvalidRequest),
        (
            404,
            {"title": "Not found", "detail": "The requested resource could not be found."},
            ModelNotFound,
        ),
        (429, {"detail": "Request was throttled. Your rate limit resets in ~30s."}, RateLimited),
    ],
)
def test_an_order_that_is_refused_is_told_why_and_is_not_sent_again(
    backend: ReplicateBackend,
    fake: FakeReplicate,
    status: int,
    body: Any,
    kind: type[KinoloomError],
) -> None:
    fake.answer_create(status, body)
    with pytest.raises(kind) as refused:
        backend.submit(order(), VEO)
    assert fake.creates == 1
    assert not fake.bill
    if isinstance(refused.value, RateLimited):
        assert refused.value.retry_after == 30.0


@pytest.mark.parametrize("accepted", [True, False])
@pytest.mark.parametrize("status", [None, 500, 502])
def test_an_order_without_an_answer_is_uncertain_and_is_not_sent_again(
    backend: ReplicateBackend, fake: FakeReplicate, accepted: bool, status: int | None
) -> None:
    if status is None:
        fake.drop_create(accepted=accepted)
    else:
        fake.answer_create(status, {"detail": "oops"}, accepted=accepted)
    with pytest.raises(Uncertain):
        backend.submit(order(), VEO)
    assert fake.creates == 1


def test_an_answer_that_cannot_be_read_is_uncertain(
    backend: ReplicateBackend, fake: FakeReplicate
) -> None:
    for body in (b"<html>", {"status": "starting"}, []):
        fake.answer_create(201, body, accepted=True)
        with pytest.raises(Uncertain):
            backend.submit(order(), VEO)


def test_where_nothing_listens_nothing_was_sent(fake: FakeReplicate, tmp_path: Path) -> None:
    backend = ReplicateBackend(settings_of(fake, tmp_path), sleep=lambda _: None)
    backend.submit(order(), VEO)  # the form is known
    fake._server.shutdown()
    fake._server.server_close()
    with pytest.raises(NetworkFailed):
        backend.submit(order(), VEO)


@pytest.mark.parametrize("tells", [True, False])
def test_a_lost_order_is_found_by_its_webhook_whatever_else_there_is(
    backend: ReplicateBackend, fake: FakeReplicate, tells: bool
) -> None:
    fake.tells_webhook = tells
    for _ in range(4):  # more than one page, and alike but for the key
        backend.submit(order(), VEO)
    asked = order()
    asked = dataclasses.replace(
        asked, notify=f"https://studio.example/api/hooks/replicate/{asked.key}"
    )
    fake.drop_create(accepted=True)
    with pytest.raises(Uncertain):
        backend.submit(asked, VEO)
    for _ in range(4):
        backend.submit(order(), VEO)
    (mine,) = [p for p in fake.predictions.values() if p.webhook]
    found = backend.find(asked, VEO)
    assert found is not None
    assert found.remote_id == mine.id


def test_an_order_that_never_arrived_is_known_not_to_be_there(
    backend: ReplicateBackend, fake: FakeReplicate, pauses: list[float]
) -> None:
    asked = order()
    backend.submit(order(prompt="another"), VEO)
    backend.submit(order(WAN), WAN)
    fake.drop_create(accepted=False)
    with pytest.raises(Uncertain):
        backend.submit(asked, VEO)
    assert backend.find(asked, VEO) is None
    assert sum(pauses) == 30  # it was looked for long enough


def test_a_lost_order_is_found_although_it_was_listed_late(
    fake: FakeReplicate, tmp_path: Path
) -> None:
    hidden: dict[str, Prediction] = {}

    def later(_: float) -> None:
        fake.predictions |= hidden

    backend = ReplicateBackend(settings_of(fake, tmp_path), sleep=later)
    asked = order()
    fake.drop_create(accepted=True)
    with pytest.raises(Uncertain):
        backend.submit(asked, VEO)
    hidden, fake.predictions = fake.predictions, {}
    found = backend.find(asked, VEO)
    assert found is not None
    assert found.remote_id in hidden


def test_what_may_be_the_order_and_may_not_is_left_to_the_user(
    backend: ReplicateBackend, fake: FakeReplicate
) -> None:
    fake.tells_deadline = False
    asked = order()
    fake.drop_create(accepted=True)
    with pytest.raises(Uncertain):
        backend.submit(asked, VEO)
    with pytest.raises(Uncertain) as doubt:
        backend.find(asked, VEO)
    assert doubt.value.details["candidates"] == [only(fake).id]


def test_what_was_sent_with_it_may_be_gone_after_an_hour(
    backend: ReplicateBackend, fake: FakeReplicate
) -> None:
    asked = order()
    fake.drop_create(accepted=True)
    with pytest.raises(Uncertain):
        backend.submit(asked, VEO)
    fake.remove_data()
    with pytest.raises(Uncertain):
        backend.find(asked, VEO)


def test_a_form_that_has_changed_meanwhile_leaves_it_to_the_user(
    fake: FakeReplicate, tmp_path: Path
) -> None:
    asked = order()
    first = ReplicateBackend(settings_of(fake, tmp_path), sleep=lambda _: None)
    fake.drop_create(accepted=True)
    with pytest.raises(Uncertain):
        first.submit(asked, VEO)
    del fake.models["google/veo-3.1"]["components"]["schemas"]["Input"]["properties"]["seed"]
    later = ReplicateBackend(settings_of(fake, tmp_path), sleep=lambda _: None)
    with pytest.raises(Uncertain) as doubt:
        later.find(asked, VEO)
    assert doubt.value.details["candidates"] == [only(fake).id]
    fake.predictions.clear()
    assert later.find(asked, VEO) is None


def test_an_older_prediction_that_is_alike_is_not_taken(
    backend: ReplicateBackend, fake: FakeReplicate
) -> None:
    asked = order()
    backend.submit(dataclasses.replace(asked, key=new_id()), VEO)
    assert backend.find(asked, VEO) is None


def test_a_token_is_verified_by_one_free_read(
    backend: ReplicateBackend, fake: FakeReplicate, tmp_path: Path
) -> None:
    assert backend.verify().ready
    assert fake.asked == [("GET", "/v1/account")]
    wrong = ReplicateBackend(settings_of(fake, tmp_path, api_key=SecretStr("r8_wrong_token_here")))
    told = wrong.verify()
    assert not told.ready
    assert "r8_wrong" not in str(told)
    assert "REPLICATE_API_TOKEN" in told.hints[0]


def test_no_secret_is_in_a_ticket(backend: ReplicateBackend, fake: FakeReplicate) -> None:
    ticket = backend.submit(order(), VEO)
    assert fake.token not in str(ticket)
    assert dict(ticket.data) == {"model": "google/veo-3.1"}
