"""Is a database's schema the one that the code has?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, Engine, create_engine, inspect

from kinoloom.store import DATABASE_NAME
from kinoloom.store.postgres import database_address
from kinoloom.store.schema import MIGRATIONS
from kinoloom.store.sqlite import sqlite_engine
from kinoloom.store.tables import Base


def engine_of(home: Path, url: str | None) -> Engine:
    """A plain engine for a database by its address; None: the one in the data folder."""
    return create_engine(
        f"sqlite:///{home / DATABASE_NAME}" if url is None else database_address(url)
    )


@contextmanager
def connected(home: Path, url: str | None) -> Iterator[Connection]:
    """A transaction as migrations have it: SQLite with its foreign keys checked."""
    engine: Engine
    if url is None:
        engine = sqlite_engine(home / DATABASE_NAME).execution_options(kinoloom_writes=True)
    else:
        engine = create_engine(database_address(url))
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def migrate(connection: Connection, revision: str, *, down: bool = False) -> None:
    """Run migrations up to a revision, or down to it."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    config.attributes["connection"] = connection
    (command.downgrade if down else command.upgrade)(config, revision)


def assert_exactly_the_tables(home: Path, url: str | None) -> None:
    """Every table as `kinoloom.store.tables` has it, and no other."""
    engine = engine_of(home, url)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, Base.metadata) == []
        # Alembic does not compare these.
        found = inspect(connection)
        for name, table in Base.metadata.tables.items():
            # SQLite cannot name the key of a table that counts up by itself.
            counting = url is None and table.dialect_options["sqlite"]["autoincrement"]
            assert found.get_pk_constraint(name)["name"] == (None if counting else f"pk_{name}")
            nullable = {column["name"]: column["nullable"] for column in found.get_columns(name)}
            assert nullable == {column.name: column.nullable for column in table.columns}
            ondelete = {
                key["referred_table"]: key["options"].get("ondelete")
                for key in found.get_foreign_keys(name)
            }
            assert ondelete == {key.column.table.name: key.ondelete for key in table.foreign_keys}
    engine.dispose()


def schema_of(home: Path, url: str | None) -> dict[str, Any]:
    """All that the database itself says of its tables, in an order that means nothing."""
    engine = engine_of(home, url)
    with engine.connect() as connection:
        found = inspect(connection)
        told = {
            name: {
                "columns": {str(c["name"]): _plain(c) for c in found.get_columns(name)},
                "key": _plain(found.get_pk_constraint(name)),
                "references": _sorted(found.get_foreign_keys(name)),
                "indexes": _sorted(found.get_indexes(name)),
                "unique": _sorted(found.get_unique_constraints(name)),
                "checks": _sorted(found.get_check_constraints(name)),
            }
            for name in found.get_table_names()
        }
    engine.dispose()
    return told


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(of) for key, of in value.items()}
    return str(value)  # SQL objects equal only themselves


def _sorted(values: Any) -> list[Any]:
    return sorted((_plain(value) for value in values), key=str)
