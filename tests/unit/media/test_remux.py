from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from kinoloom.errors import InvalidMedia
from kinoloom.media.reader import probe, read_frames
from kinoloom.media.remux import remux
from kinoloom.media.settings import read_settings
from kinoloom.media.sound import RATE, read_sound
from kinoloom.media.writer import AudioTrack, VideoFormat, write_video

PICTURES = np.random.default_rng(0).integers(0, 255, (30, 48, 64, 3), dtype=np.uint8)
TONE = AudioTrack(0.5 * np.sin(np.arange(60_000, dtype=np.float32) / 20)[None], 48_000)


def made(
    file: Path, kind: VideoFormat = "mp4", audio: AudioTrack | None = TONE, fps: float = 24
) -> Path:
    write_video(file, PICTURES, fps, format=kind, audio=audio, settings={"by": "somebody"})
    return file


def encoded(file: Path, codec: str, layout: str) -> Path:
    """A video in another codec than ours."""
    with av.open(str(file), "w") as container:
        stream = container.add_stream(codec, rate=24)
        assert isinstance(stream, av.VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, layout
        for picture in PICTURES:
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format=layout)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return file


@pytest.mark.parametrize("audio", [TONE, None])
def test_nothing_is_lost_and_the_settings_are_ours(
    tmp_path: Path, audio: AudioTrack | None
) -> None:
    source, target = made(tmp_path / "a.mp4", audio=audio), tmp_path / "b.mp4"
    assert remux(source, target, settings={"clip": "x"})
    assert probe(target) == probe(source)
    assert read_settings(target) == {"kinoloom": 1, "clip": "x"}
    pairs = zip(read_frames(source), read_frames(target), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_the_index_stands_in_front(tmp_path: Path) -> None:
    remux(made(tmp_path / "a.mp4"), tmp_path / "b.mp4")
    data = (tmp_path / "b.mp4").read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


def test_what_is_neither_picture_nor_sound_stays_behind(tmp_path: Path) -> None:
    source = tmp_path / "a.mkv"
    with av.open(str(made(tmp_path / "a.mp4"))) as read, av.open(str(source), "w") as written:
        copies = {s.index: written.add_stream_from_template(s, opaque=True) for s in read.streams}
        written.metadata["comment"] = "whatever"
        written.metadata["director"] = "somebody"
        attachment = (
            written.add_attachment("note.txt", "text/plain", b"run me")
            if hasattr(written, "add_attachment")
            else None
        )
        for packet in read.demux():
            if packet.dts is not None:
                packet.stream = copies[packet.stream.index]
                written.mux(packet)
    del attachment
    assert remux(source, tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as found:
        assert [stream.type for stream in found.streams] == ["video", "audio"]
        assert "director" not in found.metadata
    assert read_settings(tmp_path / "b.mp4") is None


@pytest.mark.parametrize(
    ("codec", "layout", "name"),
    [
        ("prores_ks", "yuv422p10le", "a.mov"),
        ("mpeg4", "yuv420p", "a.mp4"),
        ("libx264", "yuv444p", "a.mp4"),
    ],
)
def test_what_players_do_not_know_is_left_to_be_encoded(
    tmp_path: Path, codec: str, layout: str, name: str
) -> None:
    assert not remux(encoded(tmp_path / name, codec, layout), tmp_path / "b.mp4")
    assert not (tmp_path / "b.mp4").exists()


def test_sound_that_players_do_not_know_is_left_to_be_encoded(tmp_path: Path) -> None:
    assert not remux(made(tmp_path / "a.webm", "webm"), tmp_path / "b.mp4")


def test_hevc_is_named_as_apple_wants_it(tmp_path: Path) -> None:
    assert remux(encoded(tmp_path / "a.mkv", "libx265", "yuv420p"), tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as found:
        assert found.streams.video[0].codec_context.codec_tag == "hvc1"


def test_what_is_cut_short_is_refused(tmp_path: Path) -> None:
    data = made(tmp_path / "a.mp4").read_bytes()
    (tmp_path / "a.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(InvalidMedia):
        remux(tmp_path / "a.mp4", tmp_path / "b.mp4")
    assert not (tmp_path / "b.mp4").exists()


def test_stopping_leaves_nothing(tmp_path: Path) -> None:
    class Stopped(Exception):
        pass

    def stop() -> None:
        raise Stopped

    with pytest.raises(Stopped):
        remux(made(tmp_path / "a.mp4"), tmp_path / "out" / "b.mp4", check=stop)
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_the_sound_of_a_video(tmp_path: Path, kind: VideoFormat) -> None:
    sound = read_sound(made(tmp_path / f"a.{kind}", kind))
    assert sound is not None
    assert (sound.rate, sound.samples.shape[0], sound.samples.dtype) == (RATE, 1, np.float32)
    assert abs(sound.samples.shape[1] / RATE - len(PICTURES) / 24) < 0.05
    assert read_sound(made(tmp_path / f"b.{kind}", kind, audio=None)) is None
