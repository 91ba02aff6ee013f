from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.requests import Request

from kinoloom.config import Settings
from kinoloom.errors import InvalidMedia, TooLarge
from kinoloom.server.uploads import keep, media_kind, read_form, receive
from kinoloom.store.store import Store
from serving import local_client


def picture(form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, form, **options)
    return file.getvalue()


def video(form: str, codec: str) -> bytes:
    file = io.BytesIO()
    with av.open(file, "w", format=form) as container:
        stream = container.add_stream(codec, rate=8)
        stream.width, stream.height, stream.pix_fmt = 64, 64, "yuv420p"
        frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


def upload(data: bytes, name: str = "cat.png") -> UploadFile:
    return UploadFile(io.BytesIO(data), filename=name, size=len(data))


@pytest.mark.parametrize("form", ["png", "jpeg", "webp", "gif"])
def test_pictures_are_told_by_their_content(form: str) -> None:
    assert media_kind(picture(form)[:64]) == ("image", form)


@pytest.mark.parametrize(
    ("form", "codec", "short"),
    [
        ("mp4", "mpeg4", "mp4"),
        ("mov", "mpeg4", "mov"),
        ("matroska", "mpeg4", "mkv"),
        ("webm", "libvpx", "webm"),
        ("avi", "mpeg4", "avi"),
    ],
)
def test_videos_are_told_by_their_content(form: str, codec: str, short: str) -> None:
    assert media_kind(video(form, codec)[:64]) == ("video", short)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"GIF",
        b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n",  # a play list, which makes FFmpeg open addresses
        b"ffconcat version 1.0\nfile /etc/passwd\n",
        b'<svg xmlns="http://www.w3.org/2000/svg"></svg>',
        b"<html><script>",
        b"%PDF-1.7",
        b"MZ\x90\x00",
        b"\x7fELF",
        b"PK\x03\x04",
        b"%!PS-Adobe-3.0 EPSF",
        b"II*\x00",
        b"BM",
        b"RIFF\x00\x00\x00\x00ACON",
        b"\x00\x00\x00\x1cftypavif\x00\x00\x00\x00avifmif1",
        b"\x00\x00\x00\x1cftypheic\x00\x00\x00\x00heic",
        b"\x1a\x45\xdf\xa3\x01\x00\x00\x00no doc type of ours",
        b"x\x89PNG\r\n\x1a\n",
    ],
)
def test_everything_else_is_refused(store: Store, settings: Settings, data: bytes) -> None:
    assert media_kind(data) is None
    with pytest.raises(InvalidMedia, match="image is not taken"):
        receive(upload(data), "image", "any", store=store, settings=settings)


@pytest.mark.parametrize(
    ("data", "form"),
    [
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "wav"),
        (b"fLaC\x00\x00\x00\x22", "flac"),
        (b"OggS\x00\x02", "ogg"),
        (b"\x00\x00\x00\x1cftypM4A \x00\x00\x00\x00", "m4a"),
        (b"ID3\x04\x00\x00", "mp3"),
        (b"\xff\xfb\x90\x64", "mp3"),
    ],
)
def test_sound_is_a_file_of_its_own_kind(
    store: Store, settings: Settings, data: bytes, form: str
) -> None:
    assert media_kind(data) == ("audio", form)
    assert keep(data, "it", "file", store=store, settings=settings).kind == "audio"
    for kind in ("image", "video", "any"):
        with pytest.raises(InvalidMedia):
            keep(data, "it", kind, store=store, settings=settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("kind", "form", "taken"),
    [
        ("image", "png", True),
        ("image", "gif", True),
        ("image", "mp4", False),
        ("video", "mp4", True),
        ("video", "gif", True),
        ("video", "png", False),
        ("any", "png", True),
        ("any", "mp4", True),
    ],
)
def test_a_field_takes_its_kind(
    store: Store, settings: Settings, kind: Any, form: str, taken: bool
) -> None:
    data = video("mp4", "mpeg4") if form == "mp4" else picture(form)
    if taken:
        asset = keep(data, "it", kind, store=store, settings=settings)
        assert asset.path.read_bytes() == data
    else:
        with pytest.raises(InvalidMedia) as refused:
            keep(data, "it", kind, store=store, settings=settings)
        assert form.upper() in refused.value.cause


@pytest.mark.parametrize("size", [100, 1024**2, 1024**2 + 1, 3 * 1024**2])
def test_a_file_is_kept_whole_and_nothing_else_stays(
    store: Store, settings: Settings, size: int
) -> None:
    data = picture("png").ljust(size, b"\x07")
    asset = receive(upload(data), "image", "image", store=store, settings=settings)
    assert asset.path.read_bytes() == data
    assert (asset.size, asset.kind) == (size, "image")
    assert not list((settings.home / "assets" / "unfinished").iterdir())
    again = receive(upload(data), "image", "image", store=store, settings=settings)
    assert again.digest == asset.digest


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "..\\..\\x", "\0", "a" * 5000])
def test_the_name_of_a_file_leads_nowhere(store: Store, settings: Settings, name: str) -> None:
    asset = receive(upload(picture("png"), name), "image", "image", store=store, settings=settings)
    assert Path(asset.path).is_relative_to(settings.home)


@pytest.mark.parametrize("size", [200_001, 3 * 1024**2])
def test_a_file_is_bounded(store: Store, settings: Settings, size: int) -> None:
    small = settings.model_copy(update={"max_upload": size - 1})
    data = picture("png").ljust(size, b"\0")
    with pytest.raises(TooLarge, match="The file of image"):
        receive(upload(data), "image", "image", store=store, settings=small)
    with pytest.raises(TooLarge):
        keep(data, "image", "image", store=store, settings=small)
    assert not list((settings.home / "assets" / "unfinished").iterdir())


def with_form(app: FastAPI) -> FastAPI:
    @app.post("/test/read-form")
    async def form(request: Request) -> list[str]:
        fields = await read_form(request)
        try:
            return list(fields)
        finally:
            await fields.close()

    return app


def test_a_form_is_read(shell: Callable[..., FastAPI]) -> None:
    client = local_client(with_form(shell()))
    answer = client.post(
        "/test/read-form", data={"prompt": "a cat"}, files={"image": ("a.png", picture("png"))}
    )
    assert answer.json() == ["prompt", "image"]


@pytest.mark.parametrize(
    "options",
    [
        {"files": [(f"f{i}", ("a", b"x")) for i in range(21)]},
        {"files": [(f"f{i}", (None, b"x")) for i in range(101)]},
        {"files": [("a", (None, b"x" * 300_000))]},
        {"content": b"no form", "headers": {"content-type": "multipart/form-data; boundary=x"}},
        {"content": b"no form", "headers": {"content-type": "multipart/form-data"}},
        {
            "content": b"--x\r\nContent-Disposition: form-data\r\n\r\n1\r\n--x--\r\n",
            "headers": {"content-type": "multipart/form-data; boundary=x"},
        },
    ],
    ids=["files", "fields", "text", "broken", "no boundary", "no name"],
)
def test_a_form_that_is_none_or_too_much_is_refused(
    shell: Callable[..., FastAPI], options: dict[str, Any]
) -> None:
    answer = local_client(with_form(shell())).post("/test/read-form", **options)
    assert answer.status_code == 422
    assert answer.json()["problems"][0]["field"] == "body"
