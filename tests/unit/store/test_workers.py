from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime, timedelta
from typing import Any

from kinoloom.store import Store
from kinoloom.store.workers import WorkerQueue, WorkerRecord


def worker(name: str = "w", **values: Any) -> WorkerRecord:
    given: dict[str, Any] = {
        "id": name,
        "host": "studio",
        "pid": 7,
        "queues": (WorkerQueue("cuda", "cuda:0", 24 << 30), WorkerQueue("api")),
        "machine": {"cores": 8},
        "version": "1.0",
    }
    return WorkerRecord(**given | values)


def test_a_worker_comes_back_as_it_was(store: Store) -> None:
    kept = worker()
    store.workers.beat(kept)
    found = store.workers.get("w")
    assert found is not None
    assert dataclasses.replace(found, beat_at=kept.beat_at) == kept
    assert store.workers.get("v") is None
    data = json.loads(json.dumps(found.as_dict()))
    assert data["queues"][0] == {"name": "cuda", "device": "cuda:0", "memory_bytes": 24 << 30}
    assert data["beat_at"].endswith("+00:00")


def test_a_beat_brings_a_worker_up_to_date(store: Store) -> None:
    store.workers.beat(worker(pid=7))
    first = store.workers.get("w")
    store.workers.beat(worker(pid=8, queues=()))
    second = store.workers.get("w")
    assert first is not None
    assert second is not None
    assert (second.pid, second.queues) == (8, ())
    assert second.beat_at > first.beat_at
    assert [one.id for one in store.workers.live()] == ["w"]


def test_who_was_not_seen_for_long_is_stale(store: Store) -> None:
    # The worker's own clock does not matter.
    store.workers.beat(worker("a", beat_at=datetime.now(UTC) - timedelta(days=1)))
    store.workers.beat(worker("b", beat_at=datetime.now(UTC) + timedelta(days=1)))
    assert [one.id for one in store.workers.live()] == ["a", "b"]
    assert store.workers.stale() == []
    assert store.workers.live(ttl_seconds=0) == []
    assert [one.id for one in store.workers.stale(ttl_seconds=0)] == ["a", "b"]


def test_a_worker_is_forgotten(store: Store) -> None:
    store.workers.beat(worker())
    store.workers.remove("w")
    store.workers.remove("never there")
    assert store.workers.live() == []
    assert store.workers.get("w") is None
