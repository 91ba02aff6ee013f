"""How is the database read and written, whichever one it is?

SQLite in the data folder, or PostgreSQL for several machines. The rest of the store writes the same
queries for both; what differs is here and in the module of each.
"""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self, cast

from sqlalchemy import ColumnElement, Engine, Executable, String, exc, func, select
from sqlalchemy.dialects import postgresql
from sqlalchemy.dialects import sqlite as sqlite_dialect
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute, Session

from kinoloom.errors import KinoloomError
from kinoloom.store import failures, postgres, sqlite


class Database:
    """A database and its engine. Use `Database.open` or `Database.connect`."""

    def __init__(
        self,
        reader: Engine,
        writer: Engine,
        alone: Engine,
        place: str,
        failure: Callable[[BaseException | None], KinoloomError],
        changes: sqlite.Changes | None = None,
    ) -> None:
        self._reader, self._writer = reader, writer
        self._alone = alone
        self._changes = changes
        self._place = place
        self._failure = failure
        self._shared = writer.dialect.name == "postgresql"

    @classmethod
    def open(cls, path: Path) -> Self:
        """The SQLite database at `path`, created or migrated when it is not current.

        Several processes may do this at the same moment. Raises OutputFailed and StoreBroken.
        """
        sqlite.make_current(path)
        engine = sqlite.sqlite_engine(path, json_serializer=_json)
        return cls(
            engine,
            engine.execution_options(kinoloom_writes=True),
            engine.execution_options(kinoloom_alone=True),
            str(path),
            lambda error: failures.sqlite_failure(error, path),
            sqlite.Changes(path),
        )

    @classmethod
    def connect(cls, address: str) -> Self:
        """The PostgreSQL database at `address`, its tables created or migrated when needed.

        Several processes may do this at the same moment. Raises MissingPackage without psycopg,
        StoreBroken when the database cannot be reached or used.
        """
        url = postgres.database_address(address)
        engine = postgres.postgres_engine(url, json_serializer=_json)
        postgres.make_current(engine)
        return cls(
            engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True),
            engine,
            engine.execution_options(isolation_level="AUTOCOMMIT"),
            postgres.shown(url),
            lambda error: failures.postgres_failure(error, postgres.shown(url)),
        )

    def close(self) -> None:
        """Close the pooled connections."""
        self._writer.dispose()
        if self._changes is not None:
            self._changes.close()

    def changed(self) -> tuple[int, int] | None:
        """Something that is another than before when anybody committed anything meanwhile.

        None where only a query can tell, as on PostgreSQL.
        """
        if self._changes is None:
            return None
        try:
            return self._changes.number()
        except sqlite3.Error as error:
            raise self._failure(error) from error

    @contextmanager
    def reading(self) -> Iterator[Session]:
        """A session that sees one state of the database from its first query on."""
        with self._session(self._reader) as session:
            yield session

    @contextmanager
    def writing(self) -> Iterator[Session]:
        """A session in a transaction, committed unless something raises.

        On SQLite it holds the write lock from the start: taking it first means waiting for it,
        where a read that becomes a write would fail. On PostgreSQL others write at the same time,
        so what is read to be written must be locked (`with_for_update`), or be one statement.
        """
        with self._session(self._writer) as session, session.begin():
            yield session

    def one(self, statement: Executable, values: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
        """The rows of a single statement, which is a transaction of its own.

        Half the work of a session for what is asked, or counted, all the time.
        """
        with self._failures(), self._alone.connect() as connection:
            result = connection.execute(statement, values)
            found = result.mappings().all() if result.returns_rows else ()
        return cast("Sequence[Mapping[str, Any]]", found)

    def insert(self, row: type[DeclarativeBase]) -> sqlite_dialect.Insert:
        """An INSERT that can say what happens `on_conflict_...`, which is no standard SQL.

        Both databases take the same words; the type is one of the two.
        """
        dialect: Any = postgresql if self._shared else sqlite_dialect
        insert: sqlite_dialect.Insert = dialect.insert(row)
        return insert

    def take_turn(self, session: Session) -> None:
        """Let transactions that do this end one after the other, in the order they did it.

        So the numbers that they draw become visible in their order. To be called before anything
        is locked in the transaction; on SQLite every one that writes waits its turn anyway.
        """
        if self._shared:
            postgres.take_turn(session.connection())

    def take_turn_to_spend(self, session: Session) -> None:
        """Let transactions that spend out of budgets end one after the other.

        So each of them sees what the others reserved. To be called before anything is locked.
        """
        if self._shared:
            postgres.take_turn_to_spend(session.connection())

    def day(self, moment: InstrumentedAttribute[datetime]) -> ColumnElement[str]:
        """The day in UTC of a column's moment, such as "2026-11-21"."""
        if self._shared:
            return func.to_char(func.timezone("UTC", moment), "YYYY-MM-DD", type_=String)
        return func.strftime("%Y-%m-%d", moment, type_=String)

    def now(self, session: Session) -> datetime:
        """The time that everyone who uses the database agrees on."""
        if not self._shared:  # one machine
            return datetime.now(UTC)
        now: datetime = session.scalars(select(func.clock_timestamp())).one()
        return now.astimezone(UTC)  # it comes in the zone of the session

    @contextmanager
    def _session(self, engine: Engine) -> Iterator[Session]:
        with self._failures(), Session(engine, expire_on_commit=False) as session:
            yield session

    @contextmanager
    def _failures(self) -> Iterator[None]:
        """What goes wrong with the database, as an error of Kinoloom's."""
        try:
            yield
        except exc.IntegrityError:
            raise  # the caller knows what its rows mean
        except exc.DBAPIError as error:
            raise self._failure(error.orig) from error
        except exc.TimeoutError as error:
            raise failures.busy(self._place) from error


def _json(value: Any) -> str:
    """JSON as the standard has it: a number that is none (a score of nothing) becomes null."""
    try:
        return json.dumps(value, allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
