"""Where do real processes of Kinoloom run for a test, and what did they do there?

A `Stage` is a data folder, or several that share a database, with all the processes on it. Triggers
in its database keep a journal that Kinoloom knows nothing of: what each step kept, what was told of
each job, which clips were published.
"""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pydantic import SecretStr

from kinoloom.config import Settings
from kinoloom.jobs.engine import FILE_NAME
from kinoloom.jobs.locks import is_locked, lock_file
from kinoloom.jobs.service import JobService
from kinoloom.request import VideoRequest
from kinoloom.store import DATABASE_NAME
from kinoloom.store.store import Store
from tiny import CARD, write_model

LIMIT = 300.0
"""Seconds after which something that must happen counts as missing, on a machine however busy."""
_POLL = 0.02


def write_cards(folder: Path) -> None:
    """The tiny model, with a card that allows clips which take a few seconds to encode."""
    write_model(folder)
    card = CARD
    for small, large in (("mum: 96", "mum: 512"), ("mum: 25", "mum: 97"), ("mum: 8,", "mum: 40,")):
        assert card.count(f"maxi{small}") == 1 or small == "mum: 8,"
        card = card.replace(f"maxi{small}", f"maxi{large}", 1)
    folder.joinpath("tiny.yaml").write_text(card, encoding="utf-8")


def until(condition: Callable[[], object], what: str, seconds: float = LIMIT) -> None:
    """Wait for a condition. Raises AssertionError that names `what` when it does not come."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(_POLL)


@dataclass
class Program:
    """A process of Kinoloom's and what it says."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def said(self) -> str:
        """All that it wrote so far."""
        return self.log.read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """As a crash, a power cut or the OOM killer would end it."""
        self.process.kill()
        self.process.wait()

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ask it to end, and wait; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(LIMIT)


