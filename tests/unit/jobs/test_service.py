from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock
from PIL import Image

from kinoloom.config import Settings
from kinoloom.errors import BudgetExceeded, Conflict, InvalidMedia, InvalidRequest, NotFound
from kinoloom.jobs.locks import lock_file
from kinoloom.jobs.service import JobService, checked_states, request_key
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store
from kinoloom.store.workers import WorkerQueue, WorkerRecord
from paying import pay


@pytest.fixture
def settings(tmp_path: Path, tiny_cards: Path) -> Settings:
    return Settings(home=tmp_path / "home", models=tiny_cards, default_model="tiny", device="cpu")


@pytest.fixture
def service(settings: Settings, store: Store) -> Iterator[JobService]:
    opened = JobService(settings, store)
    yield opened
    opened.close()


def asked(**values: Any) -> VideoRequest:
    return VideoRequest.checked(**({"prompt": "a red ball"} | values))


def test_what_will_run_is_settled_when_a_job_is_handed_in(service: JobService) -> None:
    job = service.submit(asked(), priority=5, timeout=60)
    assert (job.state, job.run, job.priority, job.origin, job.queue) == (
        "queued",
        1,
        5,
        "api",
        "cpu",
    )
    plan = Plan.model_validate(job.plan)
    assert (plan.key, plan.model, plan.task) == (job.plan_key, job.model, "t2v")
    assert plan.seed is not None
    assert job.deadline_at is not None
    left = job.deadline_at - datetime.now(UTC)
    assert timedelta(seconds=0) < left <= timedelta(seconds=60)
    assert service.get(job.id) == job
    (event,) = service.events(job.id)
    assert (event.type, dict(event.data)) == ("state", {"state": "queued", "run": 1})
    assert service.submit(asked(), hold=True).state == "held"


def test_asking_twice_with_one_key_is_asking_once(service: JobService, store: Store) -> None:
    key, _ = store.keys.create("one", ["write"], None)
    other, _ = store.keys.create("two", ["write"], None)
    first = service.submit(asked(), owner=key, idempotency_key="k")
    assert service.submit(asked(seed=3), owner=key, idempotency_key="k") == first
    assert service.submit(asked(), owner=other, idempotency_key="k").id != first.id
    assert service.submit(asked(), owner=key, idempotency_key="l").id != first.id
    assert len(service.list()) == 3


def test_a_folder_of_pictures_is_for_commands_only(service: JobService) -> None:
    with pytest.raises(InvalidRequest) as caught:
        service.submit(asked(format="png"))
    assert caught.value.problems[0].nearest == "mp4"
    assert service.submit(asked(format="png"), origin="cli").state == "queued"
    assert len(service.list()) == 1


