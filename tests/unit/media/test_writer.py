from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinoloom.errors import InvalidMedia, InvalidRequest, OutputFailed
from kinoloom.media.reader import probe, read_video
from kinoloom.media.writer import write_video

FORMATS = ["mp4", "webm", "gif", "png"]
Clip = np.ndarray
Psnr = Callable[[Clip, Clip], float]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("count", [1, 2, 24])
def test_as_many_frames_out_as_in(tmp_path: Path, clip: Clip, kind: str, count: int) -> None:
    path = tmp_path / f"clip.{kind}"
    write_video(path, clip[:count], 12, format=kind)
    frames, fps = read_video(path)
    assert frames.shape == clip[:count].shape
    assert fps == pytest.approx(12, rel=0.05)
    assert probe(path).frames == count
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("kind", FORMATS)
def test_equal_frames_are_all_kept(tmp_path: Path, clip: Clip, kind: str) -> None:
    still = np.repeat(clip[:1], 9, axis=0)
    write_video(tmp_path / "a", still, 10, format=kind)
    assert len(read_video(tmp_path / "a")[0]) == 9


@given(
    count=st.integers(1, 5),
    height=st.integers(1, 35),
    width=st.integers(1, 35),
    kind=st.sampled_from(FORMATS),
)
@settings(max_examples=30, deadline=None)
def test_any_size_and_count(
    tmp_path_factory: pytest.TempPathFactory,
    make_clip: Callable[[int, int, int], Clip],
    count: int,
    height: int,
    width: int,
    kind: str,
) -> None:
    path = tmp_path_factory.mktemp("any") / "clip"
    write_video(path, make_clip(count, height, width), 24, format=kind)
    frames, _ = read_video(path)
    if kind == "mp4":  # 4:2:0 in players' H.264 needs even sides
        height, width = height + height % 2, width + width % 2
    assert frames.shape == (count, height, width, 3)


def test_an_odd_size_is_extended_by_its_own_edge(
    tmp_path: Path, make_clip: Callable[[int, int, int], Clip], psnr: Psnr
) -> None:
    odd = make_clip(6, 63, 95)
    write_video(tmp_path / "a.mp4", odd, 24, format="mp4")
    frames, _ = read_video(tmp_path / "a.mp4")
    assert frames.shape == (6, 64, 96, 3)
    assert psnr(frames[:, :63, :95], odd) > 36
    assert psnr(frames[:, 63, :95], odd[:, 62]) > 30


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_colours_survive_and_the_wrong_matrix_would_not(
    tmp_path: Path, clip: Clip, kind: str, psnr: Psnr
) -> None:
    write_video(tmp_path / "a", clip, 24, format=kind)
    frames, _ = read_video(tmp_path / "a")
    assert psnr(frames, clip) >= 36
    with av.open(str(tmp_path / "a")) as container:
        wrong = [
            picture.to_ndarray(format="rgb24", src_colorspace="ITU601")
            for picture in container.decode(video=0)
        ]
    assert psnr(np.stack(wrong), clip) < 34


@pytest.mark.parametrize("kind", ["mp4", "webm"])
def test_colours_stay_in_their_place(tmp_path: Path, kind: str, psnr: Psnr) -> None:
    """Chroma samples half a pixel off, as FFmpeg has them by default, give less than 32 dB here."""
    clip = np.random.default_rng(0).normal(0, 1, (4, 64, 96, 3)).astype(np.float32)
    clip = np.stack([cv2.GaussianBlur(frame, (0, 0), 2.5) for frame in clip])
    clip = np.clip(128 + clip / clip.std() * 40, 0, 255).astype(np.uint8)
    write_video(tmp_path / "a", clip, 24, format=kind)
    assert psnr(read_video(tmp_path / "a")[0], clip) > 34


@pytest.mark.parametrize(("kind", "codec"), [("mp4", "h264"), ("webm", "vp9")])
def test_the_stream_says_what_it_is(tmp_path: Path, clip: Clip, kind: str, codec: str) -> None:
    write_video(tmp_path / "a", clip, 23.976, format=kind)
    with av.open(str(tmp_path / "a")) as container:
        stream = container.streams.video[0]
        picture = next(container.decode(stream))
        assert stream.codec_context.name == codec
        assert stream.codec_context.pix_fmt == "yuv420p"
        assert stream.average_rate == Fraction(24000, 1001)
    tags = (picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range)
    assert tags == (1, 1, 1, 1)  # H.273: BT.709 three times; FFmpeg: 1 is limited range


