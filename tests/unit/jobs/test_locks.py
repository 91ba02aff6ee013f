from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kinoloom.config import Settings
from kinoloom.jobs.locks import device_lock, is_locked, lock_file

HOLD = """
import sys
from filelock import FileLock
lock = FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


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
