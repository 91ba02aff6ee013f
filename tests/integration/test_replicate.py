"""Does the client of Replicate keep its promises, against a server of its wire format?"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from fakes.orders import order_of, png
from fakes.replicate import WEBHOOK_SECRET, FakeReplicate, Prediction
from kinoloom.backends.base import Order, RemoteStatus, Ticket
from kinoloom.backends.replicate.backend import ReplicateBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.config_sections import BackendsSettings, ReplicateSettings
from kinoloom.errors import (
    ContentRejected,
    InsufficientMemory,
    InvalidMedia,
    InvalidRequest,
    KinoloomError,
    ModelNotFound,
    NetworkFailed,
    NotAuthenticated,
    NotFound,
    QuotaExceeded,
    RateLimited,
    Uncertain,
)
from kinoloom.server.app import create_app
from kinoloom.store.ids import new_id
from kinoloom.store.jobs import JobRecord
from kinoloom.store.remote_calls import Limits
from kinoloom.store.store import Store
from serving import running
from stand_in import until


@pytest.fixture
def fake() -> Iterator[FakeReplicate]:
    with FakeReplicate() as fake:
        yield fake


def settings_of(fake: FakeReplicate, tmp_path: Path, **more: Any) -> Settings:
    own: dict[str, Any] = {"api_key": SecretStr(fake.token), "base_url": fake.url}
    own |= {"webhook_secret": SecretStr(WEBHOOK_SECRET)} | more
    return Settings(
        home=tmp_path / "home", backends=BackendsSettings(replicate=ReplicateSettings(**own))
    )


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def backend(fake: FakeReplicate, tmp_path: Path, pauses: list[float]) -> ReplicateBackend:
    return ReplicateBackend(settings_of(fake, tmp_path), sleep=pauses.append)


def card_of(model: str) -> ModelCard:
    return Catalog.load().get(model)


VEO = card_of("replicate-veo-3.1")
KLING = card_of("replicate-kling-v2.5-turbo-pro")
WAN = card_of("replicate-wan-2.2-t2v-fast")


def order(card: ModelCard = VEO, task: str | None = None, **changes: Any) -> Order:
    notify = changes.pop("notify", None)
    made = order_of(card, task, **changes)
    return dataclasses.replace(made, key=new_id(), notify=notify)


def only(fake: FakeReplicate) -> Prediction:
    (one,) = fake.predictions.values()
    return one


def ended(backend: ReplicateBackend, ticket: Ticket, card: ModelCard = VEO) -> RemoteStatus:
    for _ in range(10):
        status = backend.poll(ticket, card)
        if status.state not in ("queued", "running"):
            return status
    raise AssertionError("it does not end")


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


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("The input or output was flagged as sensitive. Please try again. (E005)", ContentRejected),
        ("CUDA out of memory. Tried to allocate 2.00 GiB", InsufficientMemory),
        ("Model ran out of memory (E1001)", InsufficientMemory),
    ],
)
def test_a_prediction_that_fails_says_why(
    backend: ReplicateBackend, fake: FakeReplicate, words: str, kind: type[KinoloomError]
) -> None:
    fake.failures["bad"] = words
    status = ended(backend, backend.submit(order(prompt="bad"), VEO))
    assert status.state == "failed"
    assert isinstance(status.error, kind)
    assert status.charged is None


def test_reads_are_made_again(backend: ReplicateBackend, fake: FakeReplicate) -> None:
    ticket = backend.submit(order(), VEO)
    fake.polls.extend([500, 429, 503])
    assert backend.poll(ticket, VEO).state == "queued"


def test_a_prediction_that_is_not_known_is_not_found(backend: ReplicateBackend) -> None:
    with pytest.raises(NotFound):
        backend.poll(Ticket("../account"), VEO)


@pytest.mark.parametrize(
    ("before", "state", "charged"),
    [(0, "cancelled", Decimal(0)), (2, "cancelled", None), (3, "succeeded", None)],
)
def test_cancelling_says_what_is_left(
    backend: ReplicateBackend, before: int, state: str, charged: Decimal | None
) -> None:
    ticket = backend.submit(order(), VEO)
    for _ in range(before):
        backend.poll(ticket, VEO)
    status = backend.cancel(ticket, VEO)
    assert (status.state, status.charged) == (state, charged)


@pytest.mark.parametrize(
    "output",
    [
        lambda url: [url.replace(".mp4", ".png"), url],
        lambda url: {"audio": url.replace(".mp4", ".wav"), "video": url},
    ],
)
def test_the_video_is_found_in_whatever_the_output_is(
    backend: ReplicateBackend, fake: FakeReplicate, tmp_path: Path, output: Any
) -> None:
    fake.output = output
    ticket = backend.submit(order(), VEO)
    ended(backend, ticket)
    fetched = backend.fetch(ticket, VEO, tmp_path)
    assert fetched.video.read_bytes() == fake.video
    assert "2 files" in fetched.notes[0]


def test_a_download_goes_on_where_it_broke_off(
    backend: ReplicateBackend, fake: FakeReplicate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinoloom.backends.remote.retries._FIRST_SECONDS", 0.001)
    fake.truncate.extend([100, 200])
    ticket = backend.submit(order(), VEO)
    ended(backend, ticket)
    assert backend.fetch(ticket, VEO, tmp_path).video.read_bytes() == fake.video


def test_an_address_that_expired_is_asked_for_anew(
    backend: ReplicateBackend, fake: FakeReplicate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinoloom.backends.remote.retries._FIRST_SECONDS", 0.001)
    ticket = backend.submit(order(), VEO)
    ended(backend, ticket)
    real, looked = fake.told, []

    def told(one: Prediction) -> dict[str, Any]:
        said = real(one)
        if not looked:
            looked.append(1)
            fake.expire()
        return said

    monkeypatch.setattr(fake, "told", told)
    assert backend.fetch(ticket, VEO, tmp_path).video.read_bytes() == fake.video


def test_a_video_that_was_removed_is_not_found_and_says_so(
    backend: ReplicateBackend, fake: FakeReplicate, tmp_path: Path
) -> None:
    ticket = backend.submit(order(), VEO)
    ended(backend, ticket)
    fake.remove_data()
    with pytest.raises(NotFound) as gone:
        backend.fetch(ticket, VEO, tmp_path)
    assert "an hour" in gone.value.cause


def test_what_is_no_video_is_refused(
    backend: ReplicateBackend, fake: FakeReplicate, tmp_path: Path
) -> None:
    fake.video = b"<html>not a video at all</html>"
    ticket = backend.submit(order(), VEO)
    ended(backend, ticket)
    with pytest.raises(InvalidMedia):
        backend.fetch(ticket, VEO, tmp_path)


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


def test_a_webhook_of_replicate_has_its_call_looked_at(
    backend: ReplicateBackend, fake: FakeReplicate, tmp_path: Path
) -> None:
    own = settings_of(fake, tmp_path)
    with Store.of(own) as store:
        record = JobRecord(
            queue="api", origin="api", request={}, task="t2v", model=VEO.id, backend="replicate"
        )
        job = store.jobs.add(record)[0].id
        call = store.remote_calls.reserve(
            job, 0, backend="replicate", model=VEO.id, amount=None, limits=Limits()
        )
        assert store.remote_calls.send(call.id)
        app = create_app(own, store, None, require_key=True)  # type: ignore[arg-type]
        with running(app) as address:
            fake.deliver_to = address
            url = f"https://studio.example/api/hooks/replicate/{call.id}"
            backend.submit(dataclasses.replace(order(), key=call.id, notify=url), VEO)
            fake.finish(only(fake))
            until(lambda: bool(fake.delivered))
        assert fake.delivered == [204]
        nudged = store.remote_calls.get(call.id)
        assert nudged is not None
        assert nudged.nudged_at is not None