def test_mp4_has_its_index_first(tmp_path: Path, clip: Clip) -> None:
    write_video(tmp_path / "a.mp4", clip, 24, format="mp4")
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


def test_gif_loops_for_ever_and_keeps_time(tmp_path: Path, clip: Clip) -> None:
    from PIL import Image

    write_video(tmp_path / "a.gif", clip, 24, format="gif", settings={"seed": 1})
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["loop"] == 0
        assert image.n_frames == 24
        delays = []
        for index in range(image.n_frames):
            image.seek(index)
            delays.append(image.info["duration"])
    assert sum(delays) == 1000
    assert set(delays) == {40, 50}


def test_a_gif_faster_than_browsers_slows_down(tmp_path: Path, clip: Clip) -> None:
    write_video(tmp_path / "a.gif", clip, 120, format="gif")
    frames, fps = read_video(tmp_path / "a.gif")
    assert (len(frames), fps) == (24, 50)


@pytest.mark.parametrize("kind", FORMATS)
def test_frames_are_taken_one_at_a_time(tmp_path: Path, clip: Clip, kind: str) -> None:
    ahead = itertools.count()
    written: list[int] = []

    def frames() -> Iterator[Clip]:
        for frame in clip:
            assert next(ahead) - len(written) <= 1
            yield frame

    write_video(tmp_path / "a", frames(), 24, format=kind, on_frame=written.append)
    assert written == list(range(1, 25))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("error", [KeyboardInterrupt, ZeroDivisionError])
def test_nothing_stays_behind(
    tmp_path: Path, clip: Clip, kind: str, error: type[BaseException]
) -> None:
    def stop(count: int) -> None:
        if count == 20:
            raise error

    def broken() -> Iterator[Clip]:
        yield from clip[:5]
        raise error

    with pytest.raises(error):
        write_video(tmp_path / "a", clip, 24, format=kind, on_frame=stop)
    with pytest.raises(error):
        write_video(tmp_path / "a", broken(), 24, format=kind)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif"])
def test_the_old_file_stays_until_the_new_one_is_whole(
    tmp_path: Path, clip: Clip, kind: str
) -> None:
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(InvalidMedia):
        write_video(path, [clip[0], clip[1][:-2]], 24, format=kind)
    assert path.read_text() == "old"
    write_video(path, clip[:2], 24, format=kind)
    assert probe(path).frames == 2


@pytest.mark.parametrize("kind", FORMATS)
def test_bad_frames_are_named(tmp_path: Path, clip: Clip, kind: str) -> None:
    for frames, words in (
        ([], "no frames"),
        ([clip[0], clip[0][:-2]], "differs in size"),
        (clip.astype(np.float32), "8-bit"),
        (clip[..., :1], "RGB"),
    ):
        with pytest.raises(InvalidMedia, match=words):
            write_video(tmp_path / "a", frames, 24, format=kind)
    with pytest.raises(InvalidRequest):
        write_video(tmp_path / "a", clip, 0, format=kind)
    assert list(tmp_path.iterdir()) == []


def test_an_oserror_of_the_source_is_not_blamed_on_the_output(tmp_path: Path, clip: Clip) -> None:
    def frames() -> Iterator[Clip]:
        yield clip[0]
        raise FileNotFoundError("the source went away")

    with pytest.raises(FileNotFoundError):
        write_video(tmp_path / "a.mp4", frames(), 24, format="mp4")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.skipif(sys.platform == "win32", reason="the limit is POSIX's")
def test_a_disk_that_takes_no_more(tmp_path: Path, kind: str) -> None:
    """A real refusal by the operating system in the middle of writing, through FFmpeg's own I/O."""
    import resource

    noise = np.random.default_rng(0).integers(0, 256, (12, 96, 96, 3), dtype=np.uint8)
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        with pytest.raises(OutputFailed) as caught:
            write_video(tmp_path / "a", noise, 24, format=kind)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "largest size" in caught.value.cause
    assert caught.value.hints
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_way(tmp_path: Path, clip: Clip) -> None:
    with pytest.raises(OutputFailed):
        write_video(tmp_path, clip, 24, format="mp4")
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(OutputFailed):
        write_video(tmp_path, clip, 24, format="png")
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
