"""Is the SQLite file there, current and whole, and how are its transactions begun?

In WAL mode readers never wait, and writers wait for each other. Opening looks at the schema's
revision with plain SQL and imports Alembic only when something has to change.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc
from sqlalchemy.pool import NullPool

from kinoloom.store import failures
from kinoloom.store.schema import HEAD, REVISIONS, upgrade

# How long a writer waits for another one. Writes here take milliseconds.
BUSY_SECONDS = 20.0


def sqlite_engine(path: Path, **options: Any) -> Engine:
    """An engine whose transactions are SQLite's own, not those that the driver guesses.

    With the execution option `kinoloom_writes` they take the write lock first, with
    `kinoloom_alone` none is begun: each statement is one by itself.
    """
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
        **options,
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


class Changes:
    """Whether anybody committed anything to the database at `path`, for a hundredth of a query.

    May be asked by any thread, and by several in turn.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        # A connection sees the commits of all others, so this one never writes.
        self._connection: sqlite3.Connection | None = None
        self._opened = 0

    def number(self) -> tuple[int, int]:
        """Another one than before whenever something was committed meanwhile."""
        with self._lock:
            if self._connection is None:
                self._connection = sqlite3.connect(
                    self._path, timeout=BUSY_SECONDS, check_same_thread=False
                )
                self._opened += 1
            (version,) = self._connection.execute("PRAGMA data_version").fetchone()
            return self._opened, int(version)

    def close(self) -> None:
        """Give the connection back; asking again opens a new one."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None


def make_current(path: Path) -> None:
    """Make or migrate the database at `path`, waiting for another process that does so.

    Raises OutputFailed when the folder cannot be written, StoreBroken when the file is damaged, no
    database of Kinoloom's, or from a newer version.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise failures.write_failure(error, path.parent) from error
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            if _revision(path) != HEAD:
                _use_wal(path)
                _migrate(path)
            return
        except (sqlite3.Error, exc.DBAPIError) as error:
            cause = error.orig if isinstance(error, exc.DBAPIError) else error
            busy = isinstance(cause, sqlite3.Error) and failures.is_busy(cause)
            if not busy or time.monotonic() > deadline:
                raise failures.sqlite_failure(cause, path) from error
            # Some locks (the change to WAL, the recovery after a crash) do not wait by themselves.
            time.sleep(0.02)


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # In WAL mode this can lose the last commits on a power cut, but never the database.
    connection.execute("PRAGMA synchronous = NORMAL")


def _ignore_references(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = OFF")


def _begin(connection: Connection) -> None:
    options = connection.get_execution_options()
    if options.get("kinoloom_alone", False):
        return
    writes = options.get("kinoloom_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _revision(path: Path) -> str | None:
    """The schema's revision; None for a database without any table yet."""
    if not path.exists():
        return None
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        tables = {
            name
            for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if not tables:
            return None
        if "alembic_version" not in tables:
            raise failures.broken(path, "It is a database of some other program.")
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    revision = None if row is None else str(row[0])
    if revision is not None and revision not in REVISIONS:
        raise failures.newer(str(path), revision)
    return revision


def _use_wal(path: Path) -> None:
    """Switch the file to WAL, which it remembers; where that cannot be, SQLite's default stays."""
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def _migrate(path: Path) -> None:
    """Run the missing migrations, all of them or none.

    They make some tables anew and drop the old ones. With foreign keys on, SQLite would first
    delete the rows of those, and with them all that refers to them.
    """
    engine = sqlite_engine(path, poolclass=NullPool).execution_options(kinoloom_writes=True)
    event.listen(engine, "connect", _ignore_references)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")  # begins, and so waits for the write lock
        upgrade(connection, str(path))
        connection.commit()
