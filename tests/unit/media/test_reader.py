from __future__ import annotations

import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinoloom.errors import InvalidMedia
from kinoloom.media import reader
from kinoloom.media.reader import first_frame, last_frame, probe, read_frames, read_video
from kinoloom.media.settings import read_settings
from kinoloom.media.writer import write_video

FORMATS = ["mp4", "webm", "gif", "png"]
Clip = np.ndarray


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory, clip: Clip) -> dict[str, Path]:
    """One clip in every format."""
    folder = tmp_path_factory.mktemp("videos")
    for kind in FORMATS:
        write_video(folder / f"clip.{kind}", clip, 12, format=kind, settings={"seed": 7})
    return {kind: folder / f"clip.{kind}" for kind in FORMATS}


@pytest.mark.parametrize("kind", FORMATS)
def test_probe_tells_what_it_is(videos: dict[str, Path], kind: str) -> None:
    info = probe(videos[kind])
    codec = {"mp4": "h264", "webm": "vp9", "gif": "gif", "png": "png"}[kind]
    assert (info.width, info.height, info.fps, info.frames) == (96, 64, 12, 24)
    assert (info.duration, info.codec, info.format, info.has_audio) == (2, codec, kind, False)


@pytest.mark.parametrize("kind", FORMATS)
def test_limit_first_and_last(videos: dict[str, Path], kind: str) -> None:
    frames, _ = read_video(videos[kind])
    assert len(list(read_frames(videos[kind], limit=5))) == 5
    assert list(read_frames(videos[kind], limit=0)) == []
    assert np.array_equal(first_frame(videos[kind]), frames[0])
    assert np.array_equal(last_frame(videos[kind]), frames[-1])


@pytest.mark.parametrize("kind", ["mp4", "webm"])
@pytest.mark.parametrize("count", [1, 3, 100, 101])
def test_the_last_frame_is_exact_in_long_clips(
    tmp_path: Path, make_clip: Callable[[int, int, int], Clip], kind: str, count: int
) -> None:
    """More than two key frame distances, with B-frames waiting in the decoder at the end."""
    clip = make_clip(count, 32, 48)
    write_video(tmp_path / "a", clip, 20, format=kind)
    frames, _ = read_video(tmp_path / "a")
    assert len(frames) == count
    last = last_frame(tmp_path / "a")
    assert np.array_equal(last, frames[-1])
    if count > 1:
        assert not np.array_equal(last, frames[-2])


def test_the_last_frame_does_not_decode_everything(
    tmp_path: Path, make_clip: Callable[[int, int, int], Clip], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "a", make_clip(200, 16, 16), 20, format="mp4")
    seen = []
    convert = reader._OpenVideo._end
    monkeypatch.setattr(reader._OpenVideo, "_end", lambda self: seen.append(1) or convert(self))
    with reader._opened(tmp_path / "a") as video:
        decoded = []
        decode = video.container.decode

        class Counting:
            def __getattr__(self, name: str) -> object:
                return getattr(container, name)

            def decode(self, stream: object) -> object:
                for picture in decode(stream):
                    decoded.append(picture.pts)
                    yield picture

        container = video.container
        video.container = Counting()
        video.last()
    assert seen
    assert 0 < len(decoded) <= 80


def test_untagged_streams_are_taken_for_bt601_when_small(tmp_path: Path, clip: Clip, psnr) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for frame in clip:
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture = picture.reformat(format="yuv420p", dst_colorspace="ITU601")
            picture.colorspace = 2
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    assert psnr(read_video(tmp_path / "a.mp4")[0], clip) > 36


