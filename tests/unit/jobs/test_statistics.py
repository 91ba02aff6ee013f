from __future__ import annotations

from collections.abc import Callable

import pytest

from kinoloom.jobs.statistics import statistics
from kinoloom.planner.plan import Plan
from kinoloom.store.clips import ClipRecord
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store
from paying import pay

pytestmark = pytest.mark.usefixtures("one_thread")


def test_of_nothing(store: Store) -> None:
    found = statistics(store)
    assert (found["clips"], found["frames"], found["cost"]) == (0, 0, "0")
    assert found["average_fps"] is None
    assert found["embeddings"] == found["results"] == {"hits": 0, "misses": 0, "rate": None}
    assert found["tasks"] == found["backends"] == found["jobs"] == {}


def test_of_clips_jobs_and_caches(
    store: Store, make: Callable[..., ClipRecord], make_plan: Callable[..., Plan]
) -> None:
    words = {"prompt": "a ball that no other test has asked for"}  # embeddings stay in memory
    clips = [make(make_plan(**words, steps=2)), make(make_plan(**words, steps=4, frames=17))]
    make(make_plan(**words, steps=2))  # which is there already
    given = {"queue": "api", "origin": "api", "request": {}, "task": "t2v", "model": "m"}
    for backend, cost in (("veo", "0.5"), ("veo", "0.2500001"), ("local", None)):
        job, _ = store.jobs.add(JobRecord(**given, backend=backend))  # type: ignore[arg-type]
        if cost is not None:
            pay(store, job.id, cost, backend=backend)
    found = statistics(store)
    seconds = sum(clip.timings["total"] for clip in clips)
    assert (found["clips"], found["frames"]) == (2, 26)
    assert found["seconds"] == pytest.approx(seconds, abs=0.01)
    assert found["average_fps"] == pytest.approx(26 / seconds, rel=0.01)
    assert found["average_steps"] == 3
    assert found["average_frame_rate"] == 12
    assert found["tasks"] == {"t2v": found["backends"]["local"]}
    assert found["tasks"]["t2v"]["clips"] == 2
    assert found["jobs"] == {"queued": 3}
    assert found["results"] == {"hits": 1, "misses": 2, "rate": pytest.approx(1 / 3, abs=1e-4)}
    assert (found["cost"], found["costs"]) == ("0.750001", {"veo": "0.750001"})
    assert found["saved"]["clips"] == 1
    assert found["saved"]["seconds"] == pytest.approx(seconds / 2, abs=0.01)
    # Both have the same words, which are encoded once.
    assert (found["embeddings"]["hits"], found["embeddings"]["misses"]) == (1, 1)
