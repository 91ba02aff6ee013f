from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
import textwrap
import threading
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, text

from kinoloom.errors import ErrorKind, KinoloomError, OutputFailed, StoreBroken
from kinoloom.store import DATABASE_NAME, Store
from kinoloom.store.database import Database
from kinoloom.store.schema import HEAD, MIGRATIONS, REVISIONS
from kinoloom.store.tables import Base
from unit.store.schema_check import assert_exactly_the_tables, connected, migrate, schema_of

SOURCE = Path(__file__).resolve().parents[3] / "src"


def run(code: str, *arguments: object, wait: bool = True) -> subprocess.Popen[str]:
    """A fresh Python process running `code`."""
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code), *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    if wait:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err or out
        process.stdout_text = out  # type: ignore[attr-defined]
    return process


def test_the_known_revisions_are_alembics() -> None:
    scripts = ScriptDirectory(str(MIGRATIONS))
    assert scripts.get_heads() == [HEAD]
    found = [script.revision for script in scripts.walk_revisions()]
    assert tuple(reversed(found)) == REVISIONS


def test_a_new_database_has_exactly_the_tables(store: Store, database_url: str | None) -> None:
    assert_exactly_the_tables(store.home, database_url)


def test_the_metadata_comparison_can_fail(sqlite_store: Store) -> None:
    engine = create_engine(f"sqlite:///{sqlite_store.home / DATABASE_NAME}")
    with engine.begin() as connection:
        connection.execute(text("DROP INDEX ix_clips_plan_key"))
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata)
    engine.dispose()


def test_wal_and_foreign_keys(sqlite_store: Store) -> None:
    with Database.open(sqlite_store.home / DATABASE_NAME).reading() as session:
        assert session.scalar(text("PRAGMA journal_mode")) == "wal"
        assert session.scalar(text("PRAGMA foreign_keys")) == 1


def test_only_a_store_of_an_older_version_imports_alembic(tmp_path: Path) -> None:
    code = """
        import sys
        from kinoloom.store import DATABASE_NAME, Store
        Store.open(sys.argv[1]).close()
        print("alembic" in sys.modules)
    """
    for _ in ("new", "current"):
        assert run(code, tmp_path).stdout_text == "False\n"  # type: ignore[attr-defined]
    with connected(tmp_path, None) as connection:
        migrate(connection, REVISIONS[-2], down=True)
    assert run(code, tmp_path).stdout_text == "True\n"  # type: ignore[attr-defined]


def test_importing_the_package_does_not_import_sqlalchemy() -> None:
    code = "import sys, kinoloom.store; print('sqlalchemy' in sys.modules)"
    assert run(code).stdout_text == "False\n"  # type: ignore[attr-defined]


def test_opening_twice_keeps_what_is_there(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        digest = store.assets.put_bytes(b"kept", "data").digest
    with Store.open(tmp_path) as store:
        assert store.assets.get(digest).size == 4


def test_processes_that_open_a_fresh_folder_at_once(tmp_path: Path) -> None:
    # Each waits for a line, so that all open at the same moment.
    code = """
        import sys
        from kinoloom.store import DATABASE_NAME, Store
        import alembic.command, alembic.config
        print("ready", flush=True)
        sys.stdin.readline()
        with Store.open(sys.argv[1]) as store:
            store.assets.put_bytes(sys.argv[2].encode(), "data")
        print("done")
    """
    for attempt in range(3):
        home = tmp_path / str(attempt)
        processes = [run(code, home, number, wait=False) for number in range(3)]
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        for process in processes:
            out, err = process.communicate(timeout=120)
            assert (out, process.returncode) == ("done\n", 0), err
        with closing(sqlite3.connect(home / DATABASE_NAME)) as connection:
            assert connection.execute("SELECT count(*) FROM assets").fetchone() == (3,)
            assert connection.execute("SELECT * FROM alembic_version").fetchall() == [(HEAD,)]


def test_threads_write_at_once(sqlite_store: Store) -> None:
    failures: list[BaseException] = []

    def put(number: int) -> None:
        try:
            for index in range(5):
                sqlite_store.assets.put_bytes(f"{number} {index}".encode(), "data")
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=put, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    with closing(sqlite3.connect(sqlite_store.home / DATABASE_NAME)) as connection:
        assert connection.execute("SELECT count(*) FROM assets").fetchone() == (20,)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_an_interrupted_first_start_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("kinoloom.store.schema.text", interrupt)  # all tables but the last are made
        with pytest.raises(KeyboardInterrupt):
            Store.open(tmp_path)
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == []
    Store.open(tmp_path).close()


def test_an_interrupted_migration_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with connected(tmp_path, None) as connection:
        migrate(connection, REVISIONS[0])
    before = schema_of(tmp_path, None)
    with monkeypatch.context() as patch:
        patch.setattr("alembic.operations.Operations.create_index", interrupt)
        with pytest.raises(KeyboardInterrupt):
            Store.open(tmp_path)
    assert schema_of(tmp_path, None) == before
    Store.open(tmp_path).close()
    assert_exactly_the_tables(tmp_path, None)


def test_an_empty_file_becomes_a_store(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).touch()
    with Store.open(tmp_path) as store:
        assert store.clips.list() == []


def test_a_percent_sign_in_the_folder(tmp_path: Path) -> None:
    with Store.open(tmp_path / "100%(s) ü?&#") as store:
        assert store.clips.list() == []
    assert (tmp_path / "100%(s) ü?&#" / DATABASE_NAME).is_file()


def test_a_newer_store(tmp_path: Path) -> None:
    Store.open(tmp_path).close()
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '0999'")
        connection.commit()
    with pytest.raises(StoreBroken, match="newer version") as caught:
        Store.open(tmp_path)
    assert "0999" in caught.value.cause
    assert "upgrade" in caught.value.hints[0]


def test_another_programs_database(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / DATABASE_NAME)) as connection:
        connection.execute("CREATE TABLE bookmarks (url)")
    with pytest.raises(StoreBroken) as caught:
        Store.open(tmp_path)
    assert "other program" in caught.value.cause


