from __future__ import annotations

import sys
import threading
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest
from sqlalchemy import text

from kinoloom.config import Settings
from kinoloom.errors import KinoloomError, MissingPackage, OutputFailed, StoreBroken
from kinoloom.store import DATABASE_NAME, Store
from kinoloom.store import postgres as postgres_module
from kinoloom.store.database import Database
from kinoloom.store.held import held_store
from kinoloom.store.schema import HEAD
from services import PostgresServer

PASSWORD = quote(PostgresServer.password, safe="")


def ask(url: str, query: str) -> list[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        return connection.execute(query).fetchall()


def refused(home: Path, url: str) -> KinoloomError:
    """What opening says, which never is the password."""
    with pytest.raises(KinoloomError) as caught:
        Store.open(home, database_url=url)
    told = f"{caught.value!r} {caught.value.as_dict()}"
    assert PostgresServer.password not in told
    assert PASSWORD not in told
    return caught.value


def test_a_fresh_database(postgres: str, tmp_path: Path) -> None:
    with Store.open(tmp_path, database_url=postgres) as store:
        store.statistics.add("seen")
    with Store.open(tmp_path / "elsewhere", database_url=postgres) as store:
        assert store.statistics.totals() == {"seen": 1}
    assert not (tmp_path / DATABASE_NAME).exists()
    assert ask(postgres, "SELECT version_num FROM alembic_version") == [(HEAD,)]


def test_many_open_a_fresh_database_at_once(postgres: str, tmp_path: Path) -> None:
    failures: list[BaseException] = []
    together = threading.Barrier(4)

    def open_it() -> None:
        try:
            together.wait(60)
            with Store.open(tmp_path, database_url=postgres) as store:
                store.statistics.add("opened")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=open_it) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert ask(postgres, "SELECT value FROM counters") == [(4,)]


def test_the_held_store_is_that_of_the_settings(current_postgres: str, tmp_path: Path) -> None:
    near, far = Settings(home=tmp_path), Settings(home=tmp_path, database_url=current_postgres)
    held_store(far).statistics.add("far")
    assert held_store(far) is held_store(far)
    assert held_store(near).statistics.totals() == {}
    assert held_store(far).statistics.totals() == {"far": 1}
    held_store(near)  # gives the connections to the database back


def test_nobody_answers(postgres_server: PostgresServer, tmp_path: Path) -> None:
    url = f"postgresql://someone:{PASSWORD}@127.0.0.1:1/name"
    error = refused(tmp_path, url)
    assert isinstance(error, StoreBroken)
    assert "postgresql://someone:***@127.0.0.1:1/name cannot be reached" in error.message
    assert "refused" in error.cause


@pytest.mark.parametrize(
    ("part", "other", "cause"),
    [
        (PASSWORD, PASSWORD + "x", "password authentication failed"),
        ("kinoloom:", "nobody:", "password authentication failed"),
        ("/test_", "/no_test_", "does not exist"),
    ],
)
def test_an_address_that_is_wrong(
    current_postgres: str, tmp_path: Path, part: str, other: str, cause: str
) -> None:
    assert part in current_postgres
    error = refused(tmp_path, current_postgres.replace(part, other))
    assert isinstance(error, StoreBroken)
    assert "cannot be reached" in error.message
    assert cause in error.cause
    assert "***" in error.message


def test_a_newer_database(postgres: str, tmp_path: Path) -> None:
    Store.open(tmp_path, database_url=postgres).close()
    with psycopg.connect(postgres) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
    error = refused(tmp_path, postgres)
    assert isinstance(error, StoreBroken)
    assert "newer version" in error.message


def test_another_programs_tables(postgres: str, tmp_path: Path) -> None:
    with psycopg.connect(postgres) as connection:
        connection.execute("CREATE TABLE clips (url text)")
    error = refused(tmp_path, postgres)
    assert isinstance(error, StoreBroken)
    assert "other program" in error.cause
    assert ask(postgres, "SELECT to_regclass('jobs')") == [(None,)]  # nothing of ours was left


def test_without_the_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error = refused(tmp_path, f"postgresql://someone:{PASSWORD}@127.0.0.1:1/name")
    assert isinstance(error, MissingPackage)
    assert error.hints == ("pip install 'kinoloom[postgres]'",)


def test_connections_that_were_cut_are_replaced(current_postgres: str, tmp_path: Path) -> None:
    with Store.open(tmp_path, database_url=current_postgres) as store:
        store.statistics.add("seen")
        ended = ask(
            current_postgres,
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()",
        )
        assert ended != [(0,)]
        store.statistics.add("seen")
        assert store.statistics.totals() == {"seen": 2}


def test_more_at_once_than_there_are_connections(
    current_postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "_CONNECTIONS", 1)
    monkeypatch.setattr(postgres_module, "_MORE_CONNECTIONS", 0)
    monkeypatch.setattr(postgres_module, "_WAIT_SECONDS", 0.05)
    database = Database.connect(current_postgres)
    with database.reading() as one:
        one.scalar(text("SELECT 1"))
        with pytest.raises(OutputFailed, match="busy"), database.reading() as another:
            another.scalar(text("SELECT 1"))
    database.close()


def test_a_server_that_goes_away(tmp_path: Path, postgres_server: PostgresServer) -> None:
    url = postgres_server.create()
    with Store.open(tmp_path, database_url=url) as store:
        postgres_server.drop(url)
        with pytest.raises(StoreBroken, match="cannot be reached") as caught:
            store.statistics.totals()
        assert PostgresServer.password not in f"{caught.value!r} {caught.value.as_dict()}"


def test_who_is_stopped_in_a_transaction_does_not_stop_the_others(
    current_postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_module, "_SILENT_SECONDS", 1)

    def write_and_stop(stopped: Store, other: Store) -> None:
        with stopped._database.writing() as session:
            stopped._database.take_turn(session)
            # Waits until the server has ended the transaction of the one that says nothing.
            with other._database.writing() as free:
                other._database.take_turn(free)

    with (
        Store.open(tmp_path / "a", database_url=current_postgres) as stopped,
        Store.open(tmp_path / "b", database_url=current_postgres) as other,
        pytest.raises(StoreBroken),
    ):
        write_and_stop(stopped, other)
