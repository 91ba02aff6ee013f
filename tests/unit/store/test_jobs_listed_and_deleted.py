from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from kinoloom.store.job_record import ACTIVE, FINISHED, JobRecord, JobState
from kinoloom.store.store import Store
from paying import pay


def job(**changes: Any) -> JobRecord:
    values = {
        "queue": "gpu",
        "origin": "api",
        "request": {},
        "task": "t2v",
        "model": "spark",
        "backend": "local",
    }
    return JobRecord(**values | changes)


def test_pages_from_the_oldest_on(store: Store) -> None:
    made = [store.jobs.add(job())[0].id for _ in range(5)]
    first = [j.id for j in store.jobs.list(limit=2, oldest_first=True)]
    assert first == made[:2]
    rest = store.jobs.list(after=first[-1], oldest_first=True)
    assert [j.id for j in rest] == made[2:]
    assert [j.id for j in store.jobs.list(after=made[3])] == made[4:]


@pytest.mark.parametrize("state", FINISHED)
def test_a_finished_job_is_deleted_with_all_that_is_its_own(store: Store, state: JobState) -> None:
    kept, gone = store.jobs.add(job())[0], store.jobs.add(job(state=state))[0]
    assert store.jobs.delete(gone.id)
    assert store.jobs.get(gone.id) is None
    assert store.events.after(0, job_id=gone.id) == []
    assert store.jobs.get(kept.id) is not None
    assert not store.jobs.delete(gone.id)


@pytest.mark.parametrize("state", ACTIVE)
def test_a_job_that_is_not_finished_stays(store: Store, state: JobState) -> None:
    active, _ = store.jobs.add(job(state=state))
    assert not store.jobs.delete(active.id)
    assert store.jobs.get(active.id) is not None


def test_what_a_deleted_job_cost_stays_spent(store: Store) -> None:
    key, _ = store.keys.create("a", ["write"])
    paid, _ = store.jobs.add(job(owner=key.id))
    pay(store, paid.id, "0.25", owner=key.id)
    store.jobs.move(paid.id, "succeeded", expect=ACTIVE)
    assert store.jobs.delete(paid.id)
    assert store.remote_calls.spent(owner=key.id) == Decimal("0.25")


def test_how_many_jobs_have_a_clip(store: Store) -> None:
    for clip in ("one", "one", "two", None):
        store.jobs.add(job(state="succeeded", clip_id=clip))
    assert [store.jobs.with_clip(clip) for clip in ("one", "two", "three")] == [2, 1, 0]


def test_a_job_says_what_it_was_made_after(store: Store) -> None:
    source, _ = store.jobs.add(job())
    made, _ = store.jobs.add(job(remixed_from=source.id))
    found = store.jobs.get(made.id)
    assert found is not None
    assert found.remixed_from == source.id
