from __future__ import annotations

import multiprocessing
import os
import shutil
from pathlib import Path

import pytest

from kinoloom.config import Settings
from kinoloom.store.held import held_store


def test_the_same_folder_has_the_same_store(tmp_path: Path) -> None:
    store = held_store(Settings(home=tmp_path))
    store.statistics.add("seen")
    assert held_store(Settings(home=tmp_path)) is store
    assert held_store(Settings(home=tmp_path)).statistics.totals() == {"seen": 1}


def test_another_folder_has_another_store(tmp_path: Path) -> None:
    held_store(Settings(home=tmp_path / "one")).statistics.add("seen")
    assert held_store(Settings(home=tmp_path / "two")).statistics.totals() == {}
    assert held_store(Settings(home=tmp_path / "one")).statistics.totals() == {"seen": 1}


def test_a_removed_database_is_made_anew(tmp_path: Path) -> None:
    home = tmp_path / "home"
    held_store(Settings(home=home)).statistics.add("seen")
    shutil.rmtree(home)
    assert held_store(Settings(home=home)).statistics.totals() == {}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_opens_its_own(tmp_path: Path) -> None:
    before = held_store(Settings(home=tmp_path))
    before.statistics.add("seen")
    context = multiprocessing.get_context("fork")
    results = context.SimpleQueue()

    def work() -> None:
        store = held_store(Settings(home=tmp_path))
        store.statistics.add("seen")
        results.put(store is before)

    child = context.Process(target=work)
    child.start()
    child.join()
    assert results.get() is False
    assert held_store(Settings(home=tmp_path)) is before
    assert before.statistics.totals() == {"seen": 2}
