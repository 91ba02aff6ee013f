"""Is what became of an order told, and its video fetched, from a server of Replicate's format?"""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from fakes.replicate import FakeReplicate, Prediction
from integration.replicate.asking import VEO, ended, only, order, settings_of
from kinoloom.backends.base import Ticket
from kinoloom.backends.replicate.backend import ReplicateBackend
from kinoloom.errors import (
    ContentRejected,
    InsufficientMemory,
    InvalidMedia,
    KinoloomError,
    NotFound,
)
from kinoloom.server.app import create_app
from kinoloom.store.job_record import JobRecord
from kinoloom.store.remote_calls import Limits
from kinoloom.store.store import Store
from serving import running
from stand_in import until


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
