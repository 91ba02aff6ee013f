from __future__ import annotations

from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.testclient import TestClient

from kinoloom.errors import Conflict, NotFound
from kinoloom.server.files import Content, asset_content, clip_content, send
from kinoloom.store.clips import ClipRecord
from kinoloom.store.store import Store

ID = "019aa4a6-3b10-7e44-9c0d-2f4f7a1b8e33"
# A clip's file says in itself which clip it is.
BYTES = ID.encode() + (bytes(range(256)) * 1000)[len(ID) :]


def clip(path: Path, **changes: object) -> ClipRecord:
    values = {
        "id": ID,
        "path": path,
        "plan_key": "0" * 64,
        "task": "t2v",
        "model": "spark",
        "backend": "local",
        "seed": 1,
        "width": 16,
        "height": 16,
        "frames": 1,
        "fps": 1.0,
        "format": "mp4",
        "request": {},
        "plan": {},
    }
    return ClipRecord(**values | changes)  # type: ignore[arg-type]


@pytest.fixture(params=["asset", "file"])
def content(request: pytest.FixtureRequest, store: Store, tmp_path: Path) -> Content:
    """The same bytes as a file of the store and as one in a folder of the user's."""
    file = tmp_path / "clip.mp4"
    file.write_bytes(BYTES)
    if request.param == "file":
        return clip_content(store, clip(file))
    digest = store.assets.put_file(file, "video").digest
    return clip_content(store, clip(Path("kept.mp4"), asset=digest))


@pytest.fixture
def client(content: Content) -> TestClient:
    app = FastAPI()

    @app.api_route("/file", methods=["GET", "HEAD"])
    def file(request: Request) -> Response:
        return send(request, content, name="clip.mp4")

    return TestClient(app)


def test_all_of_it(client: TestClient) -> None:
    answer = client.get("/file")
    assert (answer.status_code, answer.content) == (200, BYTES)
    assert answer.headers["Content-Type"] == "video/mp4"
    assert answer.headers["Content-Length"] == str(len(BYTES))
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert answer.headers["Content-Disposition"] == 'inline; filename="clip.mp4"'


@pytest.mark.parametrize(
    ("header", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=100-199", slice(100, 200)),
        ("bytes=255990-", slice(255_990, None)),
        ("bytes=-10", slice(-10, None)),
        ("bytes=-999999999", slice(None)),
        ("bytes=10-999999999", slice(10, None)),
        ("bytes = 5 - 9", slice(5, 10)),
    ],
)
def test_a_range(client: TestClient, header: str, part: slice) -> None:
    answer = client.get("/file", headers={"Range": header})
    first, last, _ = part.indices(len(BYTES))
    assert (answer.status_code, answer.content) == (206, BYTES[part])
    assert answer.headers["Content-Range"] == f"bytes {first}-{last - 1}/{len(BYTES)}"
    assert answer.headers["Content-Length"] == str(last - first)


@pytest.mark.parametrize("header", ["bytes=256000-", "bytes=999999-1000000", "bytes=-0"])
def test_a_range_outside(client: TestClient, header: str) -> None:
    answer = client.get("/file", headers={"Range": header})
    assert answer.status_code == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(BYTES)}"


@pytest.mark.parametrize(
    "header",
    ["bytes=9-1", "bytes=-", "bytes=0-1,5-6", "rows=0-1", "bytes=a-b", "bytes=" + "9" * 99],
)
def test_a_range_that_cannot_be_given_is_ignored(client: TestClient, header: str) -> None:
    answer = client.get("/file", headers={"Range": header})
    assert (answer.status_code, answer.content) == (200, BYTES)


def test_what_the_client_has_is_not_sent_again(client: TestClient) -> None:
    tag = client.get("/file").headers["ETag"]
    for header in (tag, f'"other", W/{tag}', "*"):
        answer = client.get("/file", headers={"If-None-Match": header})
        assert (answer.status_code, answer.content) == (304, b"")
    assert client.get("/file", headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_range_of_what_has_changed_is_all_of_it(client: TestClient) -> None:
    tag = client.get("/file").headers["ETag"]
    part = {"Range": "bytes=0-1"}
    assert client.get("/file", headers=part | {"If-Range": tag}).status_code == 206
    assert client.get("/file", headers=part | {"If-Range": '"other"'}).content == BYTES


def test_head_has_the_same_headers_and_no_body(client: TestClient) -> None:
    get, head = client.get("/file"), client.head("/file")
    assert head.content == b""
    assert (head.status_code, head.headers) == (get.status_code, get.headers)
    # A range is a matter of GET alone (RFC 9110, section 14.2).
    assert client.head("/file", headers={"Range": "bytes=10-19"}).status_code == 200


def test_what_is_gone(store: Store, tmp_path: Path) -> None:
    with pytest.raises(NotFound):
        clip_content(store, clip(tmp_path / "gone.mp4"))
    with pytest.raises(NotFound):
        asset_content(store, "sha256:" + "0" * 64, "video/mp4")


def test_a_folder_of_pictures_cannot_be_sent(store: Store, tmp_path: Path) -> None:
    with pytest.raises(Conflict):
        clip_content(store, clip(tmp_path, format="png"))
