from __future__ import annotations

import io
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinoloom.errors import InvalidMedia, InvalidRequest, KinoloomError
from kinoloom.film.boundary import MAX_FRAMES, last_frames, write_boundary
from kinoloom.media.images import load_image
from kinoloom.media.reader import probe, read_frames
from kinoloom.media.writer import write_video


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """A square that moves over noise: 14 frames of 64x48, each different from all others."""
    random = np.random.default_rng(5)
    clip = np.repeat(random.integers(60, 200, (1, 48, 64, 3), dtype=np.uint8), 14, axis=0)
    for t, frame in enumerate(clip):
        frame[10:30, 3 * t : 3 * t + 12] = (250, 10 * t, 5)
    return clip


@pytest.fixture
def array(frames: np.ndarray, tmp_path: Path) -> Path:
    file = tmp_path / "frames.npy"
    np.save(file, frames)
    return file


@pytest.mark.parametrize(("count", "shown"), [(1, None), (5, None), (14, None), (1, 9), (3, 9)])
def test_the_model_s_own_frames_come_back_to_the_bit(
    array: Path, frames: np.ndarray, tmp_path: Path, count: int, shown: int | None
) -> None:
    end = len(frames) if shown is None else shown
    assert np.array_equal(
        last_frames(array, count, shown=shown, video=False), frames[end - count : end]
    )


@pytest.mark.parametrize("kind", ["mp4", "webm", "png", "gif"])
@pytest.mark.parametrize(("count", "shown"), [(1, None), (4, None), (1, 6), (2, 6)])
def test_a_video_s_last_frames_are_those_of_a_full_decode(
    frames: np.ndarray, tmp_path: Path, kind: str, count: int, shown: int | None
) -> None:
    video = tmp_path / ("clip" if kind == "png" else f"clip.{kind}")
    write_video(video, frames, 12, format=kind)  # type: ignore[arg-type]
    whole = list(read_frames(video))[:shown]
    assert np.array_equal(last_frames(video, count, shown=shown, video=True), whole[-count:])


def test_a_picture_carries_nothing_that_a_reader_would_convert_by(
    frames: np.ndarray, tmp_path: Path
) -> None:
    write_boundary(tmp_path / "one", [frames[0]], 12)
    assert np.array_equal(load_image(tmp_path / "one"), frames[0])
    with Image.open(tmp_path / "one") as picture:
        assert picture.mode == "RGB"
        assert picture.info == {}


def test_several_frames_are_a_video_that_gives_them_back_to_the_bit(
    frames: np.ndarray, tmp_path: Path
) -> None:
    write_boundary(tmp_path / "several", list(frames[-9:]), 12)
    info = probe(tmp_path / "several")
    assert (info.frames, info.fps, info.width, info.height) == (9, 12, 64, 48)
    assert np.array_equal(list(read_frames(tmp_path / "several")), frames[-9:])


def test_only_the_last_frames_of_a_long_clip_are_read(tmp_path: Path) -> None:
    file = tmp_path / "long.npy"
    long = np.lib.format.open_memmap(file, "w+", np.uint8, (4000, 120, 160, 3))  # 230 MB, sparse
    long[-1] = 7
    del long
    tracemalloc.start()
    [last] = last_frames(file, 1, video=False)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (last == 7).all()
    assert peak < 5_000_000


@pytest.mark.parametrize(
    ("count", "shown"), [(0, None), (-1, None), (MAX_FRAMES + 1, None), (15, None), (3, 2), (1, 15)]
)
@pytest.mark.parametrize("kind", ["npy", "mp4"])
def test_more_frames_than_there_are_is_a_mistake(
    array: Path, frames: np.ndarray, tmp_path: Path, count: int, shown: int | None, kind: str
) -> None:
    source = array
    if kind == "mp4":
        source = tmp_path / "clip.mp4"
        write_video(source, frames, 12, format="mp4")
    with pytest.raises(InvalidRequest):
        last_frames(source, count, shown=shown, video=kind == "mp4")


def saved(write: Callable[[io.BytesIO], object]) -> bytes:
    held = io.BytesIO()
    write(held)
    return held.getvalue()


FRAME = np.zeros((1, 48, 64, 3), np.uint8)
WHOLE = saved(lambda file: np.save(file, FRAME))
HOSTILE = {
    "not an array": b"just words",
    "empty": b"",
    "cut short": WHOLE[:-1],
    "a header that promises terabytes": WHOLE.replace(
        b"(1, 48, 64, 3), }", b"(9999999, 48, 64, 3), }"
    ),
    "a header that is a program": WHOLE.replace(b"'|u1'", b"f(()))"),
    "a pickle": saved(lambda file: np.save(file, np.array([{}, {}], object), allow_pickle=True)),
    "an archive": saved(lambda file: np.savez(file, frames=FRAME)),
    "of floats": saved(lambda file: np.save(file, FRAME.astype(np.float32))),
    "a picture": saved(lambda file: np.save(file, FRAME[0])),
    "with transparency": saved(lambda file: np.save(file, np.zeros((1, 48, 64, 4), np.uint8))),
    "without area": saved(lambda file: np.save(file, np.zeros((1, 0, 64, 3), np.uint8))),
    "too wide": saved(lambda file: np.save(file, np.zeros((1, 1, 20_000, 3), np.uint8))),
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE.keys())
@pytest.mark.parametrize("name", ["frames.npy", "clip.mp4"])
def test_a_file_that_holds_no_frames_is_named(tmp_path: Path, content: bytes, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(content)
    with pytest.raises(InvalidMedia, match=name):
        last_frames(file, 1, video=name == "clip.mp4")


@pytest.mark.parametrize("name", ["frames.npy", "clip.mp4"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidMedia, match=name):
        last_frames(tmp_path / name, 1, video=name == "clip.mp4")


def test_frames_that_do_not_fit_into_memory_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "huge.npy"
    np.lib.format.open_memmap(file, "w+", np.uint8, (20, 4000, 8000, 3))  # sparse on the disk
    with pytest.raises(InvalidMedia, match="memory"):
        last_frames(file, 20, video=False)


def test_every_mistake_says_what_to_do(tmp_path: Path) -> None:
    file = tmp_path / "frames.npy"
    file.write_bytes(b"just words")
    with pytest.raises(KinoloomError) as caught:
        last_frames(file, 1, video=False)
    assert caught.value.hints
