from __future__ import annotations

import hashlib
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from kinoloom.errors import InvalidMedia, KinoloomError, MissingPackage, NetworkFailed, OutputFailed
from kinoloom.store import Store

DATA = bytes(range(256)) * 1000
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
NAME = f"{DIGEST[7:9]}/{DIGEST[9:]}"


@pytest.fixture
def url() -> str:
    return f"memory://{uuid.uuid4().hex}/assets"


@pytest.fixture
def open_store(tmp_path: Path) -> Iterator[Callable[..., Store]]:
    """A function (address, name of the data folder) -> a store with its assets there."""
    opened: list[Store] = []

    def start(assets: str, home: str = "home") -> Store:
        opened.append(Store.open(tmp_path / home, assets=assets))
        return opened[-1]

    yield start
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., Store], url: str) -> Store:
    return open_store(url)


def there(url: str) -> dict[str, bytes]:
    """What lies at an address, by name."""
    fs, root = fsspec.url_to_fs(url)
    if not fs.exists(root):
        return {}
    return {path.removeprefix(root + "/"): fs.cat_file(path) for path in fs.find(root)}


def cached(store: Store) -> list[Path]:
    return [path for path in (store.home / "cache/assets").rglob("*") if path.is_file()]


def empty(store: Store) -> None:
    for path in cached(store):
        path.unlink()


@pytest.mark.parametrize("way", ["bytes", "file", "link"])
def test_an_asset_lies_under_its_content(store: Store, url: str, tmp_path: Path, way: str) -> None:
    source = tmp_path / "source"
    source.write_bytes(DATA)
    if way == "bytes":
        asset = store.assets.put_bytes(DATA, "video")
    else:
        asset = store.assets.put_file(source, "video", link=way == "link")
    assert (asset.digest, asset.size, asset.kind) == (DIGEST, len(DATA), "video")
    assert there(url) == {NAME: DATA}
    assert asset.path.read_bytes() == DATA, "what was just put is read from this disk"
    assert [asset.path] == cached(store)
    assert store.assets.get(DIGEST) == asset
    assert store.assets.size(DIGEST) == len(DATA)
    assert store.assets.put_bytes(DATA, "other").kind == "video"


