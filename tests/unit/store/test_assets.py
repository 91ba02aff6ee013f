from __future__ import annotations

import hashlib
import os
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from kinoloom.errors import InvalidMedia, OutputFailed
from kinoloom.store import Store
from kinoloom.store.job_record import JobRecord

DATA = b"some picture" * 1000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "picture.png"
    path.write_bytes(DATA)
    return path


def test_bytes_are_kept_under_their_content(store: Store) -> None:
    asset = store.assets.put_bytes(DATA, "image")
    assert (asset.digest, asset.size, asset.kind) == (DIGEST, len(DATA), "image")
    assert asset.path == store.home / "assets" / DIGEST[7:9] / DIGEST[9:]
    assert asset.path.read_bytes() == DATA
    assert store.assets.get(DIGEST) == asset
    assert store.assets.path(DIGEST) == asset.path


@pytest.mark.parametrize("link", [False, True])
def test_a_file_and_its_bytes_are_one_asset(store: Store, source: Path, link: bool) -> None:
    assert store.assets.put_file(source, "image", link=link) == store.assets.put_bytes(DATA, "data")
    assert files(store.home / "assets") == [f"{DIGEST[7:9]}/{DIGEST[9:]}"]
    assert source.read_bytes() == DATA


def test_a_copy_is_independent_of_the_original(store: Store, source: Path) -> None:
    asset = store.assets.put_file(str(source), "image")
    source.write_bytes(b"changed")
    store.assets.verify(asset.digest)


def test_a_link_shares_the_disk(store: Store, source: Path) -> None:
    asset = store.assets.put_file(source, "video", link=True)
    assert asset.path.samefile(source)
    source.unlink()
    store.assets.verify(asset.digest)


