"""A clip that a service makes for a command or a program: durable, and stopped with it."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from fakes.clip import small_mp4
from fakes.plain import PlainService, offer, write_card
from kinoloom import api
from kinoloom.backends.base import RemoteStatus
from kinoloom.config import Settings
from kinoloom.errors import Cancelled, Uncertain
from kinoloom.jobs.progress import Event
from kinoloom.jobs.service import JobService
from kinoloom.media.reader import probe
from kinoloom.media.settings import read_settings
from kinoloom.request import VideoRequest
from kinoloom.store.held import held_store

REQUEST = VideoRequest.checked(prompt="a red ball", seed=7, model="plain-1")


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> PlainService:
    service = PlainService(video=small_mp4(64, 64, 12, 12))
    offer(monkeypatch, plain=service)
    return service


@pytest.fixture
def settings(tmp_path: Path, plain: PlainService) -> Settings:
    (tmp_path / "cards").mkdir()
    write_card(tmp_path / "cards")
    return Settings(
        home=tmp_path / "home", models=tmp_path / "cards", device="cpu", outputs=tmp_path / "out"
    )


@pytest.fixture
def service(settings: Settings) -> Iterator[JobService]:
    opened = JobService(settings, held_store(settings))
    yield opened
    opened.close()


def test_a_program_gets_its_clip(settings: Settings, plain: PlainService, tmp_path: Path) -> None:
    seen: list[Event] = []
    clip = api.run(REQUEST, settings, on_progress=seen.append)
    assert clip.path == tmp_path / "out" / "a-red-ball-7.mp4"
    assert (probe(clip.path).frames, probe(clip.path).width) == (12, 64)
    assert (read_settings(clip.path) or {})["plan"]["model"] == "plain-1"
    assert {"queued", "render", "fetch", "score"} <= {event.phase for event in seen}
    (job,) = held_store(settings).jobs.list()
    assert (job.state, job.cost) == ("succeeded", Decimal("0.5"))
    assert api.run(REQUEST, settings).path == clip.path
    assert plain.most_paid == 1


def test_whatever_the_program_raises_stops_the_order(
    settings: Settings, plain: PlainService
) -> None:
    plain.looks = [RemoteStatus("running")]

    def stop(event: Event) -> None:
        raise Cancelled("Enough.")

    with pytest.raises(Cancelled, match="Enough"):
        api.run(REQUEST, settings, on_progress=stop)
    (job,) = held_store(settings).jobs.list()
    assert (job.state, plain.cancels, job.cost) == ("cancelled", ["remote-1"], Decimal("0.1"))


@pytest.mark.parametrize("accepted", [True, False])
def test_run_again_it_goes_on_with_what_was_uncertain(
    settings: Settings, plain: PlainService, service: JobService, accepted: bool
) -> None:
    plain.findable = False
    lost = Uncertain("No answer.")
    plain.answers.append(("accepted", lost) if accepted else lost)
    with pytest.raises(Uncertain, match="Nobody knows"):
        api.run(REQUEST, settings)
    with pytest.raises(Uncertain):  # it is asked again, and nothing is ordered again
        api.run(REQUEST, settings)
    (job,) = service.list()
    assert job.state == "held"
    number = "remote-1" if accepted else None
    resolved = service.resolve(job.id, remote_id=number, not_accepted=not accepted)
    assert (resolved.state, resolved.error) == ("held", None)
    assert api.run(REQUEST, settings).path.is_file()
    assert plain.most_paid == 1
    assert len(service.list()) == 1
