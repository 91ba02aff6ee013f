from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kinoloom.store import Store
from kinoloom.store.clips import ClipRecord
from kinoloom.store.job_record import ACTIVE, FINISHED, Artefact, JobRecord
from kinoloom.store.measurements import Measurement
from paying import pay
from unit.store.together import at_once


def job(prompt: str = "a red ball", **values: Any) -> JobRecord:
    given: dict[str, Any] = {
        "queue": "gpu",
        "origin": "api",
        "request": {"prompt": prompt},
        "task": "t2v",
        "model": "spark",
        "backend": "local",
        "prompt": prompt,
    }
    return JobRecord(**given | values)


def clip(**values: Any) -> ClipRecord:
    given: dict[str, Any] = {
        "path": Path("ball.mp4"),
        "plan_key": "key",
        "task": "t2v",
        "model": "spark",
        "backend": "local",
        "seed": 1,
        "width": 192,
        "height": 128,
        "frames": 25,
        "fps": 12.0,
        "format": "mp4",
        "request": {"prompt": "a red ball"},
        "plan": {"steps": 12},
    }
    return ClipRecord(**given | values)


MEASUREMENT = Measurement(
    device="cpu",
    model="spark",
    revision="",
    width=192,
    height=128,
    frames=25,
    steps=12,
    guided=True,
    seconds_per_step=1.0,
    load_seconds=2.0,
    overhead_seconds=0.5,
)


def added(store: Store, prompt: str = "a red ball", **values: Any) -> JobRecord:
    return store.jobs.add(job(prompt, **values))[0]


def running(store: Store, **values: Any) -> JobRecord:
    """A job that the worker "w" has in run 2."""
    kept = added(store, **values)
    moved = store.jobs.move(kept.id, "running", expect=["queued"], run=1, run_to=2, worker_to="w")
    assert moved is not None
    return moved


def events(store: Store, job_id: str) -> list[tuple[str, dict[str, Any]]]:
    return [(event.type, dict(event.data)) for event in store.events.after(0, job_id=job_id)]


def test_a_job_comes_back_as_it_was(store: Store) -> None:
    now = datetime.now(UTC)
    kept = job(
        owner="key",
        plan={"seed": 2**63 - 1, "score": 0.5},
        plan_key="p",
        request_key="r",
        deadline_at=now,
        idempotency_key="once",
        webhook="https://example.com/done",
        remixed_from="another",
        error={"kind": "timeout"},
    )
    assert store.jobs.add(kept) == (kept, True)
    assert store.jobs.get(kept.id) == kept
    assert events(store, kept.id) == [("state", {"state": "queued", "run": 1})]
    assert store.jobs.get("nothing") is None


@pytest.mark.parametrize("odd", ["\udc80 byte", "\0 zero", "👩‍🎨 " * 3000])
def test_odd_prompts(store: Store, odd: str) -> None:
    kept = added(store, odd, idempotency_key=odd[:200], owner="\0")
    found = store.jobs.get(kept.id)
    assert found is not None
    assert found.request == {"prompt": odd}
    assert store.jobs.add(job(owner="\0", idempotency_key=odd[:200]))[0].id == kept.id
    assert [one.id for one in store.jobs.list(owner="\0", search=odd[:20])] == [kept.id]
    assert store.jobs.get("\0") is None
    assert store.jobs.list(model="\0", before="\udc80") == []


def test_numbers_that_are_none_become_null(store: Store) -> None:
    kept = added(store, request={"scores": [float("nan"), 1.0, {"psnr": float("inf")}]})
    found = store.jobs.get(kept.id)
    assert found is not None
    assert found.request == {"scores": [None, 1.0, {"psnr": None}]}


def test_as_dict_is_json_and_tells_no_secret() -> None:
    address = "https://user:pass@example.com:8443/done?token=abc#frag"
    data = json.loads(json.dumps(job(webhook=address, request_key="private").as_dict()))
    assert data["webhook"] == "https://***@example.com:8443/done?***"
    assert "request_key" not in data
    assert data["state"] == "queued"
    assert datetime.fromisoformat(data["created_at"]).tzinfo is not None
    assert job().as_dict()["webhook"] is None
    assert job(webhook="http://127.0.0.1:1/x").as_dict()["webhook"] == "http://127.0.0.1:1/x"


def test_asking_twice_is_one_job(store: Store) -> None:
    first, new = store.jobs.add(job(owner="a", idempotency_key="k"))
    assert new
    again, new = store.jobs.add(job("another", owner="a", idempotency_key="k"))
    assert (again, new) == (first, False)
    assert store.jobs.add(job(owner="b", idempotency_key="k"))[1]  # not another key's job
    assert store.jobs.add(job(idempotency_key="k"))[1]  # nor nobody's
    assert not store.jobs.add(job(idempotency_key="k"))[1]
    assert store.jobs.add(job(owner="a"))[1]
    assert store.jobs.add(job(owner="a"))[1]
    assert len(store.jobs.list()) == 5
    assert len(store.events.after(0)) == 5


