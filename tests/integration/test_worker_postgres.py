"""A worker, its engine and its store on a real PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from pydantic import SecretStr

from factory import Factory, dead_worker, listening, running_on, working
from kinoloom.config import Settings
from kinoloom.jobs import engine, job_run
from kinoloom.jobs import worker as module
from kinoloom.store.store import Store
from services import PostgresServer
from stand_in import until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory, tiny_cards: Path
) -> Iterator[Factory]:
    """One worker for all tests, which leave it at rest."""
    folder, url = tmp_path_factory.mktemp("worker"), postgres_server.create()
    settings = Settings(
        home=folder / "home",
        models=tiny_cards,
        default_model="tiny",
        device="cpu",
        outputs=folder / "out",
        database_url=SecretStr(url),
        webhook_secret=SecretStr("whsec_c2VjcmV0"),
        worker_ttl=5,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(job_run, "_PAUSE", 0.0)
        patch.setattr(module, "POLL_SECONDS", 0.02)
        for limits in ("_API_LIMITS", "_WEBHOOK_LIMITS"):
            patch.setattr(module, limits, replace(getattr(module, limits), poll=0.02))
        patch.setattr(module, "_ANNOUNCED_SECONDS", 0.0)
        patch.setattr(engine, "_WEBHOOK_SECONDS", 0.05)
        with Store.of(settings) as store, working(settings, store) as factory:
            yield factory
    postgres_server.drop(url)


@pytest.fixture
def factory(place: Factory) -> Iterator[Factory]:
    yield place
    place.child.open.set()
    place.child.before = lambda _command: None
    until(lambda: not place.store.jobs.running_on("here"))


def test_jobs_are_made_one_at_a_time_the_most_urgent_first(factory: Factory) -> None:
    first = factory.busy()
    factory.child.order.clear()
    waiting = [
        factory.submit(name, priority=priority)
        for name, priority in (("late", 900), ("usual", 100), ("soon", 0))
    ]
    until(lambda: not factory.store.jobs.waiting(["cpu"]))
    factory.child.open.set()
    assert {factory.ended(job).state for job in (first, *waiting)} == {"succeeded"}
    assert factory.child.order == ["soon", "usual", "late"]
    clip = factory.clip(first)
    assert clip is not None
    assert clip.asset is not None
    assert factory.store.assets.path(clip.asset).is_file()


def test_of_many_who_ask_at_once_with_one_key_one_is_heard(factory: Factory) -> None:
    with ThreadPoolExecutor(8) as pool:
        jobs = list(pool.map(lambda _: factory.submit(idempotency_key="k", hold=True), range(16)))
    assert len({job.id for job in jobs}) == 1
    factory.service.release(jobs[0].id)
    assert factory.ended(jobs[0]).state == "succeeded"


def test_a_job_is_cancelled_held_released_and_tried_again(factory: Factory) -> None:
    cancelled = factory.busy()
    factory.service.cancel(cancelled.id)
    assert factory.ended(cancelled).state == "cancelled"
    held = factory.busy()
    factory.service.hold(held.id)
    until(lambda: not factory.store.jobs.running_on("here"))
    assert factory.state(held) == "held"
    factory.child.open.set()
    factory.service.release(held.id)
    factory.service.retry(cancelled.id)
    assert factory.ended(held).state == factory.ended(cancelled).state == "succeeded"


def test_the_jobs_of_a_worker_that_died_are_taken_over(factory: Factory) -> None:
    job, last = running_on(factory, "gone"), running_on(factory, "gone", deaths=2)
    dead_worker(factory, "gone")
    done = factory.ended(job)
    assert (done.state, done.run, done.deaths, done.worker) == ("succeeded", 2, 1, "here")
    assert factory.ended(last).state == "dead"


def test_the_end_of_every_job_is_told(factory: Factory) -> None:
    with listening(503, 200) as (url, heard):
        done = factory.ended(factory.submit(webhook=url))
        until(lambda: len(heard) == 2)
        waited = factory.submit(webhook=url, hold=True)
        factory.service.cancel(waited.id)
        until(lambda: len(heard) == 3)
        told = [message for message, _ in heard]
        assert told == [f"msg_{done.id}_1", f"msg_{done.id}_1", f"msg_{waited.id}_1"]
        assert b'"type":"job.cancelled"' in heard[-1][1]
