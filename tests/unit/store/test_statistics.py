from __future__ import annotations

import threading

import pytest

from kinoloom.store import Store
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