def test_asking_twice_at_once_is_one_job(store: Store) -> None:
    results = at_once(*(lambda: store.jobs.add(job(idempotency_key="k")) for _ in range(4)))
    assert sorted(new for _, new in results) == [False, False, False, True]
    assert len({found.id for found, _ in results}) == 1


def test_lists_are_filtered_and_in_pages(store: Store) -> None:
    for number in range(5):
        added(store, f"{'Red' if number % 2 else 'blue'} {number}", queue=f"q{number % 2}")
    other = added(store, "red other", model="wan", backend="api", task="i2v", owner="o")
    assert [one.prompt for one in store.jobs.list(limit=2)] == ["red other", "blue 4"]
    assert [one.prompt for one in store.jobs.list(before=other.id, search="red")] == [
        "Red 3",
        "Red 1",
    ]
    assert {one.prompt for one in store.jobs.list(queue="q1")} == {"Red 1", "Red 3"}
    filters: list[dict[str, Any]] = [
        {"model": "wan"},
        {"backend": "api"},
        {"task": "i2v"},
        {"owner": "o"},
    ]
    for values in filters:
        assert store.jobs.list(**values) == [other]
    assert store.jobs.list(model="wan", task="t2v") == []
    store.jobs.move(other.id, "cancelled", expect=ACTIVE)
    assert len(store.jobs.list(states=ACTIVE)) == 5
    assert [one.id for one in store.jobs.list(states=FINISHED)] == [other.id]
    assert store.jobs.list(origin="cli") == []
    assert store.jobs.list(request_key="none") == []


def test_a_move_changes_columns_and_writes_its_event(store: Store) -> None:
    kept = added(store)
    now = datetime.now(UTC)
    moved = store.jobs.move(
        kept.id,
        "running",
        expect=("queued", "held"),
        run=1,
        run_to=2,
        worker_to="w",
        started_at=now,
        detail={"why": "its turn"},
    )
    assert moved == store.jobs.get(kept.id)
    assert moved is not None
    assert (moved.state, moved.run, moved.worker, moved.started_at) == ("running", 2, "w", now)
    assert moved.updated_at >= kept.updated_at
    assert moved.finished_at is None
    assert events(store, kept.id)[1:] == [
        ("state", {"state": "running", "run": 2, "why": "its turn"})
    ]
    failed = store.jobs.move(
        kept.id, "failed", expect=["running"], run=2, worker="w", error={"kind": "timeout"}
    )
    assert failed is not None
    assert failed.finished_at is not None
    assert failed.error == {"kind": "timeout"}
    retried = store.jobs.move(
        kept.id, "queued", expect=["failed"], run_to=3, error=None, finished_at=None
    )
    assert retried is not None
    assert (retried.error, retried.finished_at) == (None, None)


@pytest.mark.parametrize(
    "wrong",
    [
        {"expect": ("held",)},
        {"expect": ()},
        {"expect": ("running",), "run": 1},
        {"expect": ("running",), "worker": "other"},
    ],
)
def test_a_move_that_is_not_as_expected_changes_nothing(
    store: Store, wrong: dict[str, Any]
) -> None:
    kept = running(store)
    before = events(store, kept.id)
    assert store.jobs.move(kept.id, "failed", error={"kind": "x"}, **wrong) is None
    assert store.jobs.get(kept.id) == kept
    assert events(store, kept.id) == before
    assert store.jobs.move("nothing", "failed", expect=ACTIVE) is None


def test_a_column_that_is_none_is_refused(store: Store) -> None:
    kept = added(store)
    with pytest.raises(Exception, match="colour"):
        store.jobs.update(kept.id, run=1, colour="red")  # type: ignore[call-arg]


def test_updates_are_of_one_run(store: Store) -> None:
    kept = running(store)
    assert store.jobs.update(kept.id, run=2, progress={"step": 3}, plan={"seed": 1})
    assert not store.jobs.update(kept.id, run=1, progress={"step": 9})
    found = store.jobs.get(kept.id)
    assert found is not None
    assert (found.progress, found.plan) == ({"step": 3}, {"seed": 1})
    assert len(events(store, kept.id)) == 2