def test_what_another_machine_put_is_fetched_once(
    open_store: Callable[..., Store], url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store(url).assets.put_bytes(DATA, "video")
    other = open_store(url, "other")
    path = other.assets.path(DIGEST)
    assert path.read_bytes() == DATA
    assert cached(other) == [path]
    fs, root = fsspec.url_to_fs(url)
    fs.rm(root, recursive=True)
    assert other.assets.path(DIGEST) == path


@pytest.mark.parametrize("where", ["cached", "remote"])
def test_a_range_in_pieces(store: Store, where: str) -> None:
    store.assets.put_bytes(DATA, "video")
    if where == "remote":
        empty(store)
    for start, end in ((0, len(DATA)), (1, 70_000), (65_535, 65_537), (5, 5), (255_999, 256_000)):
        pieces = list(store.assets.open_range(DIGEST, start, end))
        assert b"".join(pieces) == DATA[start:end]
        assert all(len(piece) == 65_536 for piece in pieces[:-1])
    with pytest.raises(InvalidMedia, match="damaged"):
        list(store.assets.open_range(DIGEST, 0, len(DATA) + 1))
    for start, end in ((-1, 2), (3, 2)):
        with pytest.raises(ValueError, match="no range"):
            store.assets.open_range(DIGEST, start, end)
    assert bool(cached(store)) == (where == "cached"), "a range fills no cache"


def test_a_long_range_takes_several_requests(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kinoloom.store.remote._WINDOW", 100_000)
    store.assets.put_bytes(DATA, "video")
    empty(store)
    assert b"".join(store.assets.open_range(DIGEST, 7, 255_000)) == DATA[7:255_000]
    assert store.assets.path(DIGEST).read_bytes() == DATA


def test_a_damaged_file_is_never_cached(store: Store, url: str) -> None:
    store.assets.put_bytes(DATA, "video")
    empty(store)
    fsspec.url_to_fs(url)[0].pipe_file(f"{url}/{NAME}", DATA[:-1] + b"X")
    for ask in (store.assets.path, store.assets.get, store.assets.verify):
        with pytest.raises(InvalidMedia, match="damaged"):
            ask(DIGEST)
    assert cached(store) == []


def test_a_truncated_file_is_replaced_when_it_is_put_again(store: Store, url: str) -> None:
    store.assets.put_bytes(DATA, "video")
    fsspec.url_to_fs(url)[0].pipe_file(f"{url}/{NAME}", b"half")
    store.assets.put_bytes(DATA, "video")
    assert there(url) == {NAME: DATA}
    store.assets.verify(DIGEST)


def test_a_removed_file(store: Store, url: str) -> None:
    store.assets.put_bytes(DATA, "video")
    empty(store)
    fsspec.url_to_fs(url)[0].rm_file(f"{url}/{NAME}")
    for ask in (store.assets.path, store.assets.get, store.assets.verify):
        with pytest.raises(InvalidMedia, match="not in the store"):
            ask(DIGEST)
    with pytest.raises(InvalidMedia, match="not in the store"):
        store.assets.open_range(DIGEST, 0, 1)  # at once, not at the first piece
    store.assets.put_bytes(DATA, "video")
    store.assets.verify(DIGEST)


@pytest.mark.parametrize("digest", ["", "../x", "sha256:" + "A" * 64])
def test_what_is_no_digest(store: Store, digest: str) -> None:
    for ask in (
        store.assets.path,
        store.assets.get,
        store.assets.size,
        store.assets.verify,
        store.assets.discard,
        lambda digest: store.assets.open_range(digest, 0, 1),
    ):
        with pytest.raises(InvalidMedia, match="names no asset"):
            ask(digest)


def test_a_failed_upload_leaves_nothing(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, _ = fsspec.url_to_fs(url)

    def fail(*_: Any, **__: Any) -> None:
        raise OSError(5, "the line is cut")

    monkeypatch.setattr(type(fs), "mv", fail)
    with pytest.raises(OutputFailed) as caught:
        store.assets.put_bytes(DATA, "video")
    assert caught.value.cause == "the line is cut"
    assert there(url) == {}
    assert cached(store) == []
    with pytest.raises(InvalidMedia):
        store.assets.size(DIGEST)


def test_an_upload_that_loses_bytes_is_noticed(
    store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fs, _ = fsspec.url_to_fs(url)
    put = type(fs).put_file

    def lose(self: Any, source: str, target: str) -> None:
        put(self, source, target)
        self.pipe_file(target, b"half")

    monkeypatch.setattr(type(fs), "put_file", lose)
    with pytest.raises(OutputFailed) as caught:
        store.assets.put_bytes(DATA, "video")
    assert f"4 bytes after {len(DATA)} were sent" in caught.value.cause
    with pytest.raises(InvalidMedia):
        store.assets.size(DIGEST)


def test_leftovers_of_killed_uploads_go_after_a_day(store: Store, url: str) -> None:
    fs, root = fsspec.url_to_fs(url)
    old, new = int(time.time()) - 90_000, int(time.time()) - 80_000
    for name in (f"{old}-a", f"{new}-b", "somebody-else"):
        fs.makedirs(f"{root}/unfinished", exist_ok=True)
        fs.pipe_file(f"{root}/unfinished/{name}", b"part")
    store.assets.put_bytes(DATA, "video")
    assert set(there(url)) == {NAME, f"unfinished/{new}-b", "unfinished/somebody-else"}


def test_a_local_address_is_that_folder(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path / 'a folder'}")
    asset = store.assets.put_bytes(DATA, "video")
    assert asset.path == tmp_path / "a folder" / NAME
    assert cached(store) == []


def test_a_folder_anywhere(open_store: Callable[..., Store], tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "elsewhere"))
    assert store.assets.put_bytes(DATA, "video").path == tmp_path / "elsewhere" / NAME


@pytest.mark.parametrize(
    ("address", "module", "line"),
    [
        ("s3://bucket/x", "s3fs", 'pip install "kinoloom[s3]"'),
        ("gs://bucket/x", "gcsfs", "pip install gcsfs"),
        ("memory://x", "fsspec", "pip install fsspec"),
    ],
)
def test_a_missing_package(
    open_store: Callable[..., Store],
    monkeypatch: pytest.MonkeyPatch,
    address: str,
    module: str,
    line: str,
) -> None:
    store = open_store(address)
    known = sys.modules["fsspec.registry"]._registry
    monkeypatch.delitem(known, address.partition(":")[0], raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(MissingPackage) as caught:
        store.assets.put_bytes(DATA, "video")
    assert line in caught.value.hints


def test_an_unknown_kind_of_address(open_store: Callable[..., Store]) -> None:
    store = open_store("magic://user:secret-word@somewhere/x?key=secret-key")
    with pytest.raises(OutputFailed, match=r"magic://somewhere/x is no place") as caught:
        store.assets.put_bytes(DATA, "video")
    assert "secret" not in report(caught.value)


def test_no_secret_is_told(
    open_store: Callable[..., Store], monkeypatch: pytest.MonkeyPatch
) -> None:
    secret, key = "p%40ss-w", "sig-1234"
    store = open_store(f"memory://user:{secret}@host/assets?signature={key}")

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError(
            f"login as user with p@ss-w or {secret} at https://user:{secret}@host/a?x={key} failed"
        )

    fs, _ = fsspec.url_to_fs("memory://")
    monkeypatch.setattr(type(fs), "info", fail)
    for action, kind in (
        (lambda: store.assets.put_bytes(DATA, "x"), OutputFailed),
        (lambda: store.assets.path(DIGEST), NetworkFailed),
    ):
        with pytest.raises(kind) as caught:
            action()
        text = report(caught.value)
        assert "memory://host/assets" in text
        assert "https://host/a failed" in text
        for word in (secret, "p@ss-w", key):
            assert word not in text


def report(error: KinoloomError) -> str:
    """Everything that a log could say about an error."""
    return str(error.as_dict()) + "".join(traceback.format_exception(error))


def test_many_fetch_the_same_at_once(open_store: Callable[..., Store], url: str) -> None:
    open_store(url).assets.put_bytes(DATA, "video")
    other = open_store(url, "other")
    found: list[bytes] = []
    threads = [
        threading.Thread(target=lambda: found.append(other.assets.path(DIGEST).read_bytes()))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [DATA] * 8
    assert len(cached(other)) == 1


@pytest.mark.parametrize("assets", ["", "s3://bucket/folder"])
def test_nothing_heavy_is_imported_before_it_is_needed(tmp_path: Path, assets: str) -> None:
    program = (
        "import sys; from kinoloom.store import Store;"
        "Store.open(sys.argv[1], assets=sys.argv[2] or None).close();"
        "print([m for m in ('fsspec', 's3fs', 'botocore') if m in sys.modules])"
    )
    result = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "home"), assets],
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.strip() == "[]"
