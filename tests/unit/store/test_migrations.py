"""What becomes of the money, and of all else, of a database that was made before the books?"""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text

from kinoloom.store import Store
from unit.store.schema_check import assert_exactly_the_tables, connected, migrate, schema_of

AT = "2026-03-04 05:06:07.000000"
D = Decimal


@pytest.fixture(params=["sqlite", "postgresql"])
def empty_url(request: pytest.FixtureRequest) -> str | None:
    """The address of an empty database; None for the one in the data folder."""
    if request.param == "sqlite":
        return None
    url: str = request.getfixturevalue("postgres")
    return url


def test_the_migrations_make_what_a_new_database_has(
    tmp_path: Path, empty_url: str | None, request: pytest.FixtureRequest
) -> None:
    made, migrated = tmp_path / "made", tmp_path / "migrated"
    for home in (made, migrated):
        home.mkdir()
    with connected(migrated, empty_url) as connection:
        migrate(connection, "head")
    assert_exactly_the_tables(migrated, empty_url)
    # The other database, which is not empty any more, was new when it was opened.
    url = None if empty_url is None else request.getfixturevalue("current_postgres")
    Store.open(made, database_url=url).close()
    assert schema_of(made, url) == schema_of(migrated, empty_url)


def insert(connection: Connection, table: str, **values: Any) -> None:
    names = ", ".join(values)
    places = ", ".join(f":{name}" for name in values)
    connection.execute(text(f"INSERT INTO {table} ({names}) VALUES ({places})"), values)


def fill_clip(connection: Connection, **newer: Any) -> None:
    """A clip with its asset, as it was at 0004, and the columns that are newer."""
    clip = {
        "id": "clip",
        "created_at": AT,
        "path": "a.mp4",
        "plan_key": "k",
        "task": "t2v",
        "model": "gen",
        "backend": "veo",
        "seed": 1,
        "width": 8,
        "height": 8,
        "frames": 1,
        "fps": 8.0,
        "format": "mp4",
        "search": "p",
        "request": "{}",
        "plan": "{}",
        "timings": "{}",
        "scores": "{}",
        "versions": "{}",
        "warnings": "[]",
    }
    asset = {"digest": "sha256:1", "kind": "video", "size": 1, "created_at": AT}
    insert(connection, "assets", **asset)
    insert(connection, "clips", **clip, **newer)
    insert(connection, "clip_assets", clip_id="clip", role="video", digest="sha256:1")


def fill(connection: Connection) -> None:
    """Jobs with events, a clip with its asset, and keys, as they were at 0006."""
    job = {
        "kind": "clip",
        "state": "succeeded",
        "queue": "api",
        "priority": 0,
        "origin": "api",
        "request": "{}",
        "task": "t2v",
        "model": "gen",
        "backend": "veo",
        "prompt": "p",
        "search": "p",
        "run": 1,
        "handed": 0,
        "deaths": 0,
        "reused": False,
        "created_at": AT,
        "updated_at": AT,
    }
    insert(connection, "jobs", id="paid", owner="key", cost=0.1, finished_at=AT, **job)
    insert(connection, "jobs", id="paid-too", owner="", cost=0.7, **job)
    insert(connection, "jobs", id="free", owner="key", cost=None, **job)
    insert(connection, "job_events", job_id="paid", type="log", data="{}", created_at=AT)
    fill_clip(connection, takes="[]", owner="", job_id="", steps=0, seconds=0.0)
    key = {"scopes": '["read"]', "prefix": "kl_12345678", "created_at": AT}
    insert(connection, "api_keys", id="key", name="a", hash="1", budget=2.3, spent=0.3, **key)
    insert(connection, "api_keys", id="two", name="b", hash="2", budget=None, spent=0.0, **key)


def test_what_was_paid_is_in_the_books(tmp_path: Path, empty_url: str | None) -> None:
    with connected(tmp_path, empty_url) as connection:
        migrate(connection, "0006")
        fill(connection)
    with Store.open(tmp_path, database_url=empty_url) as store:
        assert [(key.name, key.budget) for key in store.keys.list()] == [
            ("b", None),
            ("a", D("2.3")),
        ]
        assert store.remote_calls.spent(owner="key") == D("0.4")  # 0.3 of jobs forgotten before
        assert store.remote_calls.spent(owner="two") == 0
        assert store.remote_calls.spent() == D("1.1")
        costs = {job.id: (job.cost, job.currency) for job in store.jobs.list()}
        assert costs == {
            "paid": (D("0.1"), "USD"),
            "paid-too": (D("0.7"), "USD"),
            "free": (None, None),
        }
        (call,) = store.remote_calls.of_job("paid")
        assert (call.backend, call.model, call.state) == ("veo", "gen", "succeeded")
        assert (call.created_at, call.owner) == (store.jobs.list()[0].created_at, "key")
        assert [row.name for row in store.remote_calls.costs("day")] == ["2026-03-04"]
        assert len(store.events.after(0, job_id="paid")) == 1  # nothing went with the old column
        clip = store.clips.get("clip")
        assert clip is not None
        assert (clip.asset, clip.attempts, clip.cost) == ("sha256:1", (), None)


def test_there_and_back(tmp_path: Path, empty_url: str | None) -> None:
    with connected(tmp_path, empty_url) as connection:
        migrate(connection, "0006")
        fill(connection)
        migrate(connection, "0007")
        migrate(connection, "0006", down=True)
        jobs = connection.execute(text("SELECT id, cost FROM jobs ORDER BY id")).all()
        assert [tuple(row) for row in jobs] == [("free", None), ("paid", 0.1), ("paid-too", 0.7)]
        keys = connection.execute(text("SELECT id, budget, spent FROM api_keys ORDER BY id")).all()
        assert [tuple(row) for row in keys] == [("key", 2.3, 0.3), ("two", None, 0.0)]
        assert connection.scalar(text("SELECT count(*) FROM job_events")) == 1
        migrate(connection, "0007")
    with Store.open(tmp_path, database_url=empty_url) as store:
        assert store.remote_calls.spent() == D("1.1")


def test_a_table_that_is_made_anew_keeps_what_refers_to_it(
    tmp_path: Path, empty_url: str | None
) -> None:
    with connected(tmp_path, empty_url) as connection:
        migrate(connection, "0004")
        fill_clip(connection)
    with Store.open(tmp_path, database_url=empty_url) as store:
        clip = store.clips.get("clip")
        assert clip is not None
        assert clip.asset == "sha256:1"
        with pytest.raises(ValueError, match="not in the store"):  # and references count again
            store.clips.add(replace(clip, id="other", asset="sha256:2"))