def test_a_webhook_needs_something_to_sign_with(
    settings: Settings, store: Store, service: JobService
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        service.submit(asked(), webhook="https://user:secret@example.com")
    assert "secret@" not in str(caught.value.as_dict())


def test_a_key_whose_budget_is_spent_hands_nothing_in(service: JobService, store: Store) -> None:
    key, _ = store.keys.create("poor", ["write"], Decimal(1))
    job = service.submit(asked(), owner=key)
    pay(store, job.id, "1", owner=key.id)
    with pytest.raises(BudgetExceeded, match="used up"):
        service.submit(asked(), owner=key)


def test_given_media_are_opened_in_another_process(
    service: JobService, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError("opened here")

    picture, broken = tmp_path / "picture.png", tmp_path / "broken.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    broken.write_bytes(b"\x89PNG\r\n\x1a\n and then nothing")
    monkeypatch.setattr("PIL.Image.open", refused)
    monkeypatch.setattr("av.open", refused)
    job = service.submit(asked(image=picture))
    assert job.task == "i2v"
    digest = Plan.model_validate(job.plan).inputs.files["image"].digest
    assert store.assets.path(digest).read_bytes() == picture.read_bytes()
    with pytest.raises(InvalidMedia, match=r"broken\.png"):
        service.submit(asked(image=broken))
    # The next one is not held up by it.
    assert service.plan(asked(image=picture)).task == "i2v"


def test_only_ones_own_jobs_are_there(service: JobService, store: Store) -> None:
    mine, _ = store.keys.create("mine", ["write"], None)
    theirs, _ = store.keys.create("theirs", ["write"], None)
    job = service.submit(asked(), owner=mine)
    assert service.get(job.id, owner=mine.id) == job
    for call in (service.get, service.cancel, service.hold, service.release, service.retry):
        with pytest.raises(NotFound, match="There is no job"):
            call(job.id, owner=theirs.id)
    assert service.list(owner=theirs.id) == []
    with pytest.raises(NotFound, match="There is no job 'x"):
        service.events("x" * 5000)


@pytest.mark.parametrize(
    ("state", "allowed"),
    [
        ("held", {"cancel": "cancelled", "release": "queued"}),
        ("queued", {"cancel": "cancelled", "hold": "held"}),
        ("running", {"cancel": "cancelling", "hold": "held"}),
        ("cancelling", {"cancel": "cancelling"}),
        ("succeeded", {}),
        ("failed", {"retry": "queued"}),
        ("cancelled", {"retry": "queued"}),
        ("dead", {"retry": "queued"}),
    ],
)
def test_what_may_be_wished_in_each_state(
    service: JobService, store: Store, state: Any, allowed: dict[str, str]
) -> None:
    for wish in ("cancel", "hold", "release", "retry"):
        job = service.submit(asked(), hold=True)
        if state != "held":
            before = store.jobs.move(job.id, state, expect=["held"], deaths=3, error={"kind": "x"})
            assert before is not None
        if wish not in allowed:
            with pytest.raises(Conflict, match=f"it is {state}"):
                getattr(service, wish)(job.id)
            assert service.get(job.id).state == state
            continue
        after = getattr(service, wish)(job.id)
        assert after.state == allowed[wish]
        # Whoever had it writes nothing any more, once it is given to somebody else.
        assert after.run == (1 if wish == "cancel" else 2)
        if wish == "retry":
            assert (after.deaths, after.error, after.finished_at) == (0, None, None)


def test_a_deadline_that_passed_does_not_hold_for_the_next_try(
    service: JobService, store: Store
) -> None:
    job = service.submit(asked(), timeout=-1)
    store.jobs.move(job.id, "failed", expect=["queued"])
    assert service.retry(job.id).deadline_at is None
    waiting = service.submit(asked(), timeout=60, hold=True)
    assert service.release(waiting.id).deadline_at == waiting.deadline_at


def test_a_commands_own_job_goes_to_the_workers_when_it_is_released(service: JobService) -> None:
    job = service.submit(asked(), origin="cli", queue="cli-1", hold=True)
    assert service.release(job.id).queue == "cpu"


def a_worker(settings: Settings, name: str, *queues: WorkerQueue, **machine: Any) -> WorkerRecord:
    now = datetime.now(UTC)
    known = {"device": "cpu", "free": None, "ram": None, "dtype_bytes": 4} | machine
    return WorkerRecord(
        id=name, host="far", pid=1, queues=queues, machine=known, version="1", started_at=now
    )


def test_a_job_is_planned_for_the_largest_worker_that_is_there(
    settings: Settings, service: JobService, store: Store
) -> None:
    small = WorkerQueue("gpu", "cuda:0", 8 << 30)
    large = WorkerQueue("gpu-80gb", "cuda:0", 80 << 30)
    store.workers.beat(a_worker(settings, "small", small, device="cuda:0 S", free=8 << 30))
    store.workers.beat(a_worker(settings, "large", large, device="cuda:0 L", free=80 << 30))
    store.workers.beat(a_worker(settings, "a command's", device="cpu x"))
    assert service.plan(asked()).device == "cuda:0 L"
    # It fits into the smaller one, too.
    assert service.submit(asked()).queue == "gpu"


def test_the_queues_by_name(settings: Settings, service: JobService, store: Store) -> None:
    store.workers.beat(a_worker(settings, "w", WorkerQueue("gpu", "cuda:0", 5), WorkerQueue("api")))
    for queue in ("gpu", "cli-1", "cli-2"):
        service.submit(asked(), queue=queue)
    failed = service.submit(asked(), queue="gpu")
    store.jobs.move(failed.id, "failed", expect=["queued"])
    found = {queue.pop("name"): queue for queue in service.queues()}
    assert list(found) == ["api", "cli", "gpu"]
    assert found["gpu"] == {
        "waiting": 1,
        "held": 0,
        "active": 0,
        "completed": 0,
        "failed": 1,
        "cancelled": 0,
        "workers": 1,
        "devices": ["cuda:0"],
        "memory": 5,
    }
    assert found["cli"]["waiting"] == 2
    assert (found["api"]["workers"], found["api"]["memory"]) == (1, None)


def test_a_small_preview_and_a_sheet_are_made_once(
    service: JobService, store: Store, tmp_path: Path, make: Any, make_plan: Any
) -> None:
    clip = make(make_plan())
    for made in (service.preview_gif, service.spritesheet):
        digest = made(clip)
        assert store.assets.path(digest).stat().st_size > 100
        assert made(clip) == digest
    clip.path.unlink()
    assert service.preview_gif(clip) in {service.preview_gif(clip)}


def test_states_are_checked_by_their_names() -> None:
    assert checked_states(["queued", "dead"]) == ("queued", "dead")
    with pytest.raises(InvalidRequest) as caught:
        checked_states(["queued", "runing"])
    assert caught.value.problems[0].nearest == "running"


def test_the_same_command_is_known_by_what_it_asks_and_where_it_writes(tmp_path: Path) -> None:
    key = request_key(asked(), tmp_path)
    assert key == request_key(asked(), tmp_path)
    assert key != request_key(asked(), tmp_path / "other")
    assert key != request_key(asked(steps=3), tmp_path)


def test_a_worker_of_this_machine_is_there_while_its_lock_is_held(
    settings: Settings, service: JobService, store: Store
) -> None:
    import socket
    from dataclasses import replace

    record = a_worker(settings, "here", WorkerQueue("cpu", "cpu"))
    store.workers.beat(replace(record, host=socket.gethostname()))
    assert service.queues() == []
    with FileLock(lock_file(settings, "here")):
        assert [queue["workers"] for queue in service.queues()] == [1]
    assert service.queues() == []


def test_jobs_are_listed_and_counted(service: JobService) -> None:
    jobs: list[JobRecord] = [service.submit(asked(prompt=f"ball {n}")) for n in range(3)]
    assert [job.id for job in service.list(limit=2)] == [jobs[2].id, jobs[1].id]
    assert [job.id for job in service.list(before=jobs[1].id)] == [jobs[0].id]
    assert [job.id for job in service.list(search="BALL 1")] == [jobs[1].id]
    assert service.list(states=["held"]) == []
    assert service.statistics()["jobs"] == {"queued": 3}
