"""Is the database there, current and whole, and how is it read and written?

SQLite in WAL mode: readers never wait, writers wait for each other. Opening looks at the schema's
revision with plain SQL and imports Alembic only when something has to change.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import URL, Connection, Engine, create_engine, event, exc
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from kinoloom.errors import StoreBroken
from kinoloom.store import failures

# Every revision of the schema, oldest first; a test compares them with the migrations.
REVISIONS = ("0001", "0002", "0003", "0004", "0005")
HEAD = REVISIONS[-1]

# How long a writer waits for another one. Writes here take milliseconds.
BUSY_SECONDS = 20.0
MIGRATIONS = Path(__file__).parent / "migrations"


class Database:
    """One SQLite file and its engine."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._engine = _engine(path)
        self._writer = self._engine.execution_options(kinoloom_writes=True)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The database at `path`, created or migrated when it is not current.

        Several processes may do this at the same moment. Raises OutputFailed and StoreBroken.
        """
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise failures.write_failure(error, path.parent) from error
        _bring_up_to_date(path)
        return cls(path)

    def close(self) -> None:
        """Close the pooled connections."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one state of the database from its first query on."""
        with self._session(self._engine) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session in a transaction that holds the write lock; committed unless something raises.

        Taking the lock first means waiting for it, where a read that becomes a write would fail.
        """
        with self._session(self._writer) as session, session.begin():
            yield session

    @contextmanager
    def _session(self, engine: Engine) -> Iterator[Session]:
        try:
            with Session(engine, expire_on_commit=False) as session:
                yield session
        except exc.IntegrityError:
            raise  # the caller knows what its rows mean
        except exc.DBAPIError as error:
            raise failures.database_failure(error.orig, self.path) from error


def _engine(path: Path, **options: Any) -> Engine:
    """An engine whose transactions are SQLite's own, not those that the driver guesses."""
    engine = create_engine(
        URL.create("sqlite", database=str(path)),
        connect_args={"timeout": BUSY_SECONDS, "isolation_level": None},
        **options,
    )
    event.listen(engine, "connect", _prepare)
    event.listen(engine, "begin", _begin)
    return engine


def _prepare(connection: sqlite3.Connection, _record: object) -> None:
    connection.execute("PRAGMA foreign_keys = ON")
    # In WAL mode this can lose the last commits on a power cut, but never the database.
    connection.execute("PRAGMA synchronous = NORMAL")


def _begin(connection: Connection) -> None:
    writes = connection.get_execution_options().get("kinoloom_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _bring_up_to_date(path: Path) -> None:
    """Make or migrate the database, waiting for another process that does so."""
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
                raise failures.database_failure(cause, path) from error
            # Some locks (the change to WAL, the recovery after a crash) do not wait by themselves.
            time.sleep(0.02)


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
        raise failures.newer(path, revision)
    return revision


def _use_wal(path: Path) -> None:
    """Switch the file to WAL, which it remembers; where that cannot be, SQLite's default stays."""
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")


def _migrate(path: Path) -> None:
    """Run the missing migrations, all of them or none."""
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    # A percent sign would start an interpolation.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    engine = _engine(path, poolclass=NullPool).execution_options(kinoloom_writes=True)
    with engine.connect() as connection:
        connection.exec_driver_sql("SELECT 1")  # begins, and so waits for the write lock
        # Another process may have done the work while this one waited; then nothing is left to do.
        config.attributes["connection"] = connection
        try:
            command.upgrade(config, "head")
        except CommandError as error:
            raise StoreBroken(
                f"Kinoloom's database {path} cannot be brought up to date.",
                cause=str(error),
                hints=["Install Kinoloom again: its migrations are incomplete."],
            ) from error
        connection.commit()
