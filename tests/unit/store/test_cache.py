from __future__ import annotations

import errno
import logging
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from kinoloom.config import Settings
from kinoloom.errors import MissingPackage
from kinoloom.store.cache import disk as disk_module
from kinoloom.store.cache.bytes import ByteCache
from kinoloom.store.cache.disk import DiskCache
from kinoloom.store.cache.memory import MemoryCache
from kinoloom.store.cache.seal import seal, unseal

SEAL = 36


def key(number: int) -> str:
    return f"{number:064x}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "cache" / "embeddings"


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


def age(path: Path, seconds: float) -> None:
    """Make the file look as if it was used that long ago."""
    moment = path.stat().st_mtime - seconds
    os.utime(path, (moment, moment))


def test_memory_forgets_the_least_recently_used() -> None:
    cache = MemoryCache(100)
    for number in range(5):
        cache.put(key(number), bytes(20))
    assert cache.get(key(0)) == bytes(20)
    cache.put(key(5), bytes(30))
    found = [number for number in range(6) if cache.get(key(number)) is not None]
    assert found == [0, 3, 4, 5]
    assert cache.usage() == (4, 90)


def test_memory_replaces_and_refuses_what_is_too_large() -> None:
    cache = MemoryCache(100)
    cache.put(key(1), bytes(60))
    cache.put(key(1), b"new")
    assert (cache.get(key(1)), cache.usage()) == (b"new", (1, 3))
    cache.put(key(1), bytes(101))
    assert (cache.get(key(1)), cache.usage()) == (None, (0, 0))


def test_a_value_survives_the_process(settings: Settings) -> None:
    first = ByteCache.open(settings)
    assert first.get(key(1)) is None
    first.put(key(1), b"value")
    assert first.get(key(1)) == b"value"
    code = """
import sys
from pathlib import Path
from kinoloom.config import Settings
from kinoloom.store.cache.bytes import ByteCache
print(ByteCache.open(Settings(home=Path(sys.argv[1]))).get(sys.argv[2]))
print("torch" in sys.modules, "redis" in sys.modules, "sqlalchemy" in sys.modules)
"""
    source = Path(__file__).resolve().parents[3] / "src"
    out = subprocess.run(
        [sys.executable, "-c", code, str(settings.home), key(1)],
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert out == "b'value'\nFalse False False\n"


def test_the_counts(settings: Settings) -> None:
    cache = ByteCache.open(settings)
    assert cache.stats().hit_rate is None
    cache.get(key(1))
    cache.put(key(1), b"value")
    for _ in range(3):
        cache.get(key(1))
    stats = cache.stats()
    assert (stats.hits, stats.misses, stats.hit_rate) == (3, 1, 0.75)
    assert (stats.entries, stats.bytes) == (1, SEAL + 5)
    assert (stats.place, stats.degraded) == ("disk", False)


def test_memory_answers_without_the_disk(settings: Settings, folder: Path) -> None:
    cache = ByteCache.open(settings)
    cache.put(key(1), b"value")
    (folder / key(1)).unlink()
    assert cache.get(key(1)) == b"value"
    cache.close()
    assert cache.get(key(1)) is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: b"",
        lambda stored: stored[:-1],
        lambda stored: stored[:20],
        lambda stored: stored + b"x",
        lambda stored: stored[:50] + bytes([stored[50] ^ 1]) + stored[51:],
        lambda stored: os.urandom(len(stored)),
        lambda stored: seal(key(2), stored[SEAL:]),
    ],
)
def test_a_damaged_file_is_a_miss_and_removed(folder: Path, damage: object) -> None:
    cache = DiskCache(folder, 10_000)
    cache.put(key(1), bytes(range(100)))
    assert cache.get(key(1)) == bytes(range(100))
    file = folder / key(1)
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    assert cache.get(key(1)) is None
    assert not file.exists()
    cache.put(key(1), b"again")
    assert cache.get(key(1)) == b"again"


def test_the_disk_keeps_what_was_used_last(folder: Path) -> None:
    cache = DiskCache(folder, 3 * (100 + SEAL))
    for number in range(3):
        cache.put(key(number), bytes(100))
        age(folder / key(number), 1000 - number)
    assert cache.get(key(0)) is not None  # from now on the most recently used
    cache.put(key(3), bytes(100))
    assert {file.name for file in folder.iterdir()} == {key(0), key(2), key(3)}
    assert cache.usage() == (3, 3 * (100 + SEAL))


