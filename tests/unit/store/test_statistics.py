from __future__ import annotations

import sqlite3
import threading
from contextlib import closing

import pytest

from kinoloom.errors import StoreBroken
from kinoloom.store import DATABASE_NAME, Store
from kinoloom.store.cache.bytes import HITS, MISSES
from kinoloom.store.statistics import hit_rate


def test_counts_add_up_and_survive(store: Store, database_url: str | None) -> None:
    assert store.statistics.totals() == {}
    store.statistics.add("clips")
    store.statistics.add("clips", 2)
    store.statistics.add(HITS, 5)
    with Store.open(store.home, database_url=database_url) as again:
        again.statistics.add("clips", 10)
        assert again.statistics.totals() == {"clips": 13, HITS: 5}


def test_threads_lose_no_count(store: Store) -> None:
    def count() -> None:
        for _ in range(10):
            store.statistics.add("a")
            store.statistics.add("b", 2)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert store.statistics.totals() == {"a": 40, "b": 80}


def test_the_hit_rate() -> None:
    assert hit_rate({}) is None
    assert hit_rate({MISSES: 4}) == 0
    assert hit_rate({HITS: 3, MISSES: 1, "clips": 9}) == pytest.approx(0.75)


def test_a_count_waits_for_who_writes(sqlite_store: Store) -> None:
    sqlite_store.statistics.add("clips")
    with closing(sqlite3.connect(sqlite_store.home / DATABASE_NAME, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        other.execute("UPDATE counters SET value = 10")
        counting = threading.Thread(target=sqlite_store.statistics.add, args=("clips",))
        counting.start()
        counting.join(0.2)
        assert counting.is_alive()
        other.execute("COMMIT")
        counting.join(60)
        # Seen by others at once: it is committed.
        assert other.execute("SELECT value FROM counters").fetchall() == [(11,)]


def test_a_count_that_cannot_be_kept_is_a_named_error(sqlite_store: Store) -> None:
    with closing(sqlite3.connect(sqlite_store.home / DATABASE_NAME)) as other:
        other.execute("DROP TABLE counters")
    with pytest.raises(StoreBroken):
        sqlite_store.statistics.add("clips")
