"""Which revision of the schema is this, and how does a database reach it?"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from kinoloom.errors import StoreBroken

# Every revision, oldest first; a test compares them with the migrations.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
HEAD = REVISIONS[-1]
MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection, place: str) -> None:
    """Make all tables, or run the missing migrations, in the connection's transaction.

    Its owner commits it. Another process may have done the work while this one waited; then nothing
    is left to do.
    Raises StoreBroken when the migrations of this installation are not complete.
    """
    if not inspect(connection).get_table_names():
        _create(connection)
        return
    from alembic import command
    from alembic.config import Config
    from alembic.util import CommandError

    config = Config()
    # A percent sign would start an interpolation.
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, "head")
    except CommandError as error:
        raise StoreBroken(
            f"Kinoloom's database {place} cannot be brought up to date.",
            cause=str(error),
            hints=["Install Kinoloom again: its migrations are incomplete."],
        ) from error


def _create(connection: Connection) -> None:
    """Make the tables of the newest revision at once: a tenth of the time of all migrations.

    A test compares what both ways make.
    """
    from kinoloom.store.tables import Base

    Base.metadata.create_all(connection)
    # As Alembic makes it.
    connection.execute(
        text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL,"
            " CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num))"
        )
    )
    connection.execute(text("INSERT INTO alembic_version VALUES (:head)"), {"head": HEAD})