class Stage:
    """A place for processes that share a database and a folder of assets, and everything on it.

    With `database_url` that is PostgreSQL, and each machine's processes have a home of their own.
    """

    def __init__(
        self, place: Path, cards: Path, *, database_url: str | None = None, ttl: float = 5.0
    ) -> None:
        self.place = place
        self.work = place / "work"
        self.work.mkdir(parents=True)
        self._cards = cards
        self._url = database_url
        self._ttl = ttl
        self._programs: list[Program] = []
        self.settings = Settings(
            home=self.home(""),
            models=cards,
            default_model="tiny",
            device="cpu",
            outputs=self.work / "outputs",
            database_url=None if database_url is None else SecretStr(database_url),
            assets=str(place / "assets"),
            worker_ttl=ttl,
            webhook_secret=SecretStr("chaos"),
        )
        self.store = Store.of(self.settings)
        self.service = JobService(self.settings, self.store)
        self.journal = Journal(self.settings)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for pid in self.pids():
            self.kill(pid)
        for program in self._programs:
            program.process.wait()
            if kind is not None:
                tail = "\n".join(program.said().splitlines()[-25:])
                sys.stderr.write(f"--- {program.log.name}:\n{tail}\n")
        self.journal.close()
        self.service.close()
        self.store.close()

    def home(self, machine: str) -> Path:
        """The data folder of a machine; on SQLite all are the same one."""
        return self.place / (f"home-{machine}" if self._url is not None and machine else "home")

    def environment(self, machine: str = "") -> dict[str, str]:
        """What a process of this place finds in its environment."""
        kept = {name: value for name, value in os.environ.items() if "KINOLOOM_" not in name}
        given = {
            "HOME": self.home(machine),
            "MODELS": self._cards,
            "DEFAULT_MODEL": "tiny",
            "DEVICE": "cpu",
            "ASSETS": self.place / "assets",
            "WORKER_TTL": self._ttl,
            "WEBHOOK_SECRET": "chaos",
        }
        if self._url is not None:
            given["DATABASE_URL"] = self._url
        # With such small arrays, more threads would only wait for each other.
        kept |= {"OMP_NUM_THREADS": "1", "XDG_CONFIG_HOME": str(self.place / "config")}
        return kept | {f"KINOLOOM_{name}": str(value) for name, value in given.items()}

    def start(self, *arguments: str, machine: str = "", name: str = "") -> Program:
        """Start `kinoloom` with these arguments, on one of the machines."""
        log = self.place / f"{len(self._programs):03}-{name or arguments[0]}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(
                [sys.executable, "-m", "kinoloom", *arguments],
                cwd=self.work,
                env=self.environment(machine),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        program = Program(name or arguments[0], process, log)
        self._programs.append(program)
        return program

    def start_worker(self, name: str) -> Program:
        """Start a worker of that name on a machine of its own, and wait until it is there."""
        program = self.start("worker", "--name", name, machine=name, name=name)
        until(
            lambda: self.worker_pid(name) == program.pid or not program.running,
            f"the worker {name} starts",
        )
        assert program.running, program.said()
        return program

    def start_server(self) -> Program:
        """Start a server with its worker, and wait until both are there."""
        program = self.start("serve", "--port", "0", name="serve")
        until(lambda: "Kinoloom is at" in program.said() or not program.running, "the server")
        assert program.running, program.said()
        until(lambda: self.serving_pid(program) is not None, "the worker of the server")
        return program

    def worker_pid(self, name: str) -> int | None:
        """The process of the worker of that name, as it told the others."""
        found = self.store.workers.get(name)
        return found.pid if found is not None and _is_running(found.pid) else None

    def serving_pid(self, server: Program) -> int | None:
        """The process of a server's worker, once it takes jobs."""
        theirs = {pid for pid in _children(server.pid) if b"--supervised" in _command(pid)}
        there = {worker.pid for worker in self.store.workers.live(3600)}
        return min(theirs & there, default=None)

    def child_of(self, worker: int) -> int | None:
        """The process that renders for the worker of that process id."""
        theirs = (pid for pid in _children(worker) if b"kinoloom.jobs.child" in _command(pid))
        return next(theirs, None)

    def submit(self, seed: int, *, frames: int = 9, steps: int = 2, **options: Any) -> str:
        """A new job of a clip that no other seed gives; its id. `options` are the service's."""
        request = VideoRequest(
            prompt="a red ball rolling", seed=seed, frames=frames, steps=steps, size="64x64"
        )
        return self.service.submit(request, **options).id

    def kill(self, pid: int) -> None:
        """Kill a process of this stage; it may just have ended."""
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def pids(self) -> set[int]:
        """Every process that was started on this stage, or by one that was, and still runs."""
        # The whole line: the place of another test may begin with the name of this one.
        mark = f"XDG_CONFIG_HOME={self.place / 'config'}\0".encode()
        found = set()
        for pid in filter(_is_running, _all_pids()):
            with suppress(OSError):
                if mark in Path(f"/proc/{pid}/environ").read_bytes() + b"\0":
                    found.add(pid)
        return found

    def end_all(self) -> None:
        """Ask all that runs to end, and wait until it has."""
        for program in self._programs:
            if program.running:
                program.end()
        until(lambda: not self.pids(), "no process is left", 30)

    def _a_day_later(self) -> None:
        """What was put into the store by somebody who was killed at that moment goes by its age."""
        self.store.assets.collect(timedelta(0))
        for path in self.place.glob("assets/unfinished/*"):
            os.utime(path, (0, 0))
        self.store.assets.sweep()

    def left_over(self) -> list[str]:
        """What is there and should not be, once all jobs and all processes have ended."""
        found = [f"process {pid}" for pid in sorted(self.pids())]
        self._a_day_later()
        names = {program.name for program in self._programs}
        found += [f"lock of {n}" for n in names if is_locked(lock_file(self.settings, n))]
        found += [f"asset {kind} {digest}" for digest, kind in self.journal.assets("frames")]
        found += [f"engine row {row}" for row in self.journal.engine_rows(self.settings)]
        found += [
            str(path.relative_to(self.place))
            for home in self.place.glob("home*")
            for path in home.joinpath("work").rglob("*")
        ]
        found += [str(path) for path in self.work.rglob("*.part")]
        found += [str(path) for path in self.place.glob("assets/unfinished/*")]
        return found


@dataclass(frozen=True)
class Entry:
    """One line of the journal."""

    job: str
    what: str
    detail: str


