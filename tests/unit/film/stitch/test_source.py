from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from kinoloom.errors import InvalidMedia
from kinoloom.film.stitch.source import Source, read_source
from kinoloom.media.writer import write_video
from unit.film.stitch.conftest import FPS, Make, numbered


def source(count: int, rate: Fraction, **more: object) -> Source:
    """A source of regular times that may be cut anywhere."""
    everywhere = np.arange(count + 1)
    known: dict[str, object] = {
        "path": Path("a.mp4"),
        "size": (64, 48),
        "rate": rate,
        "unit": 1 / rate,
        "begin": Fraction(0),
        "times": everywhere[:-1],
        "kind": None,
        "firsts": everywhere[:-1],
        "ends": everywhere,
        "delay": 0,
        "has_sound": False,
    }
    return Source(**(known | more))  # type: ignore[arg-type]


def seen(source: Source, fps: Fraction) -> list[int]:
    """The frames that are shown, up to the end."""
    frames = []
    while (frame := source.shown(len(frames), fps)) is not None:
        frames.append(frame)
    return frames


@pytest.mark.parametrize("rate", [Fraction(24), Fraction(24000, 1001), Fraction(1, 3)])
def test_at_its_own_rate_each_frame_is_shown_once(rate: Fraction) -> None:
    assert seen(source(1000, rate), rate) == list(range(1000))


def test_another_rate_is_resampled_by_time() -> None:
    assert seen(source(4, Fraction(12)), Fraction(24)) == [0, 0, 1, 1, 2, 2, 3, 3]
    assert seen(source(6, Fraction(48)), Fraction(24)) == [0, 2, 4]
    assert seen(source(5, Fraction(30)), Fraction(24)) == [0, 1, 3, 4]
    long = seen(source(24_000, Fraction(24000, 1001)), Fraction(24))
    assert len(long) == 24_024  # 1001 seconds
    assert set(np.diff(long)) == {0, 1}


def test_times_need_not_be_regular() -> None:
    shaky = source(4, Fraction(10), unit=Fraction(1, 100), times=np.array([0, 10, 40, 50]))
    assert seen(shaky, Fraction(10)) == [0, 1, 1, 1, 2, 3]


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "png"])
@pytest.mark.parametrize("fps", [Fraction(24000, 1001), Fraction(25, 2), Fraction(60)])
def test_every_kind_of_file_is_read_at_its_rate(tmp_path: Path, kind: str, fps: Fraction) -> None:
    path = tmp_path / f"a.{kind}"
    write_video(path, numbered(1, 61), fps, format=kind)  # type: ignore[arg-type]
    found = read_source(path)
    assert (found.frames, found.size, found.has_sound) == (61, (64, 48), False)
    if kind != "gif":  # whose times are hundredths of a second
        assert seen(found, fps) == list(range(61))


def test_where_a_stream_may_be_cut(make: Make) -> None:
    found = read_source(make(1, 40).path)
    assert found.kind is not None
    assert found.firsts[0] == 0
    assert {12, 24, 36} & set(found.firsts.tolist())
    assert (found.ends[0], found.ends[-1]) == (0, 40)
    key = int(found.firsts[1])
    assert found.copyable(0, 40, FPS) == (0, 40)
    assert found.copyable(1, 40, FPS) == (key, 40)
    assert found.copyable(1, key, FPS) is None
    assert found.copyable(0, 40, Fraction(7)) is None
    first, end = found.copyable(0, 39, FPS) or (0, 0)
    assert first == 0
    assert 35 <= end <= 39


def test_a_file_of_sound_is_no_source(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"\0" * 1000)
    with pytest.raises(InvalidMedia):
        read_source(tmp_path / "a.mp4")
