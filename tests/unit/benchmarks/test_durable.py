from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import durable
from kinoloom.config import Settings
from kinoloom.store.store import Store


def test_writes_are_counted_within_the_block(tmp_path: Path) -> None:
    writes = durable.Writes()
    with Store.open(tmp_path) as store:
        with writes.counted():
            store.models.accept("model", "licence")
            store.jobs.list()
        store.models.accept("model", "another")
    assert writes.count == 1
    assert writes.seconds > 0


def test_a_write_that_fails_fails(tmp_path: Path) -> None:
    writes = durable.Writes()
    with (
        Store.open(tmp_path) as store,
        writes.counted(),
        pytest.raises(RuntimeError),
        store.jobs._database.writing(),
    ):
        raise RuntimeError
    assert writes.count == 0


def test_a_job_of_other_steps_is_not_compared(tmp_path: Path) -> None:
    child = durable.TimedChild(Settings(home=tmp_path))
    child.commands.append(("render", {}, 1.0))
    with pytest.raises(SystemExit, match="other steps"):
        durable.bare(child)
