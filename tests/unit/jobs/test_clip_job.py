"""One run of a job after the other, with a stand-in for the child that renders."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kinoloom.config import Settings
from kinoloom.errors import InsufficientMemory, WorkerUnavailable
from kinoloom.jobs import job_run
from kinoloom.store.cache.bytes import MISSES
from kinoloom.store.store import Store
from stand_in import JPEG
from workshop import Workshop

DIED = WorkerUnavailable("The process that renders was killed by SIGSEGV.")
STEPS = ["render", "score", "poster", "encode"]


@pytest.fixture
def shop(
    tmp_path: Path, tiny_cards: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Workshop]:
    monkeypatch.setattr(job_run, "_PAUSE", 0.0)
    settings = Settings(
        home=tmp_path / "home",
        models=tiny_cards,
        default_model="tiny",
        device="cpu",
        outputs=tmp_path / "out",
    )
    workshop = Workshop(settings, store)
    yield workshop
    workshop.service.close()


def test_a_job_of_the_server_becomes_a_clip_that_the_store_keeps(shop: Workshop) -> None:
    job = shop.make()
    assert (job.state, job.clip_id, job.reused, job.error) == ("succeeded", job.id, False, None)
    assert job.finished_at is not None
    clip = shop.store.clips.get(job.id)
    assert clip is not None
    assert (clip.path, clip.job_id, clip.plan_key) == (Path(f"{job.id}.mp4"), job.id, job.plan_key)
    assert clip.asset is not None
    video = shop.store.assets.path(clip.asset).read_text()
    assert video == f"mp4 {job.id}: frames of a red ball, seed 7"
    assert clip.digest == clip.asset
    assert clip.versions["torch"] == "0"
    assert not shop.settings.outputs.exists()
    assert shop.assets() == ["clip", "poster"]
    assert list((shop.settings.home / "work").iterdir()) == []
    plan = job.plan or {}
    assert len(shop.store.measurements.recent(str(plan["device"]), "tiny")) == 1
    assert shop.store.statistics.totals()[MISSES] == 1


def test_a_job_of_a_command_becomes_a_file_in_its_folder(shop: Workshop, tmp_path: Path) -> None:
    job = shop.make(origin="cli")
    clip = shop.store.clips.get(job.id)
    assert clip is not None
    assert clip.asset is None
    assert clip.path == tmp_path / "out" / "a-red-ball-7.mp4"
    assert clip.path.read_text() == f"mp4 {job.id}: frames of a red ball, seed 7"
    assert list(clip.path.parent.iterdir()) == [clip.path]
    assert "frames" not in shop.assets()


def test_a_folder_of_frames_is_written_where_it_belongs(shop: Workshop, tmp_path: Path) -> None:
    job = shop.make(origin="cli", format="png")
    clip = shop.store.clips.get(job.id)
    assert clip is not None
    assert (clip.path, clip.digest) == (tmp_path / "out" / "a-red-ball-7", None)
    assert [file.name for file in clip.path.iterdir()] == ["00001.png"]


def test_what_is_told_of_a_job_in_its_order(shop: Workshop) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []
    waiting = shop.submit()

    def before(command: str) -> None:
        if command == "encode":
            seen.extend(shop.events(waiting))
            assert shop.store.events.preview(waiting.id) == JPEG

    shop.child.before = before
    job = shop.carry_out(waiting)
    progress = {"phase": "denoise", "steps": 3, "take": 1, "takes": 1}
    assert seen[:2] == [
        ("state", {"state": "queued", "run": 1}),
        ("state", {"state": "running", "run": 1}),
    ]
    # Of one phase's steps the first and the last are always told.
    told = [data for kind, data in seen if kind == "progress"]
    seconds = [data.pop("elapsed") for data in told]
    assert seconds == sorted(seconds)
    assert told[0] == {**progress, "step": 1, "eta": pytest.approx(0.2)}
    assert told[-1] == {**progress, "step": 3, "eta": 0.0}
    assert [data for kind, data in seen if kind == "preview"] == [{"number": n} for n in (1, 2, 3)]
    # What is of no interest once it is done goes; the rest stays.
    assert shop.events(job) == [
        *seen[:2],
        ("state", {"state": "succeeded", "run": 1}),
        ("success", {"clip": job.id, "reused": False}),
    ]
    assert shop.store.events.preview(job.id) is None
    assert [m["step"] for m in shop.told if m["type"] == "progress"] == [1, 2, 3]


@pytest.mark.parametrize("at", STEPS)
@pytest.mark.parametrize("origin", ["api", "cli"])
def test_no_finished_step_is_done_again_after_a_failure(
    shop: Workshop, at: str, origin: str
) -> None:
    shop.child.dies(at, DIED, DIED)
    failed = shop.make(origin=origin)
    assert failed.state == "failed"
    assert failed.error is not None
    assert failed.error["kind"] == "worker_unavailable"
    assert shop.child.calls == [*STEPS[: STEPS.index(at)], at, at]
    shop.child.calls.clear()
    waiting = shop.service.retry(failed.id)
    assert (waiting.state, waiting.run, waiting.error) == ("queued", 2, None)
    job = shop.carry_out(waiting)
    assert (job.state, job.run) == ("succeeded", 2)
    assert shop.child.calls == STEPS[STEPS.index(at) :]
    assert "frames" not in shop.assets()


def test_a_child_that_dies_once_is_not_the_jobs_fault(shop: Workshop) -> None:
    shop.child.dies("render", DIED)
    job = shop.make()
    assert job.state == "succeeded"
    assert ("log", {"message": f"{DIED.message} It is tried once more."}) in shop.events(job)
    assert shop.child.calls == ["render", *STEPS]


def test_an_error_of_the_child_ends_the_job_as_it_was(shop: Workshop) -> None:
    error = InsufficientMemory("Too large.", cause="It needs 80 GB.", hints=["Make it smaller."])
    shop.child.dies("render", error)
    job = shop.make()
    assert (job.state, job.clip_id) == ("failed", None)
    assert job.error == error.as_dict()
    assert shop.events(job)[-1] == (
        "state",
        {"state": "failed", "run": 1, "error": error.as_dict()},
    )
    assert shop.child.calls == ["render"]


def test_a_job_out_of_time_says_so(shop: Workshop) -> None:
    shop.child.before = lambda _command: setattr(shop.watch, "late", True)
    job = shop.make()
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["kind"] == "timeout"
    assert f"{shop.settings.job_timeout} seconds" in job.error["cause"]


@pytest.mark.parametrize("at", STEPS)
@pytest.mark.parametrize("origin", ["api", "cli"])
def test_a_run_that_is_over_writes_nothing(shop: Workshop, at: str, origin: str) -> None:
    waiting = shop.submit(origin=origin)
    # As when its worker was thought dead: somebody else has it by now.
    before = {"events": 0}

    def take_over(command: str) -> None:
        if command == at and shop.service.get(waiting.id).run == 1:
            shop.service.hold(waiting.id)
            shop.service.release(waiting.id)
            before["events"] = len(shop.events(waiting))

    shop.child.before = take_over
    job = shop.carry_out(waiting)
    assert (job.state, job.run, job.worker, job.clip_id) == ("queued", 3, None, None)
    assert (job.error, job.progress is None) == (None, at == "render")
    assert len(shop.events(job)) == before["events"]
    assert shop.store.clips.list() == []
    assert not shop.settings.outputs.exists() or list(shop.settings.outputs.iterdir()) == []
    name = {"render": "render:0", "score": "quality:0", "poster": "poster", "encode": "encode"}[at]
    assert shop.store.jobs.artefact(job.id, name) is None
    assert shop.store.measurements.recent(str((job.plan or {})["device"]), "tiny") == ()
    # And whoever has it finishes it.
    assert shop.carry_out(job, worker="there").state == "succeeded"
    assert len(shop.store.clips.list()) == 1


def test_a_run_that_is_over_just_before_the_end_publishes_nothing(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = shop.submit()
    finish = shop.store.jobs.finish

    def late(*arguments: Any, **options: Any) -> object:
        monkeypatch.undo()
        shop.service.hold(waiting.id)
        return finish(*arguments, **options)

    monkeypatch.setattr(shop.store.jobs, "finish", late)
    job = shop.carry_out(waiting)
    assert (job.state, job.clip_id) == ("held", None)
    assert shop.store.clips.list() == []
    assert [kind for kind, _ in shop.events(job)].count("success") == 0


def test_publishing_again_writes_to_the_same_place(
    shop: Workshop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waiting = shop.submit(origin="cli")

    def crash(*_: object, **__: object) -> object:
        raise SystemExit  # between the file and its record

    with monkeypatch.context() as patch:
        patch.setattr(shop.store.jobs, "finish", crash)
        with pytest.raises(SystemExit):
            shop.carry_out(waiting)
    place = tmp_path / "out" / "a-red-ball-7.mp4"
    assert place.exists()
    shop.service.hold(waiting.id)
    shop.child.calls.clear()
    job = shop.carry_out(shop.service.release(waiting.id))
    assert job.state == "succeeded"
    assert shop.child.calls == []
    assert list(place.parent.iterdir()) == [place]


def test_the_best_candidate_is_kept_and_the_others_are_recorded(shop: Workshop) -> None:
    shop.child.overall = lambda frames: 0.9 if frames.endswith("8") else 0.2
    job = shop.make(candidates=3)
    clip = shop.store.clips.get(job.id)
    assert clip is not None
    assert (clip.seed, clip.scores["overall"]) == (8, 0.9)
    assert clip.asset is not None
    assert shop.store.assets.path(clip.asset).read_text().endswith("seed 8")
    assert [(take["seed"], take["scores"]["overall"]) for take in clip.takes] == [
        (7, 0.2),
        (8, 0.9),
        (9, 0.2),
    ]
    for take in clip.takes:
        assert shop.store.assets.path(take["asset"]).read_text().endswith(f"seed {take['seed']}")
    assert shop.assets() == ["clip", "poster", "take", "take", "take"]
    assert shop.child.calls.count("render") == 3
    assert len(shop.store.measurements.recent(str((job.plan or {})["device"]), "tiny")) == 3


def test_candidates_that_were_finished_are_not_made_again(shop: Workshop) -> None:
    done: list[str] = []

    def fail_at_the_second(command: str) -> None:
        if command == "render":
            done.append(command)
            if len(done) == 2:
                raise InsufficientMemory("Too large.")

    shop.child.before = fail_at_the_second
    failed = shop.make(candidates=2)
    assert failed.state == "failed"
    shop.child.calls.clear()
    job = shop.carry_out(shop.service.retry(failed.id))
    assert job.state == "succeeded"
    assert shop.child.calls == ["render", "score", "encode", "poster", "encode"]


def test_the_same_clip_is_not_made_twice(shop: Workshop) -> None:
    first = shop.make()
    shop.child.calls.clear()
    again = shop.make()
    assert (again.state, again.clip_id, again.reused) == ("succeeded", first.id, True)
    assert shop.child.calls == []
    assert shop.events(again)[-1] == ("success", {"clip": first.id, "reused": True})
    assert shop.store.statistics.totals()["clips.reused"] == 1
    anew = shop.make(cache="bypass")
    assert (anew.clip_id, anew.reused) == (anew.id, False)
    assert len(shop.store.clips.list()) == 2


def test_a_job_of_the_server_reuses_only_what_the_store_keeps(shop: Workshop) -> None:
    file = shop.make(origin="cli")
    kept = shop.make()
    assert (kept.clip_id, kept.reused) == (kept.id, False)
    assert shop.make(origin="cli").clip_id in (file.id, kept.id)


def test_a_place_that_cannot_be_written_is_found_before_the_work(
    shop: Workshop, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("in the way")
    job = shop.make(origin="cli")
    assert job.state == "failed"
    assert job.error is not None
    assert job.error["kind"] == "output_failed"
    assert shop.child.calls == []


def test_given_media_are_kept_for_whichever_machine_renders(shop: Workshop, tmp_path: Path) -> None:
    from PIL import Image

    picture = tmp_path / "picture.png"
    Image.new("RGB", (64, 64), "red").save(picture)
    waiting = shop.submit(image=picture)
    picture.unlink()
    job = shop.carry_out(waiting)
    assert (job.state, job.task, job.error) == ("succeeded", "i2v", None)
    clip = shop.store.clips.get(job.id)
    assert clip is not None
    assert shop.store.assets.path(clip.inputs["image"]).is_file()


def test_a_job_that_was_planned_for_another_device_is_planned_again(shop: Workshop) -> None:
    waiting = shop.submit()
    plan = dict(waiting.plan or {}) | {"device": "cpu of another machine"}
    assert shop.store.jobs.update(waiting.id, run=1, plan=plan)
    job = shop.carry_out(waiting)
    assert job.state == "succeeded"
    assert (job.plan or {})["device"] == (waiting.plan or {})["device"]
    assert (job.plan or {})["seed"] == 7


def test_who_cannot_have_the_device_and_must_stop_renders_nothing(shop: Workshop) -> None:
    @contextmanager
    def taken(_device: str, _give_up: object) -> Iterator[bool]:
        shop.watch.stopped = True
        yield False

    shop.lock = taken
    job = shop.make()
    assert job.state == "running"  # whoever wanted it to stop decides what becomes of it
    assert shop.child.calls == []
