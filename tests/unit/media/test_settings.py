from __future__ import annotations

from pathlib import Path

import av
import numpy as np
import pytest

from kinoloom.errors import InvalidMedia
from kinoloom.media.images import save_png
from kinoloom.media.settings import read_settings
from kinoloom.media.writer import write_video

Clip = np.ndarray
MADE_BY = {
    "prompt": 'ein roter Ball, さくら 🎬 "quoted" \\ \n',
    "seed": 2**53,
    "steps": [1, 2.5, None],
}


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "png"])
def test_settings_come_back(tmp_path: Path, clip: Clip, kind: str) -> None:
    write_video(tmp_path / "a", clip[:3], 24, format=kind, settings=MADE_BY)
    assert read_settings(tmp_path / "a") == {"kinoloom": 1, **MADE_BY}


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "png"])
def test_long_prompts_fit(tmp_path: Path, clip: Clip, kind: str) -> None:
    settings = {"prompt": "word " * 10_000}
    write_video(tmp_path / "a", clip[:2], 24, format=kind, settings=settings)
    found = read_settings(tmp_path / "a")
    assert found is not None
    assert found["prompt"] == settings["prompt"]


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "png"])
def test_none_when_there_are_none(tmp_path: Path, clip: Clip, kind: str) -> None:
    write_video(tmp_path / "a", clip[:2], 24, format=kind)
    assert read_settings(tmp_path / "a") is None


def test_a_single_frame_of_a_sequence_knows(tmp_path: Path, clip: Clip) -> None:
    write_video(tmp_path / "a", clip[:2], 24, format="png", settings=MADE_BY)
    assert read_settings(tmp_path / "a" / "frame_000002.png") == {"kinoloom": 1, **MADE_BY}
    (tmp_path / "a" / "kinoloom.json").unlink()
    assert read_settings(tmp_path / "a") == {"kinoloom": 1, **MADE_BY}
    save_png(tmp_path / "plain.png", clip[0])
    assert read_settings(tmp_path / "plain.png") is None


@pytest.mark.parametrize(
    "comment", ["hello", '{"seed": 1}', '{"kinoloom": 1, "x": "' + "y" * 10**6 + '"}']
)
def test_a_strangers_comment_is_none(tmp_path: Path, clip: Clip, comment: str) -> None:
    for kind, codec in (("mp4", "libx264"), ("webm", "libvpx-vp9")):
        with av.open(str(tmp_path / "a"), "w", format=kind) as container:
            container.metadata["comment"] = comment
            stream = container.add_stream(codec, rate=24)
            stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
            container.mux(stream.encode(av.VideoFrame.from_ndarray(clip[0], format="rgb24")))
            container.mux(stream.encode(None))
        assert read_settings(tmp_path / "a") is None


def test_no_video_at_all(tmp_path: Path) -> None:
    (tmp_path / "text.mp4").write_text("hello")
    (tmp_path / "cut.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "folder").mkdir()
    for name in ("text.mp4", "cut.png", "folder", "missing.mp4"):
        with pytest.raises(InvalidMedia):
            read_settings(tmp_path / name)