def test_what_is_larger_than_the_cache_is_not_kept(folder: Path) -> None:
    cache = DiskCache(folder, 200)
    cache.put(key(1), bytes(100))
    cache.put(key(2), bytes(300))
    assert cache.get(key(1)) is not None
    assert cache.get(key(2)) is None


def test_the_newest_stays_though_its_clock_is_behind(folder: Path) -> None:
    cache = DiskCache(folder, 250)
    cache.put(key(1), bytes(100))
    age(folder / key(1), -5000)  # another machine's clock is ahead
    cache.put(key(2), bytes(100))
    assert {file.name for file in folder.iterdir()} == {key(2)}


def test_what_nobody_asked_for_expires(folder: Path) -> None:
    cache = DiskCache(folder, 10_000)
    for number in (1, 2):
        cache.put(key(number), b"old")
        age(folder / key(number), disk_module.UNUSED_SECONDS + 10)
    assert cache.get(key(1)) is None
    assert not (folder / key(1)).exists()
    cache.put(key(3), b"new")
    assert {file.name for file in folder.iterdir()} == {key(3)}


def test_what_a_killed_process_left_goes_after_a_day(folder: Path) -> None:
    cache = DiskCache(folder, 10_000)
    folder.mkdir(parents=True)
    for name, seconds in ((".part-old", 90_000), (".part-new", 10)):
        (folder / name).write_bytes(b"x" * 5000)
        age(folder / name, seconds)
    cache.put(key(1), b"value")
    assert {file.name for file in folder.iterdir()} == {".part-new", key(1)}
    assert cache.usage() == (1, SEAL + 5)


@pytest.mark.parametrize("wrong", ["", "../x", "ABCDEF" * 10, "a" * 15, "a" * 129, "g" * 64, "/a"])
def test_a_key_is_a_digest(settings: Settings, wrong: str) -> None:
    cache = ByteCache.open(settings)
    with pytest.raises(ValueError, match="digest"):
        cache.get(wrong)
    with pytest.raises(ValueError, match="digest"):
        cache.put(wrong, b"")


def test_a_seal_fits_one_key_only() -> None:
    assert unseal(key(1), seal(key(1), b"")) == b""
    assert unseal(key(2), seal(key(1), b"")) is None
    assert unseal(key(1), None) is None
    assert unseal(key(1), "text") is None


def test_a_full_disk_costs_one_warning_and_no_job(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    cache = ByteCache.open(settings)
    monkeypatch.setattr("kinoloom.store.cache.disk.tempfile.mkstemp", full)
    with caplog.at_level(logging.WARNING):
        cache.put(key(1), b"one")
        cache.put(key(2), b"two")
    assert [record.name for record in caplog.records] == ["kinoloom.store.cache.bytes"]
    assert "No space left" in caplog.text
    assert cache.get(key(1)) == b"one"  # in memory


def test_a_file_in_place_of_the_folder(settings: Settings, folder: Path) -> None:
    folder.parent.mkdir(parents=True)
    folder.touch()
    cache = ByteCache.open(settings)
    cache.put(key(1), b"one")
    assert cache.get(key(2)) is None
    assert cache.stats().entries == 0


def test_threads_share_it(settings: Settings) -> None:
    small = settings.model_copy(update={"cache_size": 30 * (10 + SEAL)})
    cache, failures = ByteCache.open(small), []

    def work(start: int) -> None:
        try:
            for number in range(start, start + 40):
                cache.put(key(number % 50), b"%010d" % (number % 50))
                found = cache.get(key(number % 50))
                assert found in (None, b"%010d" % (number % 50))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(10 * n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    stats = cache.stats()
    assert stats.hits + stats.misses == 160
    assert stats.entries <= 30


def test_a_server_without_its_package(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(MissingPackage) as caught:
        ByteCache.open(Settings(home=settings.home, cache_url="redis://localhost"))
    assert "kinoloom[redis]" in caught.value.hints[0]
