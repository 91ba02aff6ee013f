from __future__ import annotations

from pathlib import Path

import pytest

from kinoloom.jobs.leftovers import sweep_work, tidy, work_folder
from kinoloom.store.job_record import JobRecord, JobState
from kinoloom.store.store import Store


@pytest.fixture
def job(store: Store) -> JobRecord:
    """A job that runs."""
    record = JobRecord(
        state="running", queue="cpu", origin="api", request={}, task="t2v", model="m", backend="b"
    )
    return store.jobs.add(record)[0]


def test_a_run_has_an_empty_folder_while_it_lasts(store: Store, job: JobRecord) -> None:
    with work_folder(store, job) as folder:
        (folder / "frames").write_text("half")
        # What a killed process of the same run left is not taken for its own.
        with work_folder(store, job) as again:
            assert again == folder
            assert list(again.iterdir()) == []
    assert list((store.home / "work").iterdir()) == []


def killed_in(store: Store, job: JobRecord) -> Path:
    """The folder of a run whose process was killed."""
    with work_folder(store, job) as folder:
        pass
    folder.mkdir()
    (folder / "frames").write_text("half")
    return folder


def test_only_runs_that_are_over_are_swept(store: Store, job: JobRecord) -> None:
    folder = killed_in(store, job)
    sweep_work(store)
    assert folder.is_dir()
    assert store.jobs.move(job.id, "cancelling", expect=["running"])
    sweep_work(store)
    assert folder.is_dir()
    other = killed_in(store, JobRecord(**{**vars(job), "id": "forgotten"}))
    sweep_work(store)
    assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    assert not other.exists()


@pytest.mark.parametrize(("to", "run"), [("queued", 2), ("running", 2), ("succeeded", 1)])
def test_what_a_killed_run_left_goes(store: Store, job: JobRecord, to: JobState, run: int) -> None:
    folder = killed_in(store, job)
    assert store.jobs.move(job.id, to, expect=["running"], run_to=run)
    sweep_work(store)
    assert not folder.exists()


def test_there_may_be_nothing_to_sweep(store: Store) -> None:
    sweep_work(store)
    assert not (store.home / "work").exists()


def test_a_job_that_is_over_lets_go_of_its_frames(store: Store, job: JobRecord) -> None:
    frames = store.assets.put_bytes(b"frames", "frames")
    store.jobs.keep_artefact(job.id, "render:0", run=1, digest=frames.digest, data={})
    store.events.add(job.id, "progress", {"step": 1})
    assert list(store.jobs.untidy()) == []  # it needs them
    assert store.jobs.move(job.id, "succeeded", expect=["running"])
    assert list(store.jobs.untidy()) == [job.id]

    tidy(store, job.id)
    assert list(store.jobs.untidy()) == []
    assert not frames.path.exists()
    assert [event.type for event in store.events.after(0)] == ["state", "state"]


def test_a_job_that_failed_keeps_what_it_had_finished(store: Store, job: JobRecord) -> None:
    store.jobs.keep_artefact(job.id, "quality:0", run=1, digest=None, data={})
    assert store.jobs.move(job.id, "failed", expect=["running"])
    assert list(store.jobs.untidy()) == []
