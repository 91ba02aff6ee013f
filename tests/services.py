"""Which servers do the tests talk to, and how are they started?

Real ones on this machine: what is missing is installed where the tests may do that.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


class RedisServer:
    """A redis-server of our own at 127.0.0.1, which keeps nothing on the disk."""

    def __init__(self, program: str, folder: Path, *options: str) -> None:
        self._command = [program, *options]
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self.port = _free_port()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it and wait until it says that it accepts connections."""
        fixed = ["--bind", "127.0.0.1", "--dir", str(self._folder), "--save", "", "--daemonize"]
        self._process = subprocess.Popen(
            [*self._command, *fixed, "no", "--port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if "Ready to accept connections" in line:
                return
        raise RuntimeError("redis-server did not start:\n" + "".join(said))

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """A function (options of redis-server...) -> a running server, ended after the test."""
    program = redis_program()
    servers: list[RedisServer] = []

    def start(*options: str) -> RedisServer:
        server = RedisServer(program, tmp_path, *options)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        server.kill()


def redis_program() -> str:
    """The path of redis-server, which is installed first where it is missing and we may."""
    if found := shutil.which("redis-server"):
        return found
    may_install = shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0
    if not may_install:
        pytest.fail("These tests need redis-server. Please install it (Debian: redis-server).")
    _install("redis-server")
    found = shutil.which("redis-server")
    assert found, "the package redis-server holds no redis-server"
    return found


def _install(package: str) -> None:
    """Install a Debian package; one process at a time, since apt-get refuses to wait."""
    import fcntl

    with (Path(tempfile.gettempdir()) / "kinoloom-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if shutil.which(package):  # another process has just done it
            return
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", package]):
            subprocess.run(["apt-get", "-qq", *arguments], env=quiet, check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
