from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from kinoloom.config import Settings
from kinoloom.jobs import locks
from kinoloom.jobs.locks import device_lock, has_ended, is_locked, lock_file, process_mark

HOLD = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""

MARK = """
import json, sys
from kinoloom.jobs.locks import process_mark
print(json.dumps(process_mark()), flush=True)
sys.stdin.read()
"""


@contextmanager
def marked() -> Iterator[tuple[subprocess.Popen[bytes], dict[str, Any]]]:
    """Another process that lives, and its mark."""
    command = [sys.executable, "-c", MARK]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield process, json.loads(process.stdout.readline())
        process.kill()


def test_a_name_is_one_database_and_one_worker(tmp_path: Path) -> None:
    here = Settings(home=tmp_path)
    there = Settings(home=tmp_path / "other")
    shared = "postgresql://u:secret@db/kinoloom"
    one = Settings(home=tmp_path, database_url=shared)
    two = Settings(home=tmp_path / "other", database_url=shared)
    files = {lock_file(s, "w") for s in (here, there, one)}
    assert len(files) == 3
    assert lock_file(one, "w") == lock_file(two, "w")
    assert lock_file(one, "w") != lock_file(one, "v")
    assert not any("secret" in str(file) for file in files)
    assert len({file.parent for file in files}) == 1


def test_a_lock_ends_with_its_process_however_that_ends(tmp_path: Path) -> None:
    file = tmp_path / "a.lock"
    assert not is_locked(file)
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        assert is_locked(file)
        process.kill()
        process.wait()
        assert not is_locked(file)


@pytest.mark.parametrize("device", ["cuda:97 A test", "mps-test"])
def test_a_device_renders_one_job_at_a_time(device: str) -> None:
    asked: list[int] = []

    def give_up() -> bool:
        asked.append(1)
        return len(asked) > 1

    with device_lock(device, lambda: False) as first:
        assert first
        with device_lock(device, give_up) as second:
            assert not second
        assert len(asked) == 2
        with device_lock("cuda:98 Another", lambda: True) as other:
            assert other
    with device_lock(device, lambda: True) as again:
        assert again


def test_a_processor_is_shared() -> None:
    with (
        device_lock("cpu x4", lambda: True) as first,
        device_lock("cpu x4", lambda: True) as second,
    ):
        assert first
        assert second


linux = pytest.mark.skipif(not locks._BOOT.exists(), reason="only Linux names its boots")


@linux
def test_a_process_is_known_to_be_over_by_its_mark() -> None:
    with marked() as (process, mark):
        assert not has_ended(mark)
        process.kill()
        process.wait()
        assert has_ended(mark)
        assert not has_ended({**mark, "boot": "of another machine, or before it was started again"})
        assert not has_ended({**mark, "inode": mark["inode"] + 1})
        assert not has_ended({**mark, "file": "none.lock"})


@linux
def test_whoever_lives_is_not_over_though_its_file_was_removed() -> None:
    with marked() as (_, mark):
        file = locks._folder() / mark["file"]
        file.unlink()
        assert not has_ended(mark)
        file.touch()
        assert not has_ended(mark)
        file.unlink()


def test_this_process_is_not_over() -> None:
    assert process_mark() == process_mark()
    assert not has_ended(process_mark())
    assert not has_ended({})


def test_where_nothing_names_the_boot_nothing_is_said(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(locks, "_BOOT", tmp_path / "none")
    monkeypatch.setattr(locks, "_own_mark", locks._own_mark.__wrapped__)
    assert process_mark() == {}
    assert not has_ended({"boot": "", "file": "x", "device": 0, "inode": 0})


@linux
def test_old_marks_of_those_who_are_over_are_removed() -> None:
    long_ago = time.time() - 2 * locks._OLD_MARKS
    with marked() as (process, mark), marked() as (_, lives):
        process.kill()
        process.wait()
        for one in (mark, lives):
            os.utime(locks._folder() / one["file"], (long_ago, long_ago))
        locks._own_mark.__wrapped__()
        assert not (locks._folder() / mark["file"]).exists()
        assert (locks._folder() / lives["file"]).exists()