def test_one_of_many_threads_gets_the_job(store: Store) -> None:
    for _ in range(5):
        kept = added(store)

        def take(name: str, kept: JobRecord = kept) -> JobRecord | None:
            return store.jobs.move(
                kept.id, "running", expect=["queued"], run=1, run_to=2, worker_to=name
            )

        results = at_once(*(lambda name=name: take(name) for name in "abcd"))
        winners = [one for one in results if one is not None]
        assert len(winners) == 1
        assert winners[0] == store.jobs.get(kept.id)
        assert len(events(store, kept.id)) == 2


def test_one_of_two_processes_gets_each_job(store: Store, database_url: str | None) -> None:
    code = """
import json, sys
from kinoloom.store import Store
with Store.open(sys.argv[1], database_url=sys.argv[2] or None) as store:
    print("ready", flush=True)
    ids = json.loads(sys.stdin.readline())
    print(json.dumps([i for i in ids if store.jobs.move(
        i, "running", expect=["queued"], run=1, run_to=2, worker_to=sys.argv[3])]))
"""
    jobs = [added(store).id for _ in range(20)]
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(store.home), database_url or "", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for name in ("a", "b")
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write(json.dumps(jobs) + "\n")
        process.stdin.flush()
    got = [json.loads(process.communicate(timeout=120)[0]) for process in processes]
    assert sorted(got[0] + got[1]) == jobs
    for name, ids in zip(("a", "b"), got, strict=True):
        assert [one.id for one in store.jobs.running_on(name)] == ids


def test_counts_states_and_whose_job_it_is(store: Store) -> None:
    first, second, third = added(store), running(store), added(store, queue="api")
    store.jobs.move(third.id, "held", expect=["queued"])
    assert store.jobs.counts() == {"gpu": {"queued": 1, "running": 1}, "api": {"held": 1}}
    assert store.jobs.states([first.id, second.id, "nothing"]) == {
        first.id: ("queued", 1),
        second.id: ("running", 2),
    }
    assert store.jobs.states([]) == {}
    assert [one.id for one in store.jobs.running_on("w")] == [second.id]
    store.jobs.move(second.id, "cancelling", expect=["running"])
    assert [one.id for one in store.jobs.running_on("w")] == [second.id]
    store.jobs.move(second.id, "cancelled", expect=["cancelling"])
    assert store.jobs.running_on("w") == []


def test_what_waits_is_handed_over_once_a_run(store: Store) -> None:
    first, second = added(store), added(store, queue="api")
    added(store, state="held")
    taken = running(store)
    assert [one.id for one in store.jobs.waiting(["gpu", "api"])] == [first.id, second.id]
    assert [one.id for one in store.jobs.waiting(["api"])] == [second.id]
    store.jobs.handed(first.id, 1)
    assert store.jobs.waiting(["gpu"]) == []
    assert [one.id for one in store.jobs.waiting(["gpu"], handed=True)] == [first.id]
    store.jobs.move(first.id, "queued", expect=["queued"], run_to=2)
    assert [one.id for one in store.jobs.waiting(["gpu"])] == [first.id]
    assert taken.id not in {one.id for one in store.jobs.waiting(["gpu"], handed=True)}


def test_what_a_job_needs_stays_as_long_as_it_does(store: Store) -> None:
    digests = [store.assets.put_bytes(data, "image").digest for data in (b"one", b"two")]
    kept, _ = store.jobs.add(job(), inputs=digests)
    assert not store.assets.discard(digests[0])
    assert store.jobs.drop_artefacts(kept.id) == sorted(digests)
    assert store.assets.discard(digests[0])


def test_artefacts_are_of_one_run(store: Store) -> None:
    digest = store.assets.put_bytes(b"frames", "frames").digest
    kept = running(store)
    keep = store.jobs.keep_artefact
    assert keep(kept.id, "render", run=2, digest=digest, data={"fps": 12})
    assert keep(kept.id, "quality", run=2, digest=None, data={})
    assert not keep(kept.id, "render", run=1, digest=None, data={})
    assert store.jobs.artefact(kept.id, "render") == Artefact(digest, {"fps": 12})
    assert keep(kept.id, "render", run=2, digest=digest, data={"fps": 24})
    assert store.jobs.artefact(kept.id, "render") == Artefact(digest, {"fps": 24})
    assert store.jobs.artefact(kept.id, "encode") is None
    store.jobs.move(kept.id, "cancelled", expect=ACTIVE)
    assert not keep(kept.id, "encode", run=2, digest=None, data={})
    assert store.jobs.drop_artefacts(kept.id) == [digest]
    assert store.jobs.artefact(kept.id, "render") is None
    assert store.jobs.drop_artefacts(kept.id) == []


