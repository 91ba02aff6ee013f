"""Which servers do the tests talk to, and how are they started?

Real ones on this machine: what is missing is installed where the tests may do that.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

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


class PostgresServer:
    """A PostgreSQL server of our own at 127.0.0.1, in a folder that is gone afterwards.

    It does not survive a power cut, which makes it several times faster.
    """

    user, password = "kinoloom", "p%ss w/rd"

    def __init__(self, programs: Path) -> None:
        self._programs = programs
        # Not pytest's folder, which only its user may enter.
        self._folder = Path(tempfile.mkdtemp(prefix="kinoloom-postgres-"))
        self._as_user: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._made = 0
        self.port = _free_port()

    def start(self) -> None:
        """Make its data, start it and wait until it accepts connections."""
        if hasattr(os, "geteuid") and os.geteuid() == 0:  # which it refuses to run as
            name = _unprivileged()
            shutil.chown(self._folder, name, name)
            self._as_user = {"user": name, "group": name, "extra_groups": []}
        secret = self._folder / "password"
        secret.write_text(self.password)
        secret.chmod(0o644)
        data = str(self._folder / "data")
        subprocess.run(
            [
                *(str(self._programs / "initdb"), "--no-sync", "--encoding=UTF8", "--locale=C"),
                *("--auth=scram-sha-256", f"--username={self.user}", f"--pwfile={secret}", data),
            ],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd=self._folder,
            **self._as_user,
        )
        options = {
            "fsync": "off",
            "full_page_writes": "off",
            "listen_addresses": "127.0.0.1",
            "max_connections": "300",
            "unix_socket_directories": str(self._folder),
        }
        with (self._folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    *(str(self._programs / "postgres"), "-D", data, "-p", str(self.port)),
                    *(f"--{name}={value}" for name, value in options.items()),
                ],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                **self._as_user,
            )
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        deadline = time.monotonic() + 60
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = (self._folder / "log").read_text(errors="replace")
                self.stop()
                raise RuntimeError(f"postgres did not start:\n{said}")
            time.sleep(0.05)

    def create(self) -> str:
        """The address of a new, empty database."""
        self._made += 1
        name = f"test_{self._made}"
        self._run(f"CREATE DATABASE {name} TEMPLATE template0")
        user, password = quote(self.user, safe=""), quote(self.password, safe="")
        return f"postgresql://{user}:{password}@127.0.0.1:{self.port}/{name}"

    def drop(self, url: str) -> None:
        """Remove a database and end the connections to it."""
        self._run(f"DROP DATABASE {url.rpartition('/')[2]} WITH (FORCE)")

    def stop(self) -> None:
        """End it and remove its data."""
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # at once: nothing is to be kept
            self._process.wait(30)
            self._process = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _run(self, statement: str) -> None:
        import psycopg

        with psycopg.connect(
            host="127.0.0.1",
            port=self.port,
            user=self.user,
            password=self.password,
            dbname="postgres",
            autocommit=True,
        ) as connection:
            connection.execute(statement)


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """A running server, ended after the session."""
    server = PostgresServer(postgres_programs())
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def postgres(postgres_server: PostgresServer) -> Iterator[str]:
    """The address of a fresh, empty PostgreSQL database, which is gone after the test."""
    url = postgres_server.create()
    yield url
    postgres_server.drop(url)


@pytest.fixture(scope="session")
def _migrated(
    postgres_server: PostgresServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    from kinoloom.store import Store

    url = postgres_server.create()
    Store.open(tmp_path_factory.mktemp("migrated"), database_url=url).close()
    yield url
    postgres_server.drop(url)


@pytest.fixture
def current_postgres(_migrated: str) -> Iterator[str]:
    """As `postgres`, with Kinoloom's tables in it.

    One database, emptied after each test, which is ten times as fast as a new one; so the test must
    end whatever writes to it.
    """
    import psycopg

    yield _migrated
    with psycopg.connect(_migrated, options="-c lock_timeout=10s") as connection:
        tables = connection.execute(
            "SELECT string_agg(tablename, ', ') FROM pg_tables"
            " WHERE schemaname = 'public' AND tablename <> 'alembic_version'"
        ).fetchone()
        assert tables is not None
        connection.execute(f"TRUNCATE {tables[0]} RESTART IDENTITY")


def redis_program() -> str:
    """The path of redis-server, which is installed first where it is missing and we may."""
    return _program("redis-server", "redis-server", lambda: shutil.which("redis-server"))


def postgres_programs() -> Path:
    """The folder of PostgreSQL's programs, which are installed first where that may be done."""
    return Path(_program("initdb", "postgresql", _find_postgres)).parent


def _find_postgres() -> str | None:
    """The newest initdb; Debian keeps it where no PATH looks."""
    found = Path("/usr/lib/postgresql").glob("*/bin/initdb")
    newest = max(found, key=lambda path: _version(path.parents[1].name), default=None)
    return shutil.which("initdb") if newest is None else str(newest)


def _version(name: str) -> tuple[int, ...]:
    return tuple(int(part) for part in name.split(".") if part.isdecimal())


def _unprivileged() -> str:
    """A user of this machine that is not root."""
    import pwd

    for name in ("postgres", "nobody"):
        with suppress(KeyError):
            return pwd.getpwnam(name).pw_name
    raise RuntimeError("PostgreSQL does not run as root, and there is no user postgres or nobody")


def _program(name: str, package: str, find: Callable[[], str | None]) -> str:
    """The path of a program, whose Debian package is installed where it is missing and we may."""
    if found := find():
        return found
    may_install = shutil.which("apt-get") and hasattr(os, "geteuid") and os.geteuid() == 0
    if not may_install:
        pytest.fail(f"These tests need {name}. Please install it (Debian: {package}).")
    _install(package, find)
    found = find()
    assert found, f"the package {package} holds no {name}"
    return found


def _install(package: str, find: Callable[[], str | None]) -> None:
    """Install a Debian package; one process at a time, since apt-get refuses to wait."""
    import fcntl

    with (Path(tempfile.gettempdir()) / "kinoloom-tests-apt.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if find():  # another process has just done it
            return
        quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
        # The lists may be empty, as they are in a container's image.
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", package]):
            subprocess.run(["apt-get", "-qq", *arguments], env=quiet, check=True)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
