"""What happens to a call when its child crashes, hangs, is too slow or is killed?"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from children import Start, linux, posix, size_of
from kinoloom.errors import Cancelled, TimedOut, WorkerUnavailable
from kinoloom.jobs import child_process
from kinoloom.jobs.render_process import RenderProcess


def hold(process: RenderProcess) -> int:
    """Stop the child as a debugger would; its process id."""
    process.start()
    assert process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    return process.pid


def alive(pid: int) -> bool:
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


def until(condition: Callable[[], bool], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.02)


# --- a child that dies, hangs or is too slow ----------------------------------------------------


@posix
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_child_that_dies_is_told_and_the_next_call_gets_a_fresh_one(
    start: Start, picture: Path, number: signal.Signals
) -> None:
    process = start()
    pid = hold(process)

    def strike() -> bool:
        os.kill(pid, number)
        os.kill(pid, signal.SIGCONT)
        return False

    with pytest.raises(WorkerUnavailable, match="reads media died") as died:
        size_of(process, picture, should_stop=strike)
    assert number.name in died.value.cause
    assert ("memory" in died.value.cause) == (number is signal.SIGKILL)
    assert died.value.hints
    assert not alive(pid)
    assert size_of(process, picture) == (64, 48)
    assert process.pid != pid


@posix
def test_a_child_that_died_while_it_was_idle_is_replaced(start: Start, picture: Path) -> None:
    process = start()
    size_of(process, picture)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    until(lambda: process.pid is None)
    assert size_of(process, picture) == (64, 48)


@posix
def test_a_child_that_hangs_is_killed(start: Start, picture: Path) -> None:
    process = start(silence=1.5)
    pid = hold(process)
    with pytest.raises(WorkerUnavailable, match="hung") as hung:
        size_of(process, picture)
    assert "1.5 seconds" in hung.value.cause
    assert not alive(pid)
    assert size_of(process, picture) == (64, 48)


@posix
def test_a_child_that_does_not_even_read_is_killed(start: Start) -> None:
    process = start(silence=1.5)
    pid = hold(process)
    with pytest.raises(WorkerUnavailable):
        process.call("probe", {"path": "x" * 1_000_000})  # more than a pipe holds
    assert not alive(pid)


@posix
def test_a_deadline_ends_the_call_and_the_child(start: Start, picture: Path) -> None:
    process = start()
    pid = hold(process)
    with pytest.raises(TimedOut, match="deadline"):
        size_of(process, picture, timeout=0.3)
    assert not alive(pid)
    assert size_of(process, picture, timeout=60.0) == (64, 48)


@linux
def test_the_kernel_counts_a_light_childs_time(start: Start, picture: Path) -> None:
    import resource

    process = start()
    size_of(process, picture, timeout=50.0)
    assert process.pid is not None
    soft, hard = resource.prlimit(process.pid, resource.RLIMIT_CPU)
    assert 50 <= soft <= 60 * (os.cpu_count() or 1)
    assert hard == resource.RLIM_INFINITY
    size_of(process, picture)
    assert resource.prlimit(process.pid, resource.RLIMIT_CPU)[0] == resource.RLIM_INFINITY


@posix
def test_a_child_that_does_not_stop_when_asked_is_killed(
    start: Start, picture: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child_process, "GRACE_SECONDS", 0.5)
    process = start()
    pid = hold(process)
    with pytest.raises(Cancelled):
        size_of(process, picture, should_stop=lambda: True)
    assert not alive(pid)
    assert size_of(process, picture) == (64, 48)


# --- lives and deaths of parents ----------------------------------------------------------------


PARENT = """
import sys, time
from pathlib import Path
from kinoloom.config import Settings
from kinoloom.jobs.render_process import RenderProcess

process = RenderProcess(Settings(home=Path(sys.argv[1])), light=True)
process.start()
print(process.pid, flush=True)
time.sleep(600)
"""


@linux
@pytest.mark.parametrize("held", [False, True])
def test_a_child_dies_with_its_parent(tmp_path: Path, held: bool) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        # Once it has lowered its own standing, it is bound to its parent too.
        standing = Path(f"/proc/{pid}/oom_score_adj")
        until(lambda: standing.read_text().strip() == "500")
        assert alive(pid)
        if held:  # then it cannot see that its input ends
            os.kill(pid, signal.SIGSTOP)
    finally:
        parent.kill()
        parent.communicate()
    until(lambda: not alive(pid))


def test_a_child_outlives_the_thread_that_asked_for_it(start: Start, picture: Path) -> None:
    process = start()
    thread = threading.Thread(target=process.start)
    thread.start()
    thread.join()
    pid = process.pid
    assert size_of(process, picture) == (64, 48)
    assert process.pid == pid


@posix
def test_a_process_that_is_closed_ends_the_call_that_waits(start: Start, picture: Path) -> None:
    process = start()
    pid = hold(process)
    closing = threading.Thread(target=process.close)

    def close_once() -> bool:
        if not closing.is_alive() and not closing.ident:
            closing.start()
            os.kill(pid, signal.SIGCONT)
        return False

    with pytest.raises(WorkerUnavailable):
        size_of(process, picture, should_stop=close_once)
    closing.join()
    assert not alive(pid)
    with pytest.raises(WorkerUnavailable, match="was ended"):
        size_of(process, picture)