def test_finishing_is_all_in_one(store: Store) -> None:
    kept, made = running(store), clip()
    done = store.jobs.finish(
        kept.id,
        run=2,
        worker="w",
        clip=made,
        measurements=[MEASUREMENT],
        counters={"cache.hits": 2, "clips": 1},
        detail={"seconds": 3.5},
    )
    assert done == store.jobs.get(kept.id)
    assert done is not None
    assert (done.state, done.clip_id, done.reused) == ("succeeded", made.id, False)
    assert done.finished_at is not None
    assert store.clips.get(made.id) == made
    assert store.measurements.recent("cpu", "spark") == (MEASUREMENT,)
    assert store.statistics.totals() == {"cache.hits": 2, "clips": 1}
    assert events(store, kept.id)[2:] == [
        ("state", {"state": "succeeded", "run": 2}),
        ("success", {"clip": made.id, "reused": False, "seconds": 3.5}),
    ]


def test_finishing_with_a_clip_that_was_there(store: Store) -> None:
    made = clip()
    store.clips.add(made)
    kept = running(store)
    done = store.jobs.finish(kept.id, run=2, worker="w", clip=made, reused=True)
    assert done is not None
    assert (done.clip_id, done.reused) == (made.id, True)
    assert len(store.clips.list()) == 1


@pytest.mark.parametrize("fence", ["taken over", "another worker", "cancelling"])
def test_who_lost_the_job_publishes_nothing(store: Store, fence: str) -> None:
    kept, run, worker = running(store), 2, "w"
    if fence == "taken over":
        store.jobs.move(kept.id, "running", expect=["running"], run_to=3)
    elif fence == "another worker":
        worker = "other"
    else:
        store.jobs.move(kept.id, "cancelling", expect=["running"])
    before, history = store.jobs.get(kept.id), events(store, kept.id)
    done = store.jobs.finish(
        kept.id,
        run=run,
        worker=worker,
        clip=clip(),
        measurements=[MEASUREMENT],
        counters={"clips": 1},
    )
    assert done is None
    assert store.jobs.get(kept.id) == before
    assert events(store, kept.id) == history
    assert store.clips.list() == []
    assert store.measurements.recent("cpu", "spark") == ()
    assert store.statistics.totals() == {}


def test_a_clip_that_cannot_be_kept_leaves_the_job_as_it_was(store: Store) -> None:
    kept = running(store)
    with pytest.raises(ValueError, match="asset"):
        store.jobs.finish(
            kept.id, run=2, worker="w", clip=clip(poster="sha256:" + "0" * 64), counters={"c": 1}
        )
    assert store.jobs.get(kept.id) == kept
    assert len(events(store, kept.id)) == 2
    assert store.statistics.totals() == {}


def test_a_takeover_and_a_finish_at_once(store: Store) -> None:
    for _ in range(5):
        kept, made = running(store), clip()
        finished, taken = at_once(
            lambda kept=kept, made=made: store.jobs.finish(  # type: ignore[misc]
                kept.id, run=2, worker="w", clip=made
            ),
            lambda kept=kept: store.jobs.move(  # type: ignore[misc]
                kept.id, "running", expect=["running"], run=2, run_to=3, worker_to="v"
            ),
        )
        assert (finished is None) != (taken is None)
        assert (store.clips.get(made.id) is None) == (finished is None)


def test_old_jobs_are_forgotten_and_what_they_cost_is_not(store: Store) -> None:
    key, _ = store.keys.create("name", ("write",))
    digest = store.assets.put_bytes(b"frames", "frames").digest
    long_ago = datetime.now(UTC) - timedelta(days=100)
    old = added(store, owner=key.id)
    pay(store, old.id, "0.5", owner=key.id)
    store.jobs.keep_artefact(old.id, "render", run=1, digest=digest, data={})
    store.events.set_preview(old.id, b"jpeg")
    store.jobs.move(old.id, "failed", expect=ACTIVE, finished_at=long_ago)
    made = clip()
    done = running(store, owner=key.id)
    pay(store, done.id, "0.25", owner=key.id)
    store.jobs.finish(done.id, run=2, worker="w", clip=made)
    waiting = added(store, created_at=long_ago)
    assert store.jobs.prune(datetime.now(UTC) - timedelta(days=90)) == 1
    assert {one.id for one in store.jobs.list()} == {done.id, waiting.id}
    assert {event.job_id for event in store.events.after(0)} == {done.id, waiting.id}
    assert store.jobs.artefact(old.id, "render") is None
    assert store.events.preview(old.id) is None
    assert store.remote_calls.spent(owner=key.id) == Decimal("0.75")
    assert store.jobs.prune(datetime.now(UTC) + timedelta(days=1)) == 1
    assert store.clips.get(made.id) == made
    assert store.remote_calls.spent(owner=key.id) == Decimal("0.75")
