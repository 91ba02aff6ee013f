from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinoloom.errors import InvalidMedia
from kinoloom.jobs.outside import (
    facts_of,
    preview_jpeg,
    write_gif,
    write_sheet,
    write_thumbnail,
)
from kinoloom.media.frames import Frame
from kinoloom.media.images import load_image
from kinoloom.media.reader import read_video
from kinoloom.media.writer import write_video


def nothing() -> None:
    pass


def film(place: Path, count: int, width: int = 64, height: int = 48, fps: float = 12) -> Path:
    """A film that gets brighter from frame to frame."""
    greys = np.linspace(0, 250, count).astype(np.uint8)
    frames = (np.full((height, width, 3), grey, np.uint8) for grey in greys)
    write_video(place, frames, fps, format="png" if not place.suffix else "mp4")
    return place


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "tiff"])
def test_pictures_are_told_from_videos_by_their_content(tmp_path: Path, suffix: str) -> None:
    file = tmp_path / f"picture.{suffix}"
    Image.new("RGB", (30, 20)).save(file)
    named = file.rename(tmp_path / "something.mp4")
    assert facts_of(named) == {"kind": "image", "width": 30, "height": 20}


@pytest.mark.parametrize("name", ["film.mp4", "film"])
def test_a_video_may_be_a_file_or_a_folder_of_frames(tmp_path: Path, name: str) -> None:
    facts = facts_of(film(tmp_path / name, 6))
    known = {k: facts[k] for k in ("kind", "width", "height", "frames", "fps", "duration")}
    assert known == {
        "kind": "video",
        "width": 64,
        "height": 48,
        "frames": 6,
        "fps": 12.0,
        "duration": 0.5,
    }


def test_a_gif_is_a_video(tmp_path: Path) -> None:
    write_video(tmp_path / "x.gif", [np.zeros((8, 8, 3), np.uint8)] * 3, 10, format="gif")
    assert facts_of(tmp_path / "x.gif")["frames"] == 3


@pytest.mark.parametrize("content", [b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"words", b""])
def test_what_is_neither_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "file"
    file.write_bytes(content)
    with pytest.raises(InvalidMedia):
        facts_of(file)


@pytest.mark.parametrize(
    ("count", "size"), [(1, (320, 240)), (3, (960, 240)), (5, (1280, 480)), (90, (1280, 960))]
)
def test_a_sheet_shows_frames_from_the_first_to_the_last(
    tmp_path: Path, count: int, size: tuple[int, int]
) -> None:
    target = tmp_path / "sheet.jpg"
    write_sheet(film(tmp_path / "film.mp4", count, 640, 480), target, nothing)
    sheet = load_image(target)
    assert (sheet.shape[1], sheet.shape[0]) == size
    shown = min(count, 16)
    means = [
        sheet[r * 240 : (r + 1) * 240, c * 320 : (c + 1) * 320].mean()
        for r in range(size[1] // 240)
        for c in range(size[0] // 320)
    ]
    assert means[:shown] == sorted(means[:shown])
    assert means[0] < 10
    if count > 1:
        assert means[shown - 1] > 240
    assert all(mean < 10 for mean in means[shown:])


def test_a_thumbnail_keeps_the_shape_within_its_size(tmp_path: Path) -> None:
    target = tmp_path / "thumbnail.jpg"
    write_thumbnail(film(tmp_path / "film.mp4", 4, 200, 1000), target, nothing)
    assert load_image(target).shape == (512, 102, 3)


@pytest.mark.parametrize(("count", "fps"), [(1, 12), (20, 10), (300, 30)])
def test_a_gif_plays_as_long_as_the_video(tmp_path: Path, count: int, fps: float) -> None:
    target = tmp_path / "small.gif"
    write_gif(film(tmp_path / "film.mp4", count, 640, 320, fps), target, nothing)
    frames, rate = read_video(target)
    assert frames.shape[1:] == (160, 320, 3)
    assert len(frames) <= 60
    assert len(frames) / rate == pytest.approx(count / fps, abs=0.011)


@pytest.mark.parametrize("write", [write_thumbnail, write_sheet, write_gif])
def test_whoever_checks_may_stop_the_work_at_each_frame(
    tmp_path: Path, write: Callable[[Path, Path, Callable[[], None]], None]
) -> None:
    class Stop(Exception):
        pass

    seen: list[int] = []

    def check() -> None:
        seen.append(1)
        if len(seen) == 3:
            raise Stop

    with pytest.raises(Stop):
        write(film(tmp_path / "film.mp4", 9), tmp_path / "target", check)
    assert not (tmp_path / "target").exists()


def test_a_preview_is_a_small_jpeg() -> None:
    frame: Frame = np.full((360, 640, 3), (200, 30, 30), np.uint8)
    jpeg = preview_jpeg(frame)
    assert jpeg.startswith(b"\xff\xd8\xff")
    assert len(jpeg) < 10_000
