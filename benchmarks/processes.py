"""How does a benchmark run Kinoloom as its users do, and what do the processes use?

Each `Program` is `kinoloom` started anew, with a data folder and settings of its own. Figures of a
process come from /proc, so they are there on Linux only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

LIMIT = 180.0
"""Seconds after which something that must happen counts as missing."""
_POLL = 0.01


@dataclass
class Program:
    """A process of Kinoloom's; `begun` is when it was started (`time.perf_counter`)."""

    process: subprocess.Popen[str]
    begun: float
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    def check(self) -> None:
        """Raises RuntimeError with its last words when it has ended."""
        if self.process.poll() is not None:
            said = self.log.read_text(encoding="utf-8", errors="replace")
            raise RuntimeError(f"it ended with {self.process.returncode}:\n{said[-2000:]}")


@dataclass
class Server(Program):
    """`kinoloom serve`, which answers at `url`."""

    url: str = ""

    def is_ready(self) -> bool:
        """Whether a job that is submitted now will run."""
        self.check()
        return httpx.get(f"{self.url}/ready", timeout=LIMIT).status_code == 200


@contextmanager
def served(home: Path, *arguments: str, **settings: str) -> Iterator[Server]:
    """`kinoloom serve` with these arguments, from the moment when it answers until the block ends.

    `settings` are further settings by their names in capitals. No request is one too many for it.
    """
    given = {"RATE_LIMIT": "0"} | settings
    with _started(home, ("serve", "--port", "0", *arguments), given) as program:
        assert program.process.stdout is not None  # it was asked for
        line = program.process.stdout.readline()
        url = next((word for word in line.split() if word.startswith("http://")), "")
        if not url:
            program.process.wait(LIMIT)
            program.check()
        assert httpx.get(f"{url}/health", timeout=LIMIT).status_code == 200
        yield Server(program.process, program.begun, program.log, url)


@contextmanager
def working(home: Path, name: str, **settings: str) -> Iterator[Program]:
    """`kinoloom worker` of that name until the block ends; it may need some seconds to begin."""
    with _started(home, ("worker", "--name", name), settings) as program:
        yield program


@contextmanager
def _started(home: Path, arguments: tuple[str, ...], given: dict[str, str]) -> Iterator[Program]:
    home.mkdir(parents=True, exist_ok=True)
    kept = {name: value for name, value in os.environ.items() if "KINOLOOM_" not in name}
    # Not the settings of who runs the benchmark.
    named = {"HOME": str(home), "OUTPUTS": str(home / "outputs")} | given
    kept |= {f"KINOLOOM_{name}": value for name, value in named.items()}
    kept["XDG_CONFIG_HOME"] = str(home / "config")
    log = home.parent / f"{home.name}-{'-'.join(arguments[:3])}-{time.time_ns()}.log"
    with log.open("wb") as errors:
        begun = time.perf_counter()
        process = subprocess.Popen(
            [sys.executable, "-m", "kinoloom", *arguments],
            env=kept,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
    try:
        yield Program(process, begun, log)
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if process.stdout is not None:
            process.stdout.close()


def until(condition: Callable[[], object], what: str, seconds: float = LIMIT) -> float:
    """Wait for a condition; the moment when it held (`time.perf_counter`). Raises TimeoutError."""
    deadline = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain: {what}")
        time.sleep(_POLL)
    return time.perf_counter()


def processor_seconds(pid: int) -> float:
    """The processor seconds that a process used so far; 0 where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(pid: int) -> tuple[float, float]:
    """The MiB that a process has in main memory: all of it, and with what it shares divided among
    those who share it; 0 where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0, 0.0
    sizes = {line.split()[0]: line.split()[1] for line in lines[1:]}
    return int(sizes["Rss:"]) / 1024, int(sizes["Pss:"]) / 1024


def children(pid: int) -> list[int]:
    """The processes that a process started and that are there, in the order of their ids."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[1]) == pid and fields[0] != "Z":
            found.append(int(folder.name))
    return sorted(found)
