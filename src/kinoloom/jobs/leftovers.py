"""What does a job leave on the way to its clip, and who removes it, also after a kill?"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store


def tidy(store: Store, job_id: str) -> None:
    """Let go of what only the steps of a job that is over needed: frames are large."""
    for digest in store.jobs.drop_artefacts(job_id):
        store.assets.discard(digest)
    store.events.thin(job_id)


@contextmanager
def work_folder(store: Store, job: JobRecord) -> Iterator[Path]:
    """An empty folder on the disk of the store for one run of a job, gone afterwards."""
    folder = _place(store) / f"{job.id}.{job.run}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def sweep_work(store: Store) -> None:
    """Remove on this machine what runs left that are over: their workers were killed."""
    found: dict[str, Path] = {}
    with suppress(FileNotFoundError):
        found = {folder.name: folder for folder in _place(store).iterdir()}
    if not found:
        return
    # Asked after the folders were seen: whoever makes one has its job running by then.
    states = store.jobs.states({name.rpartition(".")[0] for name in found})
    running = {
        f"{job_id}.{run}"
        for job_id, (state, run) in states.items()
        if state in ("running", "cancelling")
    }
    for name, folder in found.items():
        if name not in running:
            shutil.rmtree(folder, ignore_errors=True)


def _place(store: Store) -> Path:
    return store.home / "work"
