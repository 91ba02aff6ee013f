"""How is the store opened, and what is in it?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from kinoloom.config import Settings
from kinoloom.store import DATABASE_NAME
from kinoloom.store.assets import Assets
from kinoloom.store.clips import ClipRecord, Clips, insert_clip
from kinoloom.store.database import Database
from kinoloom.store.events import Events
from kinoloom.store.films import Films
from kinoloom.store.jobs import Jobs
from kinoloom.store.keys import Keys
from kinoloom.store.measurements import Measurement, Measurements, insert_measurement
from kinoloom.store.models import Models
from kinoloom.store.remote_calls import RemoteCalls
from kinoloom.store.statistics import Statistics, add_counters
from kinoloom.store.workers import Workers


class Store:
    """Everything Kinoloom remembers: a database, and files by their content.

    `assets` holds the files, `clips` a record of each finished clip, `jobs` what was asked for and
    how far it is, `films` storyboards and their takes, `events` what happened to the jobs,
    `workers` who runs them, `keys` who may ask the server, `remote_calls` what services were asked
    to make and what that costs, `measurements` what rendering took on this machine, `models` what
    was downloaded and agreed to, `statistics` how often things happened. Threads, processes and
    (with a PostgreSQL database) machines may share what is kept, and threads a Store. Use
    `Store.open` or `Store.of`, best as a context manager.
    """

    def __init__(self, home: Path, database: Database, assets: str | None = None) -> None:
        self.home = home
        self._database = database
        self.assets = Assets(assets or home / "assets", database, cache=home / "cache" / "assets")
        self.clips = Clips(database)
        self.jobs = Jobs(database)
        self.films = Films(database)
        self.events = Events(database)
        self.workers = Workers(database)
        self.keys = Keys(database)
        self.remote_calls = RemoteCalls(database)
        self.measurements = Measurements(database)
        self.models = Models(database)
        self.statistics = Statistics(database)

    @classmethod
    def open(
        cls, home: str | Path, *, database_url: str | None = None, assets: str | None = None
    ) -> Self:
        """The store in the folder `home`, made or brought up to date when it is not.

        With `database_url` the database is that PostgreSQL one, with `assets` the files are in that
        folder or at that address. Raises OutputFailed when the folder cannot be written,
        StoreBroken when the database is damaged, unreachable, no database of Kinoloom's, or from a
        newer version, MissingPackage when a package for an address is not installed.
        """
        home = Path(home)
        if database_url is None:
            database = Database.open(home / DATABASE_NAME)
        else:
            database = Database.connect(database_url)
        store = cls(home, database, assets)
        store.assets.sweep()
        return store

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """The store that the settings name; see `open`."""
        secret = settings.database_url
        return cls.open(
            settings.home,
            database_url=None if secret is None else secret.get_secret_value(),
            assets=settings.assets,
        )

    def record_clip(
        self,
        record: ClipRecord,
        measurements: Sequence[Measurement] = (),
        counters: Mapping[str, int] | None = None,
    ) -> None:
        """Keep a finished clip with what making it taught and counted: all of it, or nothing.

        Raises ValueError as `Clips.add` does.
        """
        with self._database.writing() as session:
            insert_clip(session, record)
            for measurement in measurements:
                insert_measurement(session, measurement)
            add_counters(session, counters or {})

    def changed(self) -> tuple[int, int] | None:
        """Something that is another than before when anybody changed the database meanwhile.

        It costs next to nothing. None where only a query can tell.
        """
        return self._database.changed()

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
