from __future__ import annotations

import json
import threading
from typing import Any

import pytest

from kinoloom.errors import NotFound
from kinoloom.store import Store
from kinoloom.store.job_record import JobRecord


def added(store: Store, **values: Any) -> str:
    """The id of a new job, whose first event is already there."""
    given: dict[str, Any] = {
        "queue": "gpu",
        "origin": "api",
        "request": {},
        "task": "t2v",
        "model": "spark",
        "backend": "local",
    }
    return store.jobs.add(JobRecord(**given | values))[0].id


def test_events_are_read_on_from_a_number(store: Store) -> None:
    assert store.events.last_number() == 0
    job = added(store)
    numbers = [store.events.add(job, "progress", {"step": step}) for step in range(4)]
    assert numbers == sorted(set(numbers))
    assert store.events.last_number() == numbers[-1]
    found = store.events.after(numbers[1])
    assert [(event.number, event.data) for event in found] == [
        (numbers[2], {"step": 2}),
        (numbers[3], {"step": 3}),
    ]
    assert [event.number for event in store.events.after(numbers[0], limit=1)] == [numbers[1]]
    assert store.events.after(numbers[-1]) == []


def test_an_event_is_json(store: Store) -> None:
    job = added(store)
    store.events.add(job, "log", {"text": "odd \0 \udc80"})
    event = store.events.after(0)[-1]
    data = json.loads(json.dumps(event.as_dict()))
    assert data["job"] == job
    assert data["type"] == "log"
    assert data["data"] == {"text": "odd \0 \udc80"}
    assert data["at"].endswith("+00:00")


def test_events_of_one_job_or_owner(store: Store) -> None:
    mine, other, nobodys = added(store, owner="me"), added(store, owner="you"), added(store)
    for job in (mine, other, nobodys, mine):
        store.events.add(job, "log", {})
    assert {event.job_id for event in store.events.after(0, owner="me")} == {mine}
    assert len(store.events.after(0, owner="me")) == 3
    assert len(store.events.after(0, job_id=other)) == 2
    assert store.events.after(0, job_id=other, owner="me") == []
    assert len(store.events.after(0)) == 7


def test_a_job_that_was_forgotten(store: Store) -> None:
    with pytest.raises(NotFound, match="'gone'"):
        store.events.add("gone", "log", {})
    with pytest.raises(NotFound):
        store.events.set_preview("gone", b"jpeg")
    assert store.events.preview("gone") is None
    assert store.events.after(0) == []


def test_previews(store: Store) -> None:
    job = added(store)
    assert store.events.preview(job) is None
    assert [store.events.set_preview(job, jpeg) for jpeg in (b"one", b"\0\xff")] == [1, 2]
    assert store.events.preview(job) == b"\0\xff"
    told = [event.data for event in store.events.after(0) if event.type == "preview"]
    assert told == [{"number": 1}, {"number": 2}]


def test_what_only_mattered_while_it_ran_goes(store: Store) -> None:
    job, other = added(store), added(store)
    for one in (job, other):
        store.events.add(one, "progress", {"step": 1})
        store.events.set_preview(one, b"jpeg")
        store.events.add(one, "error", {"kind": "timeout"})
    newest = store.events.last_number()
    store.events.thin(job)
    assert [event.type for event in store.events.after(0, job_id=job)] == ["state", "error"]
    assert store.events.preview(job) is None
    assert len(store.events.after(0, job_id=other)) == 4
    assert store.events.preview(other) == b"jpeg"
    store.events.thin(other)
    assert store.events.add(job, "log", {}) > newest  # no number is given twice


def test_a_number_is_never_given_twice(store: Store) -> None:
    job = added(store)
    newest = store.events.add(job, "progress", {})
    store.events.thin(job)
    assert store.events.last_number() < newest
    assert store.events.add(job, "log", {}) > newest


def test_a_reader_misses_nothing_while_many_write(store: Store) -> None:
    """Were a smaller number to appear after a larger one, the reader would never see it."""
    jobs = [added(store) for _ in range(4)]
    start = store.events.last_number()
    failures: list[BaseException] = []
    written: list[int] = []

    def write(job: str) -> None:
        try:
            written.extend(store.events.add(job, "progress", {"step": n}) for n in range(25))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    seen: list[int] = []
    while any(thread.is_alive() for thread in threads):
        seen += [e.number for e in store.events.after(seen[-1] if seen else start, limit=7)]
    while more := store.events.after(seen[-1] if seen else start):
        seen += [event.number for event in more]
    assert failures == []
    assert seen == sorted(written)
    assert len(seen) == 100