@pytest.mark.parametrize(
    "content", [b"this is no database" * 1000, b"SQLite format 3\0" + b"x" * 999]
)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    (tmp_path / DATABASE_NAME).write_bytes(content)
    with pytest.raises(StoreBroken) as caught:
        Store.open(tmp_path)
    assert caught.value.kind is ErrorKind.STORE_BROKEN
    assert str(tmp_path / DATABASE_NAME) in caught.value.message
    assert (tmp_path / DATABASE_NAME).read_bytes() == content


def test_a_damaged_database(tmp_path: Path) -> None:
    with Store.open(tmp_path) as store:
        for number in range(50):
            store.assets.put_bytes(b"%d" % number, "data")
    path = tmp_path / DATABASE_NAME
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size = connection.execute("PRAGMA page_size").fetchone()[0]
        page = connection.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'assets'"
        ).fetchone()[0]
    content = bytearray(path.read_bytes())
    content[(page - 1) * size : page * size] = os.urandom(size)  # the schema stays
    path.write_bytes(content)
    with Store.open(tmp_path) as store, pytest.raises(StoreBroken):
        store.assets.put_bytes(b"more", "data")


def test_a_lost_table(sqlite_store: Store) -> None:
    with closing(sqlite3.connect(sqlite_store.home / DATABASE_NAME)) as connection:
        connection.execute("DROP TABLE measurements")
    with pytest.raises(StoreBroken, match="cannot be read"):
        sqlite_store.measurements.recent("cpu", "spark")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "home").touch()
    with pytest.raises(OutputFailed) as caught:
        Store.open(tmp_path / "home")
    assert "KINOLOOM_HOME" in caught.value.hints[0]


def test_a_folder_in_place_of_the_database(tmp_path: Path) -> None:
    (tmp_path / DATABASE_NAME).mkdir()
    with pytest.raises(OutputFailed):
        Store.open(tmp_path)


def test_another_process_that_keeps_the_lock(
    sqlite_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kinoloom.store.sqlite.BUSY_SECONDS", 0.0)
    with (
        closing(sqlite3.connect(sqlite_store.home / DATABASE_NAME)) as other,
        Store.open(sqlite_store.home) as hurried,
    ):
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(KinoloomError, match="busy"):
            hurried.assets.put_bytes(b"x", "data")
        assert hurried.clips.list() == []  # reading does not wait


def test_a_full_database(sqlite_store: Store) -> None:
    database = Database.open(sqlite_store.home / DATABASE_NAME)

    def fill() -> None:
        with database.writing() as session:
            pages = session.scalar(text("PRAGMA page_count"))
            session.execute(text(f"PRAGMA max_page_count = {pages}"))
            session.execute(
                text("INSERT INTO assets VALUES (:d, 'x', 1, '2026-01-01')"), {"d": "x" * 100_000}
            )

    with pytest.raises(OutputFailed) as caught:
        fill()
    assert caught.value.cause == "The disk is full."
    database.close()


def test_a_failed_write_is_undone(sqlite_store: Store) -> None:
    database = Database.open(sqlite_store.home / DATABASE_NAME)

    def fail() -> None:
        with database.writing() as session:
            session.execute(text("INSERT INTO assets VALUES ('d', 'x', 1, '2026-01-01')"))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    with database.reading() as session:
        assert session.scalar(text("SELECT count(*) FROM assets")) == 0
    database.close()


def test_a_change_by_anybody_is_told(store: Store, database_url: str | None) -> None:
    with Store.open(store.home, database_url=database_url) as other:
        seen = [store.changed()]
        assert store.changed() == seen[0]
        for writer in (other, store):
            writer.statistics.add("things")
            seen.append(store.changed())
        store.close()
        seen.append(store.changed())  # what happened while it was closed, nobody knows
        if database_url is not None:
            assert seen == [None] * 4
        else:
            assert None not in seen
            assert len(set(seen)) == 4


def test_asking_for_changes_of_a_broken_database(sqlite_store: Store) -> None:
    sqlite_store.close()
    (sqlite_store.home / DATABASE_NAME).write_bytes(b"no database" * 1000)
    with pytest.raises(StoreBroken):
        sqlite_store.changed()
