"""Which revision of the schema is this, and how does a database reach it?"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection

from kinoloom.errors import StoreBroken

# Every revision, oldest first; a test compares them with the migrations.
REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009")
HEAD = REVISIONS[-1]
MIGRATIONS = Path(__file__).parent / "migrations"


def upgrade(connection: Connection, place: str) -> None:
    """Run the missing migrations in the connection's transaction, which its owner commits.

    Another process may have done the work while this one waited; then nothing is left to do.
    Raises StoreBroken when the migrations of this installation are not complete.
    """
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
