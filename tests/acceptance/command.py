"""How does a test use Kinoloom as a new user would, from a folder and a data folder of its own?"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROMPT = "a red ball rolling to the right on green grass"
QUICK = ("--steps", "8", "--frames", "17")
"""The least work that is still a video: for tests that do not judge what is seen."""
LIMIT = 600  # seconds after which a process counts as hung, on a machine however busy


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code and what it wrote."""

    code: int
    out: str
    err: str

    def events(self) -> list[dict[str, Any]]:
        """The JSON objects on standard output, one a line."""
        return [json.loads(line) for line in self.out.splitlines()]

    def succeeded(self) -> Ended:
        assert self.code == 0, self.err + self.out
        return self

    def failed(self, kind: str, code: int = 1) -> Ended:
        """Ended as a known error: named, explained, with what to do next, without a traceback."""
        assert self.code == code, f"exit code {self.code}\n{self.err}{self.out}"
        assert "Traceback" not in self.err + self.out
        # A plan and the first phases may have been shown before.
        _, found, rest = self.err.partition(f"error ({kind}): ")
        assert found, self.err
        advice = [s for s in rest.splitlines() if s.startswith("  -> ") or ": allowed is " in s]
        assert advice, f"no hint in:\n{self.err}"
        return self


class User:
    """Somebody with a folder to work in (`folder`) and a data folder (`home`), both new."""

    def __init__(self, place: Path) -> None:
        self.folder = place / "work"
        self.home = place / "home"
        self.folder.mkdir(parents=True)
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("KINOLOOM_")}
        self.environment |= {
            "KINOLOOM_HOME": str(self.home),
            "XDG_CONFIG_HOME": str(place / "config"),  # nobody's own kinoloom.yaml
            "COLUMNS": "200",  # tables are not folded
        }

    def run(
        self,
        *arguments: str | Path,
        program: tuple[str, ...] = ("-m", "kinoloom"),
        environment: dict[str, str] | None = None,
        before: Callable[[], None] | None = None,
    ) -> Ended:
        """Run `kinoloom` to its end; `before` is called in the new process."""
        done = subprocess.run(
            [sys.executable, *program, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | (environment or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            preexec_fn=before,
            timeout=LIMIT,
            check=False,
        )
        return Ended(done.returncode, done.stdout, done.stderr)

    def interfere(
        self, act: Callable[[subprocess.Popen[str]], None], *arguments: str | Path
    ) -> Ended:
        """Run `kinoloom generate --json` and call `act` as soon as the first step is reported."""
        with subprocess.Popen(
            [sys.executable, "-m", "kinoloom", "generate", "--json", *map(str, arguments)],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        ) as process:
            try:
                assert process.stdout is not None
                seen = []
                for line in process.stdout:
                    seen.append(line)
                    if json.loads(line).get("phase") == "denoise":
                        act(process)
                        break
                out, err = process.communicate(timeout=LIMIT)
            finally:
                process.kill()
        return Ended(process.returncode, "".join(seen) + out, err)

    def files(self) -> list[str]:
        """Every file below the working folder and, of the data folder, every asset."""
        places = (self.folder, self.home / "assets")
        return sorted(
            str(f.relative_to(self.folder.parent))
            for place in places
            for f in place.rglob("*")
            if not f.is_dir()
        )

    def records(self) -> list[Any]:
        """The clips that the store knows."""
        from kinoloom.store.store import Store

        with Store.open(self.home) as store:
            return store.clips.list(limit=100)


@dataclass(frozen=True)
class Made:
    """A clip that a process made, and everything that it said."""

    user: User
    ended: Ended
    path: Path


@contextlib.contextmanager
def small_disk(place: Path, size: str, *options: str) -> Iterator[bool]:
    """A file system of its own at `place`, 64 kB as ``64k``; False where mounting is not allowed.

    Needs Linux and the rights of root (or of a container that has them).
    """
    place.mkdir(parents=True, exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", ",".join((f"size={size}", *options)), "tmpfs", place]
    try:
        mounted = subprocess.run(command, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", place], check=True)


def fill(place: Path) -> None:
    """Write until the disk is full."""
    with (place / "filler").open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\0" * 4096)


def file_limit(size: int) -> Callable[[], None]:
    """For `User.run`: no file may become larger, as on a disk that is full."""

    def limit() -> None:
        import resource

        # Without its handler the signal would end the process instead of failing the write.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit
