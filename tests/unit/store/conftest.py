from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kinoloom.store import Store


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
