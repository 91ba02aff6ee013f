from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinoloom.errors import InvalidMedia, InvalidRequest, OutputFailed
from kinoloom.media.lossless import save_lossless
from kinoloom.media.reader import probe, read_frames


def noise(count: int, height: int, width: int) -> np.ndarray:
    """Frames of which none is like another, with every value of a channel."""
    return np.random.default_rng(7).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize(("height", "width"), [(48, 64), (33, 17), (2, 3)])
@pytest.mark.parametrize("fps", [12, 16, 24000 / 1001, 30, 12.5])
def test_the_very_same_frames_come_back(
    tmp_path: Path, height: int, width: int, fps: float
) -> None:
    frames = noise(9, height, width)
    save_lossless(tmp_path / "kept", frames, fps)
    assert np.array_equal(list(read_frames(tmp_path / "kept")), frames)
    info = probe(tmp_path / "kept")
    assert (info.frames, info.fps, info.codec) == (9, fps, "ffv1")


def test_the_same_frames_make_the_same_bytes(tmp_path: Path) -> None:
    files = [tmp_path / name for name in ("a", "b")]
    for file in files:
        save_lossless(file, noise(5, 48, 64), 12)
    assert files[0].read_bytes() == files[1].read_bytes()
    save_lossless(files[1], noise(5, 48, 64) // 2, 12)
    assert files[0].read_bytes() != files[1].read_bytes()


def test_a_file_that_was_changed_is_told(tmp_path: Path) -> None:
    file = tmp_path / "kept"
    save_lossless(file, noise(5, 48, 64), 12)
    file.write_bytes(file.read_bytes()[:-2000])
    with pytest.raises(InvalidMedia):
        list(read_frames(file))


@pytest.mark.parametrize(
    ("frames", "fps", "error"),
    [
        ([], 12, InvalidMedia),
        ([noise(1, 4, 4)[0], noise(1, 5, 4)[0]], 12, InvalidMedia),
        (noise(2, 4, 4), 0, InvalidRequest),
    ],
)
def test_what_is_no_video_is_not_written(
    tmp_path: Path, frames: object, fps: float, error: type[Exception]
) -> None:
    with pytest.raises(error):
        save_lossless(tmp_path / "kept", frames, fps)  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutputFailed):
        save_lossless(tmp_path / "file" / "kept", noise(2, 4, 4), 12)