def test_without_hard_links_the_file_is_copied(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    asset = store.assets.put_file(source, "video", link=True)
    assert not asset.path.samefile(source)
    store.assets.verify(asset.digest)


def test_a_file_that_changes_while_it_is_linked_is_copied(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = Path.hardlink_to

    def change(self: Path, target: Path) -> None:
        target.write_bytes(b"new content")
        link(self, target)

    monkeypatch.setattr(Path, "hardlink_to", change)
    asset = store.assets.put_file(source, "video", link=True)
    assert asset.path.read_bytes() == b"new content"
    store.assets.verify(asset.digest)


def test_a_range_in_pieces(store: Store) -> None:
    data = bytes(range(256)) * 1000
    digest = store.assets.put_bytes(data, "video").digest
    assert store.assets.size(digest) == len(data)
    for start, end in ((0, len(data)), (1, 70_000), (65_535, 65_537), (5, 5), (255_999, 256_000)):
        pieces = list(store.assets.open_range(digest, start, end))
        assert b"".join(pieces) == data[start:end]
        assert all(len(piece) == 65_536 for piece in pieces[:-1])


def test_what_is_no_range(store: Store) -> None:
    store.assets.put_bytes(DATA, "image")
    for start, end in ((-1, 2), (3, 2)):
        with pytest.raises(ValueError, match="no range"):
            store.assets.open_range(DIGEST, start, end)
    with pytest.raises(InvalidMedia, match="damaged"):
        store.assets.open_range(DIGEST, 0, len(DATA) + 1)


def test_a_file_that_shrinks_while_it_is_read(store: Store) -> None:
    data = bytes(200_000)
    asset = store.assets.put_bytes(data, "video")
    pieces = store.assets.open_range(asset.digest, 0, len(data))
    assert next(pieces) == data[:65_536]
    os.truncate(asset.path, 70_000)
    with pytest.raises(InvalidMedia, match="damaged"):
        list(pieces)


def test_an_empty_file_is_an_asset(store: Store, tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    asset = store.assets.put_file(tmp_path / "empty", "data")
    assert asset.size == 0
    store.assets.verify(asset.digest)


def test_a_damaged_asset_is_found(store: Store) -> None:
    asset = store.assets.put_bytes(DATA, "image")
    asset.path.write_bytes(DATA[:-1] + b"X")
    with pytest.raises(InvalidMedia, match="damaged"):
        store.assets.verify(DIGEST)


def test_a_truncated_asset_is_replaced_when_it_is_put_again(store: Store, source: Path) -> None:
    store.assets.put_bytes(DATA, "image").path.write_bytes(b"half")
    store.assets.put_file(source, "image")
    store.assets.verify(DIGEST)


def test_an_asset_whose_file_was_removed(store: Store) -> None:
    store.assets.put_bytes(DATA, "image").path.unlink()
    for ask in (store.assets.path, store.assets.get, store.assets.verify):
        with pytest.raises(InvalidMedia, match="not in the store"):
            ask(DIGEST)
    with pytest.raises(InvalidMedia, match="not in the store"):
        store.assets.open_range(DIGEST, 0, 1)  # at once, not at the first piece
    store.assets.put_bytes(DATA, "image")
    store.assets.verify(DIGEST)


def test_an_unknown_asset(store: Store) -> None:
    digest = "sha256:" + "0" * 64
    for ask in (store.assets.get, store.assets.size):
        with pytest.raises(InvalidMedia, match="not in the store"):
            ask(digest)
    assert not store.assets.discard(digest)


@pytest.mark.parametrize(
    "digest", ["", "sha256:", "sha256:" + "A" * 64, "../" * 20, "md5:" + "0" * 64, DIGEST + "\n"]
)
def test_what_is_no_digest(store: Store, digest: str) -> None:
    with pytest.raises(InvalidMedia, match="names no asset"):
        store.assets.path(digest)


@pytest.mark.parametrize("link", [False, True])
def test_what_is_no_file(store: Store, tmp_path: Path, link: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "missing", tmp_path, tmp_path / "pipe", "a\0b"):
        with pytest.raises(InvalidMedia):
            store.assets.put_file(path, "image", link=link)
    assert files(store.home / "assets") == []


def test_a_full_disk(store: Store, source: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    for put in (
        lambda: store.assets.put_file(source, "x"),
        lambda: store.assets.put_bytes(b"", "x"),
    ):
        with pytest.raises(OutputFailed) as caught:
            put()
        assert caught.value.cause == "No space left on device"
        assert "Free some space" in caught.value.hints[0]
    assert files(store.home / "assets") == []


def test_a_file_in_place_of_the_assets_folder(store: Store) -> None:
    store.home.mkdir(exist_ok=True)
    (store.home / "assets").write_text("in the way")
    with pytest.raises(OutputFailed):
        store.assets.put_bytes(DATA, "image")


@pytest.mark.parametrize("failure", [KeyboardInterrupt, MemoryError])
def test_an_interrupted_put_leaves_nothing(
    store: Store, source: Path, monkeypatch: pytest.MonkeyPatch, failure: type[BaseException]
) -> None:
    def interrupt(*_: Any) -> None:
        raise failure

    monkeypatch.setattr(Path, "replace", interrupt)
    for link in (False, True):
        with pytest.raises(failure):
            store.assets.put_file(source, "image", link=link)
    assert files(store.home / "assets") == []


def test_leftovers_of_killed_processes_go_after_a_day(store: Store) -> None:
    unfinished = store.home / "assets" / "unfinished"
    unfinished.mkdir(parents=True)
    old, new = unfinished / "old", unfinished / "new"
    for path in (old, new):
        path.touch()
    os.utime(old, (0, 0))
    Store.open(store.home).close()
    assert (old.exists(), new.exists()) == (False, True)


def test_the_first_kind_stays(store: Store) -> None:
    store.assets.put_bytes(DATA, "image")
    assert store.assets.put_bytes(DATA, "poster").kind == "image"


def test_what_nothing_refers_to_is_collected_when_it_is_old(store: Store) -> None:
    kept, lost = (store.assets.put_bytes(text, "input").digest for text in (b"kept", b"lost"))
    store.jobs.add(
        JobRecord(queue="cpu", origin="api", request={}, task="t2v", model="m", backend="local"),
        inputs=[kept],
    )
    assert store.assets.collect() == 0, "both are young"
    assert store.assets.collect(timedelta(0)) == 1
    assert store.assets.path(kept).is_file()
    with pytest.raises(InvalidMedia):
        store.assets.path(lost)
