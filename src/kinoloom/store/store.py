"""How is the store opened, and what is in it?"""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from kinoloom.store import DATABASE_NAME
from kinoloom.store.assets import Assets
from kinoloom.store.clips import Clips
from kinoloom.store.database import Database
from kinoloom.store.measurements import Measurements
from kinoloom.store.models import Models
from kinoloom.store.statistics import Statistics


class Store:
    """Everything Kinoloom remembers, in one folder: a database and the assets beside it.

    `assets` holds files by their content, `clips` a record of each finished clip, `measurements`
    what rendering took on this machine, `models` what was downloaded and agreed to,
    `statistics` how often things happened. Threads and processes may share a folder, and threads a
    Store. Use `Store.open`, best as a context manager.
    """

    def __init__(self, home: Path, database: Database) -> None:
        self.home = home
        self._database = database
        self.assets = Assets(home / "assets", database)
        self.clips = Clips(database)
        self.measurements = Measurements(database)
        self.models = Models(database)
        self.statistics = Statistics(database)

    @classmethod
    def open(cls, home: str | Path) -> Self:
        """The store in the folder `home`, made or brought up to date when it is not.

        Raises OutputFailed when the folder cannot be written, StoreBroken when the database is
        damaged, no database of Kinoloom's, or from a newer version.
        """
        home = Path(home)
        store = cls(home, Database.open(home / DATABASE_NAME))
        store.assets.sweep()
        return store

    def close(self) -> None:
        """Give the database's connections back; using the store afterwards opens new ones."""
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
