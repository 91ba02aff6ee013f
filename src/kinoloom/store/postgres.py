"""Is the PostgreSQL database there and current, and how is it reached?

Several machines share it. Their clocks differ, so times that are compared come from its own.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, exc, make_url, text

from kinoloom.errors import MissingPackage
from kinoloom.store import failures
from kinoloom.store.schema import HEAD, REVISIONS, upgrade

# Any two numbers will do for the locks that every Kinoloom process takes, as long as they stay.
_MIGRATION_LOCK = 0x4B696E6F01
_TURN_LOCK = 0x4B696E6F02
_SPENDING_LOCK = 0x4B696E6F03

# A server's threads share these; a worker needs two or three of them.
_CONNECTIONS, _MORE_CONNECTIONS = 5, 20
_WAIT_SECONDS = 20.0  # for one of these
_CONNECT_SECONDS = 10
# A process that is stopped in the middle of a transaction must not keep its locks from all others:
# after so long without a word from it the server ends the transaction. Ours are short.
_SILENT_SECONDS = 15


def database_address(address: str) -> URL:
    """The address of a database as SQLAlchemy takes it, for the driver that is used here."""
    return make_url(address).set(drivername="postgresql+psycopg")


def postgres_engine(url: URL, **options: Any) -> Engine:
    """An engine with a pool of connections that are tried before they are used.

    Raises MissingPackage when there is no psycopg.
    """
    usual = {
        "connect_timeout": _CONNECT_SECONDS,
        "options": f"-c idle_in_transaction_session_timeout={_SILENT_SECONDS}s",
    }
    usual = {name: value for name, value in usual.items() if name not in url.query}
    try:
        return create_engine(
            url,
            connect_args={"application_name": "kinoloom", **usual},
            pool_size=_CONNECTIONS,
            max_overflow=_MORE_CONNECTIONS,
            pool_timeout=_WAIT_SECONDS,
            pool_pre_ping=True,
            **options,
        )
    except ImportError as error:
        raise MissingPackage(
            "A PostgreSQL database needs the package psycopg.",
            cause=str(error),
            hints=["pip install 'kinoloom[postgres]'"],
        ) from error


def make_current(engine: Engine) -> None:
    """Make or migrate the database, waiting for another process that does so.

    Raises StoreBroken when it cannot be reached, is from a newer version or not Kinoloom's.
    """
    try:
        with engine.connect() as connection:
            if _revision(connection, engine.url) == HEAD:
                return
        with engine.begin() as connection:
            _lock(connection, _MIGRATION_LOCK)
            upgrade(connection, shown(engine.url))
    except exc.DBAPIError as error:
        raise failures.postgres_failure(error.orig, shown(engine.url)) from error


def take_turn(connection: Connection) -> None:
    """Wait for every other transaction that did this, and make later ones wait for this one."""
    _lock(connection, _TURN_LOCK)


def take_turn_to_spend(connection: Connection) -> None:
    """As `take_turn`, among those that look at what was spent before they spend."""
    _lock(connection, _SPENDING_LOCK)


def shown(url: URL) -> str:
    """The address without the password."""
    return url.set(drivername="postgresql").render_as_string(hide_password=True)


def _lock(connection: Connection, number: int) -> None:
    connection.execute(text("SELECT pg_advisory_xact_lock(:number)"), {"number": number})


def _revision(connection: Connection, url: URL) -> str | None:
    """The schema's revision; None for a database without Kinoloom's tables yet."""
    if connection.scalar(text("SELECT to_regclass('alembic_version')")) is None:
        return None
    query = text("SELECT version_num FROM alembic_version")
    revision: str | None = connection.scalar(query)
    if revision is not None and revision not in REVISIONS:
        raise failures.newer(shown(url), revision)
    return revision
