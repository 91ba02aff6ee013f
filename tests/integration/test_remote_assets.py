"""Assets in a bucket of a real server that speaks S3, over a line that can be cut and measured."""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import socket
import threading
import traceback
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from moto import server as moto_server

from kinoloom.errors import InvalidMedia, KinoloomError, NetworkFailed, OutputFailed
from kinoloom.store import Store

DATA = bytes(range(256)) * 50_000  # 12.8 MB: several requests
DIGEST = "sha256:" + hashlib.sha256(DATA).hexdigest()
NAME = f"{DIGEST[7:9]}/{DIGEST[9:]}"
SECRET = "secret-of-these-tests"


class Line:
    """The way to a server: counts the bytes, and is cut for good when told to or after `limit`."""

    def __init__(self, server: tuple[str, int]) -> None:
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = [self._listener]
        self.port: int = self._listener.getsockname()[1]
        self.sent = self.received = 0
        self.limit: int | None = None
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End every connection and accept no other."""
        for connection in self._open:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
            connection.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(self._server)
            except OSError:
                return
            self._open += [client, server]
            for pair in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket, up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if up:
                    self.sent += len(data)
                    if self.limit is not None and self.sent > self.limit:
                        self.cut()
                        return
                else:
                    self.received += len(data)
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[str, int]]:
    running = moto_server.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    running.start()
    yield running.get_host_and_port()
    running.stop()


@pytest.fixture
def line(server: tuple[str, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Line]:
    """The way to the server, which the environment names."""
    import s3fs

    for name in [name for name in os.environ if name.startswith(("AWS_", "FSSPEC_"))]:
        monkeypatch.delenv(name)
    opened = Line(server)
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{opened.port}",
        "AWS_ACCESS_KEY_ID": "tests",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_MAX_ATTEMPTS": "1",  # s3fs tries again by itself, too
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    yield opened
    opened.cut()
    s3fs.S3FileSystem.clear_instance_cache()


@pytest.fixture
def s3(server: tuple[str, int], line: Line) -> Any:
    """A client of the server that does not use the line."""
    import boto3

    return boto3.client("s3", endpoint_url=f"http://{server[0]}:{server[1]}")


@pytest.fixture
def bucket(s3: Any) -> str:
    name = f"bucket-{uuid.uuid4().hex}"
    s3.create_bucket(Bucket=name)
    return name


@pytest.fixture
def open_store(tmp_path: Path, bucket: str) -> Iterator[Callable[..., Store]]:
    """A function (name of the data folder, bucket) -> a store with its assets in the bucket."""
    opened: list[Store] = []

    def start(home: str = "home", bucket: str = bucket) -> Store:
        opened.append(Store.open(tmp_path / home, assets=f"s3://{bucket}/some/where"))
        return opened[-1]

    yield start
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[..., Store]) -> Store:
    return open_store()


def names(s3: Any, bucket: str) -> list[str]:
    return [item["Key"] for item in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]


def cached(store: Store) -> list[Path]:
    return [path for path in (store.home / "cache/assets").rglob("*") if path.is_file()]


def is_known(store: Store) -> bool:
    try:
        return store.assets.size(DIGEST) == len(DATA)
    except InvalidMedia:
        return False


def report(error: KinoloomError) -> str:
    """Everything that a log could say about an error."""
    return str(error.as_dict()) + "".join(traceback.format_exception(error))


def test_an_asset_lives_in_a_bucket(
    open_store: Callable[..., Store], s3: Any, bucket: str, tmp_path: Path
) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(DATA)
    here, other = open_store(), open_store("other")
    asset = here.assets.put_file(source, "video", link=True)
    assert (asset.digest, asset.size) == (DIGEST, len(DATA))
    assert names(s3, bucket) == [f"some/where/{NAME}"]
    assert asset.path.samefile(source)
    assert other.assets.path(DIGEST).read_bytes() == DATA
    here.assets.verify(DIGEST)
    assert here.assets.discard(DIGEST)
    assert names(s3, bucket) == []
    assert cached(here) == []
    with pytest.raises(InvalidMedia, match="not in the store"):
        here.assets.path(DIGEST)


def test_the_same_content_is_sent_once(open_store: Callable[..., Store], line: Line) -> None:
    open_store().assets.put_bytes(DATA, "video")
    sent = line.sent
    assert sent > len(DATA)
    open_store("other").assets.put_bytes(DATA, "video")
    assert line.sent - sent < 10_000


def test_a_range_costs_only_the_range(store: Store, line: Line) -> None:
    store.assets.put_bytes(DATA, "video")
    cached(store)[0].unlink()
    before = line.received
    pieces = list(store.assets.open_range(DIGEST, 5_000_000, 5_200_000))
    assert b"".join(pieces) == DATA[5_000_000:5_200_000]
    assert [len(piece) for piece in pieces] == [65_536, 65_536, 65_536, 3392]
    assert line.received - before < 210_000
    assert b"".join(store.assets.open_range(DIGEST, 0, len(DATA))) == DATA
    assert cached(store) == []


def test_the_endpoint_may_stand_in_the_configuration_of_fsspec(
    open_store: Callable[..., Store], line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    import fsspec

    monkeypatch.delenv("AWS_ENDPOINT_URL")
    options = {"endpoint_url": f"http://127.0.0.1:{line.port}", "key": "tests", "secret": SECRET}
    monkeypatch.setitem(fsspec.config.conf, "s3", options)
    open_store().assets.put_bytes(b"data", "x")
    assert line.sent > 0


@pytest.mark.parametrize(
    "content", [DATA[:-1] + b"X", DATA[:-1], b""], ids=["byte", "cut", "empty"]
)
def test_a_damaged_object_is_never_cached(
    store: Store, s3: Any, bucket: str, content: bytes
) -> None:
    store.assets.put_bytes(DATA, "video")
    cached(store)[0].unlink()
    s3.put_object(Bucket=bucket, Key=f"some/where/{NAME}", Body=content)
    for ask in (store.assets.path, store.assets.verify):
        with pytest.raises(InvalidMedia, match="damaged"):
            ask(DIGEST)
    if len(content) < len(DATA):
        with pytest.raises(InvalidMedia, match="damaged"):
            list(store.assets.open_range(DIGEST, len(DATA) - 10, len(DATA)))
        store.assets.put_bytes(DATA, "video")
        assert store.assets.path(DIGEST).read_bytes() == DATA
    else:
        assert cached(store) == []


def test_a_server_that_dies_while_it_receives(
    store: Store, line: Line, s3: Any, bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    line.limit = 1_000_000
    with pytest.raises(OutputFailed, match=f"s3://{bucket}/some/where") as caught:
        store.assets.put_bytes(DATA, "video")
    assert caught.value.cause
    assert "try again" in caught.value.hints[0]
    assert SECRET not in report(caught.value)
    assert names(s3, bucket) == []
    assert cached(store) == []
    assert not is_known(store)


def test_a_server_that_dies_while_it_sends(store: Store, line: Line) -> None:
    store.assets.put_bytes(DATA, "video")
    cached(store)[0].unlink()
    pieces = store.assets.open_range(DIGEST, 0, len(DATA))
    assert next(pieces) == DATA[:65_536]
    line.cut()
    with pytest.raises(NetworkFailed):
        list(pieces)
    with pytest.raises(NetworkFailed) as caught:
        store.assets.path(DIGEST)
    assert SECRET not in report(caught.value)
    assert cached(store) == []
    with pytest.raises(KinoloomError):
        store.assets.discard(DIGEST)
    assert is_known(store)


def test_no_server_at_all(store: Store, line: Line) -> None:
    line.cut()
    with pytest.raises(OutputFailed) as caught:
        store.assets.put_bytes(DATA, "video")
    assert "Could not connect" in caught.value.cause
    assert not is_known(store)


def test_no_such_bucket(open_store: Callable[..., Store]) -> None:
    store = open_store(bucket="nobody-made-this")
    with pytest.raises(OutputFailed, match="s3://nobody-made-this/some/where") as caught:
        store.assets.put_bytes(DATA, "video")
    assert "bucket does not exist" in caught.value.cause
    assert "Create the bucket" in caught.value.hints[0]
    with pytest.raises(InvalidMedia, match="not in the store"):
        store.assets.path(DIGEST)


@pytest.fixture
def nobody_may(server: tuple[str, int]) -> Iterator[None]:
    """The server knows no user."""

    def allow(requests: str) -> None:
        address = f"http://{server[0]}:{server[1]}/moto-api/reset-auth"
        plain = {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(address, requests.encode(), plain)).close()

    allow("0")
    yield
    allow("inf")


@pytest.mark.usefixtures("bucket")
def test_access_denied(store: Store, nobody_may: None) -> None:
    for action, kind in (
        (lambda: store.assets.put_bytes(DATA, "video"), OutputFailed),
        (lambda: store.assets.path(DIGEST), NetworkFailed),
    ):
        with pytest.raises(kind) as caught:
            action()
        assert "credentials" in caught.value.hints[0]
        assert SECRET not in report(caught.value)
    assert not is_known(store)


def test_no_credentials(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    with pytest.raises(OutputFailed) as caught:
        store.assets.put_bytes(DATA, "video")
    assert "credentials" in caught.value.cause
    assert "credentials" in caught.value.hints[0]


def fetch(home: str, assets: str, results: Any) -> None:
    with Store.open(home, assets=assets) as store:
        for _ in range(3):
            path = store.assets.path(DIGEST)
            results.put(hashlib.sha256(path.read_bytes()).hexdigest() == DIGEST[7:])


@pytest.mark.slow
def test_several_processes_share_a_cache(
    store: Store, open_store: Callable[..., Store], bucket: str
) -> None:
    store.assets.put_bytes(DATA, "video")
    cached(store)[0].unlink()
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    address = f"s3://{bucket}/some/where"
    processes = [
        context.Process(target=fetch, args=(str(store.home), address, results)) for _ in range(2)
    ]
    for process in processes:
        process.start()
    right = [results.get(timeout=120) for _ in range(6)]
    for process in processes:
        process.join()
    assert right == [True] * 6
    assert len(cached(store)) == 1
