from __future__ import annotations

import hashlib
import os
import time
from pathlib import Path

import pytest

from kinoloom.store.asset_cache import AssetCache

DAY = 86_400


@pytest.fixture
def cache(tmp_path: Path) -> AssetCache:
    return AssetCache(tmp_path / "cache", limit=250)


def add(cache: AssetCache, data: bytes, hours_ago: float = 0) -> str:
    """Add `data`, which was last used so long ago; its digest."""
    digest = "sha256:" + hashlib.sha256(data).hexdigest()
    cache.folder.mkdir(exist_ok=True)
    file = cache.folder / "new"
    file.write_bytes(data)
    path = cache.add(file, digest)
    used = time.time() - hours_ago * 3600
    os.utime(path, (used, used))
    return digest


def held(cache: AssetCache, *digests: str) -> list[bool]:
    return [(cache.folder / digest[7:9] / digest[9:]).exists() for digest in digests]


def test_the_longest_unused_goes_first(cache: AssetCache) -> None:
    first, second = add(cache, b"1" * 100, 30), add(cache, b"2" * 100, 40)
    third = add(cache, b"3" * 100)
    assert held(cache, first, second, third) == [True, False, True]


def test_what_was_found_counts_as_used(cache: AssetCache) -> None:
    first, second = add(cache, b"1" * 100, 40), add(cache, b"2" * 100, 30)
    found = cache.find(first)
    assert found is not None
    changed = found.stat().st_mtime
    assert changed < time.time() - DAY, "the time of change stays"
    third = add(cache, b"3" * 100)
    assert held(cache, first, second, third) == [True, False, True]


def test_what_is_in_use_stays_even_if_it_is_too_much(cache: AssetCache) -> None:
    digests = [add(cache, bytes([n]) * 100, hours_ago=0.5) for n in range(5)]
    assert held(cache, *digests) == [True] * 5
    for path in cache.folder.glob("??/*"):
        os.utime(path, (0, 0))
    last = add(cache, b"last" * 25)
    assert sum(held(cache, *digests)) == 1
    assert held(cache, last) == [True]


def test_what_is_not_there(cache: AssetCache) -> None:
    digest = "sha256:" + "0" * 64
    assert cache.find(digest) is None
    cache.drop(digest)
    gone = add(cache, b"data")
    cache.drop(gone)
    assert cache.find(gone) is None