class Journal:
    """What was written to a stage's database, in its order, by whomever."""

    def __init__(self, settings: Settings) -> None:
        self._postgres = settings.database_url is not None
        self._connection: Any
        if settings.database_url is not None:
            import psycopg

            address = settings.database_url.get_secret_value()
            self._connection = psycopg.connect(address, autocommit=True)
        else:
            self._connection = sqlite3.connect(
                settings.home / DATABASE_NAME, timeout=60, isolation_level=None
            )
        number = "BIGSERIAL" if self._postgres else "INTEGER"
        self._run(
            f"CREATE TABLE journal (number {number} PRIMARY KEY, job TEXT, what TEXT, detail TEXT)"
        )
        self._run("CREATE INDEX journal_jobs ON journal (job, number)")
        for position, (table, operation, values) in enumerate(_WATCHED):
            self._watch(f"journal_{position}", table, operation, values)

    def entries(self, job: str) -> list[Entry]:
        """The lines of a job."""
        mark = "%s" if self._postgres else "?"
        query = f"SELECT job, what, detail FROM journal WHERE job = {mark} ORDER BY number"
        return [Entry(*row) for row in self._run(query, job)]

    def assets(self, kind: str) -> list[tuple[str, str]]:
        """Digests and kinds of the assets of a kind."""
        rows = self._run("SELECT digest, kind FROM assets")
        return [(digest, found) for digest, found in rows if found == kind]

    def engine_rows(self, settings: Settings) -> list[str]:
        """What the durable engine believes it still has to do."""
        query = "SELECT workflow_uuid, status FROM {} WHERE status IN ('PENDING', 'ENQUEUED')"
        if self._postgres:
            there = self._run("SELECT to_regclass('dbos.workflow_status')")[0][0] is not None
            rows = self._run(query.format("dbos.workflow_status")) if there else []
        else:
            with closing(sqlite3.connect(settings.home / FILE_NAME, timeout=60)) as engine:
                rows = engine.execute(query.format("workflow_status")).fetchall()
        return [" ".join(row) for row in rows]

    def hand_engine_row(self, settings: Settings, job: str, worker: str) -> bool:
        """Make a job that waits in the engine (on SQLite) one that a worker has just taken out."""
        taken = "UPDATE workflow_status SET status = 'PENDING', executor_id = ?"
        with closing(sqlite3.connect(settings.home / FILE_NAME, timeout=60)) as engine, engine:
            where = " WHERE workflow_uuid LIKE ? AND status = 'ENQUEUED'"
            if not engine.execute(
                "SELECT 1 FROM sqlite_master WHERE name = 'workflow_status'"
            ).fetchall():
                return False  # the first worker has not made its tables yet
            return engine.execute(taken + where, (worker, f"{job}:%")).rowcount == 1

    def close(self) -> None:
        """Give the connection back."""
        self._connection.close()

    def _watch(self, name: str, table: str, operation: str, values: str) -> None:
        insert = f"INSERT INTO journal (job, what, detail) VALUES ({values});"
        fires = f"CREATE TRIGGER {name} AFTER {operation} ON {table} FOR EACH ROW"
        if self._postgres:
            self._run(
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql"
                f" AS $$ BEGIN {insert} RETURN NULL; END $$"
            )
            self._run(f"{fires} EXECUTE FUNCTION {name}()")
        else:
            self._run(f"{fires} BEGIN {insert} END")

    def _run(self, statement: str, *values: str) -> list[Any]:
        cursor = self._connection.execute(statement, values)
        return cursor.fetchall() if cursor.description else []


# Table, operation, and what is then noted: job, what, detail.
_WATCHED = (
    ("job_artefacts", "INSERT", "NEW.job_id, 'kept', NEW.name"),
    ("job_artefacts", "UPDATE", "NEW.job_id, 'kept again', NEW.name"),
    ("job_events", "INSERT", "NEW.job_id, NEW.type, CAST(NEW.data AS TEXT)"),
    ("clips", "INSERT", "NEW.job_id, 'clip', NEW.id"),
)


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _is_running(pid: int) -> bool:
    """Whether a process is there and no zombie, which only its parent can remove."""
    return _status(pid)[0] not in ("", "Z", "X")


def _status(pid: int) -> tuple[str, int]:
    """The state of a process, a letter, and its parent; an empty one when there is none."""
    with suppress(OSError, ValueError):
        after = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return after[0], int(after[1])
    return "", 0


def _all_pids() -> list[int]:
    return [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdecimal()]


def _children(pid: int) -> list[int]:
    return [child for child in _all_pids() if _status(child)[1] == pid and _is_running(child)]
