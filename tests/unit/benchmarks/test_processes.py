from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from benchmarks import processes

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")


@on_linux
def test_what_a_process_uses_is_read() -> None:
    begin = processes.processor_seconds(os.getpid())
    until = time.process_time() + 0.1
    while time.process_time() < until:
        pass
    assert processes.processor_seconds(os.getpid()) - begin > 0.05
    resident, proportional = processes.memory(os.getpid())
    assert resident >= proportional > 1


@on_linux
def test_of_a_process_that_is_gone_nothing_is_known() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    assert processes.processor_seconds(process.pid) == 0
    assert processes.memory(process.pid) == (0, 0)


@on_linux
def test_the_children_are_those_that_live() -> None:
    command = [sys.executable, "-c", "import sys; sys.stdin.read()"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        assert process.pid in processes.children(os.getpid())
        assert processes.children(process.pid) == []
        process.communicate()
    assert process.pid not in processes.children(os.getpid())


def test_what_never_happens_is_named() -> None:
    with pytest.raises(TimeoutError, match="the moon falls"):
        processes.until(lambda: False, "the moon falls", seconds=0)


def test_a_server_lives_as_long_as_its_block(tmp_path: Path) -> None:
    with processes.served(tmp_path / "home", "--no-worker") as server:
        assert httpx.get(f"{server.url}/health", timeout=60).json()["status"] == "ok"
        assert not server.is_ready()
    assert server.process.returncode is not None
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{server.url}/health", timeout=60)


def test_a_server_that_does_not_start_says_why(tmp_path: Path) -> None:
    with (
        pytest.raises(RuntimeError, match="port"),
        processes.served(tmp_path / "home", "--port", "99999"),
    ):
        pass