def test_a_phones_rotation_is_applied(tmp_path: Path, clip: Clip, psnr) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=24, options={"crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.set_display_rotation(90)
        for frame in clip[:3]:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    info = probe(tmp_path / "a.mp4")
    assert (info.width, info.height) == (64, 96)
    turned = first_frame(tmp_path / "a.mp4")
    assert max(psnr(turned, np.rot90(clip[0], k)) for k in (1, 3)) > 20


def test_transparent_gifs_are_over_white(tmp_path: Path) -> None:
    from PIL import Image

    images = []
    for shade in (10, 60):
        rgba = np.zeros((8, 8, 4), np.uint8)
        rgba[:4] = (shade, 0, 0, 255)
        images.append(Image.fromarray(rgba, "RGBA"))
    images[0].save(tmp_path / "a.gif", save_all=True, append_images=images[1:], duration=100)
    frames, fps = read_video(tmp_path / "a.gif")
    assert (len(frames), fps) == (2, 10)
    assert frames[0, 0, 0].tolist() == [10, 0, 0]
    assert frames[0, 7, 7].tolist() == [255, 255, 255]


def _audio_only(path: Path) -> None:
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        stream.layout = "mono"
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
        container.mux(stream.encode(None))


def _hostile(folder: Path, videos: dict[str, Path]) -> dict[Path, str]:
    """Files that are no usable video, and a word of the message each must give."""
    (folder / "empty.mp4").touch()
    (folder / "text.mp4").write_text("once upon a time\n" * 100)
    (folder / "zeros.mp4").write_bytes(bytes(5000))
    (folder / "folder").mkdir()
    _audio_only(folder / "audio.mp4")
    (folder / "picture.mp4").write_bytes((videos["png"] / "frame_000001.png").read_bytes())
    (folder / "list.m3u8").write_text(f"#EXTM3U\n#EXTINF:1,\n{videos['mp4']}\n#EXT-X-ENDLIST\n")
    (folder / "concat.mp4").write_text(f"ffconcat version 1.0\nfile '{videos['mp4']}'\n")
    expected = {
        folder / "missing.mp4": "does not exist",
        folder / "empty.mp4": "is empty",
        folder / "text.mp4": "not a video",
        folder / "zeros.mp4": "not a video",
        folder / "folder": "no frames",
        folder / "audio.mp4": "no video",
        folder / "list.m3u8": "not a video",
        folder / "concat.mp4": "not a video",
        folder / "picture.mp4": "not a video",
        folder / "a\0b": "Cannot open",
    }
    for kind in ("mp4", "webm", "gif"):
        data = videos[kind].read_bytes()
        for share in (0.1, 0.5, 0.9, 0.99):
            path = folder / f"cut{share}.{kind}"
            path.write_bytes(data[: int(len(data) * share)])
            expected[path] = ""
    if hasattr(os, "mkfifo"):
        os.mkfifo(folder / "pipe.mp4")
        expected[folder / "pipe.mp4"] = "not a regular file"
    return expected


@pytest.mark.parametrize(
    "read", [probe, read_video, first_frame, last_frame, lambda path: list(read_frames(path))]
)
def test_hostile_files_are_named(
    tmp_path: Path, videos: dict[str, Path], read: Callable[[Path], object]
) -> None:
    for path, words in _hostile(tmp_path, videos).items():
        with pytest.raises(InvalidMedia) as caught:
            read(path)
        assert words in caught.value.message, path


def test_no_playlist_and_no_address_is_ever_followed(tmp_path: Path) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *args: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}/secret.ts"
        (tmp_path / "a.mp4").write_text(f"#EXTM3U\n#EXTINF:1,\n{url}\n#EXT-X-ENDLIST\n")
        (tmp_path / "b.mp4").write_text(f"ffconcat version 1.0\nfile '{url}'\n")
        for path in (tmp_path / "a.mp4", tmp_path / "b.mp4", url, f"file:{tmp_path}/a.mp4"):
            with pytest.raises(InvalidMedia):
                probe(path)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
    assert asked == []


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_damage_is_named_or_survived(
    tmp_path_factory: pytest.TempPathFactory, videos: dict[str, Path], data: st.DataObject
) -> None:
    kind = data.draw(st.sampled_from(["mp4", "webm", "gif"]))
    raw = bytearray(videos[kind].read_bytes())
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("fuzz") / "clip"
    path.write_bytes(raw)
    for read in (probe, read_video, last_frame, read_settings):
        try:
            read(path)
        except InvalidMedia:
            pass


def test_a_clip_too_long_for_memory(videos: dict[str, Path]) -> None:
    for path in videos.values():
        with pytest.raises(InvalidMedia, match="too long"):
            read_video(path, max_bytes=24 * 96 * 64 * 3 - 1)


def test_frames_too_large_are_refused(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MAX_SIDE", 90)
    for kind in ("mp4", "webm", "gif"):
        with pytest.raises(InvalidMedia, match="unusable size"):
            probe(videos[kind])


def test_sound_is_reported(tmp_path: Path, clip: Clip) -> None:
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        video = container.add_stream("libx264", rate=24)
        video.width, video.height, video.pix_fmt = 96, 64, "yuv420p"
        audio = container.add_stream("aac", rate=8000)
        audio.layout = "mono"
        for frame in clip[:4]:
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(video.encode(None))
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        sound.sample_rate = 8000
        container.mux(audio.encode(sound))
        container.mux(audio.encode(None))
    info = probe(tmp_path / "a.mp4")
    assert info.has_audio
    assert info.frames == 4
    assert len(read_video(tmp_path / "a.mp4")[0]) == 4
