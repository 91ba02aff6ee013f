from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

from kinoloom.config import Settings
from kinoloom.jobs import supervisor as module
from kinoloom.jobs.supervisor import WorkerSupervisor
from stand_in import until

# Notes that it lives, and with which arguments and settings; does as a worker does when its
# standard input ends.
PROGRAM = """
import os, sys, pathlib, signal
place = pathlib.Path(sys.argv[1])
with place.open("a") as log:
    log.write(f"{os.getpid()} {' '.join(sys.argv[2:])} {os.environ.get('KINOLOOM_HOME')}\\n")
if place.with_name("dies").exists():
    sys.exit(3)
if place.with_name("deaf").exists():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
place.with_name("ready").touch()
sys.stdin.read()
"""


class Stage:
    """Where a stand-in for `kinoloom worker` is started."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.log.touch()
        self.settings = Settings(
            home=folder / "home", database_url=SecretStr("postgresql://u:s3cret@db/k")
        )
        program = folder / "worker.py"
        program.write_text(PROGRAM)
        popen = module.subprocess.Popen

        def start(command: list[str], **options: Any) -> Any:
            assert command[:3] == [sys.executable, "-m", "kinoloom"]
            assert "s3cret" not in " ".join(command)  # which every user of the machine can read
            return popen([sys.executable, str(program), str(self.log), *command[3:]], **options)

        patch.setattr(module.subprocess, "Popen", start)
        patch.setattr(module, "_FIRST_PAUSE", 0.02)
        patch.setattr(module, "_LONGEST_PAUSE", 0.1)

    def started(self) -> list[list[str]]:
        return [line.split() for line in self.log.read_text().splitlines()]


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(tmp_path, monkeypatch)


def test_a_worker_runs_as_long_as_the_block(stage: Stage) -> None:
    with WorkerSupervisor(stage.settings) as supervisor:
        until((stage.folder / "ready").exists)
        process = supervisor._process
        assert process is not None
        assert process.poll() is None
    assert process.poll() is not None
    (started,) = stage.started()
    assert started[1:4] == ["worker", "--supervised", "--name"]
    assert started[-1] == str(stage.settings.home)


def test_a_worker_that_dies_is_started_again_later_and_later(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (stage.folder / "dies").touch()
    with WorkerSupervisor(stage.settings):
        until(lambda: len(stage.started()) >= 4)
        (stage.folder / "dies").unlink()
        until((stage.folder / "ready").exists)
        there = len(stage.started())
        until(lambda: caplog.text.count("started again") == there - 1)
    names = {" ".join(line[1:]) for line in stage.started()}
    assert len(names) == 1  # the same name each time: it knows what it had
    assert len({line[0] for line in stage.started()}) == there
    waits = [record.args[1] for record in caplog.records if "again in" in record.msg]
    assert waits[:4] == [0.02, 0.04, 0.08, 0.1]


def test_a_worker_that_does_not_end_is_killed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_END_SECONDS", 0.2)
    # Its standard input is closed only afterwards: it would end with that.
    (stage.folder / "deaf").touch()
    with WorkerSupervisor(stage.settings) as supervisor:
        until((stage.folder / "ready").exists)
        process = supervisor._process
    assert process is not None
    until(lambda: process.poll() is not None)
    assert process.poll() == -9
