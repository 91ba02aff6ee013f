from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy.orm import Session

from kinoloom.store import Store
from kinoloom.store.database import Database


@pytest.fixture
def sqlite_store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str | None:
    """The address of a database with the tables in it; None for the one in the data folder."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("current_postgres")
    return url


@pytest.fixture
def store(tmp_path: Path, database_url: str | None) -> Iterator[Store]:
    """A store on each of the two databases."""
    (tmp_path / "home").mkdir()
    with Store.open(tmp_path / "home", database_url=database_url) as opened:
        yield opened


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[datetime], None]:
    """Sets what time it is for the database."""

    def set_to(moment: datetime) -> None:
        def told(_database: Database, _session: Session) -> datetime:
            return moment

        monkeypatch.setattr(Database, "now", told)

    return set_to
