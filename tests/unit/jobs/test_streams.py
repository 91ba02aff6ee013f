"""What a child does with a video that a service made, frame by frame."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kinoloom.config import Settings
from kinoloom.errors import Cancelled
from kinoloom.jobs.commands import Commands
from kinoloom.jobs.streams import score_video
from kinoloom.media.reader import probe, read_frames
from kinoloom.media.settings import read_settings
from kinoloom.media.writer import AudioTrack, write_video

FRAMES = 24


@pytest.fixture
def arguments(make_plan: Any, tmp_path: Path) -> dict[str, Any]:
    """Of an encoding of a video with sound."""
    source = tmp_path / "video"
    rows = np.arange(64, dtype=np.uint8)[:, None, None]
    frames = [np.broadcast_to((rows + 8 * n) % 250, (64, 96, 3)) for n in range(FRAMES)]
    tone = AudioTrack(0.5 * np.sin(np.arange(48_000, dtype=np.float32) / 20)[None], 48_000)
    write_video(source, np.stack(frames).astype(np.uint8), 24, format="mp4", audio=tone)
    return {
        "plan": make_plan().model_dump(mode="json"),
        "frames": str(source),
        "streamed": FRAMES,
        "fps": 24.0,
        "audio": None,
        "target": str(tmp_path / "clip.mp4"),
        "settings": {"clip": "a-clip"},
        "format": "mp4",
    }


@pytest.fixture
def commands(tmp_path: Path) -> Commands:
    return Commands(Settings(home=tmp_path / "home"), lambda _: None, lambda: False)


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif", "png"])
def test_each_format_has_every_frame_and_our_settings(
    commands: Commands, arguments: dict[str, Any], tmp_path: Path, kind: str
) -> None:
    target = tmp_path / ("clip" if kind == "png" else f"clip.{kind}")
    commands.run("encode", arguments | {"format": kind, "target": str(target)})
    info = probe(target)
    assert (info.width, info.height, info.frames) == (96, 64, FRAMES)
    assert info.has_audio == (kind in ("mp4", "webm"))
    assert (read_settings(target) or {})["clip"] == "a-clip"


def test_an_mp4_is_copied_and_not_encoded_again(
    commands: Commands, arguments: dict[str, Any]
) -> None:
    commands.run("encode", arguments)
    pairs = zip(read_frames(arguments["frames"]), read_frames(arguments["target"]), strict=True)
    assert all(np.array_equal(one, other) for one, other in pairs)


def test_a_video_is_scored_and_has_a_poster(
    commands: Commands, arguments: dict[str, Any], tmp_path: Path
) -> None:
    scores = commands.run("score", arguments)["scores"]
    assert 0 < scores["overall"] <= 1
    picture = tmp_path / "poster.png"
    commands.run("poster", arguments | {"target": str(picture)})
    assert Image.open(picture).size == (96, 64)


@pytest.mark.parametrize("name", ["score", "encode", "poster"])
def test_each_stops_when_it_is_told_to(
    arguments: dict[str, Any], tmp_path: Path, name: str
) -> None:
    asked: list[int] = []

    def stopping() -> bool:
        asked.append(1)
        return len(asked) > 1

    commands = Commands(Settings(home=tmp_path / "home"), lambda _: None, stopping)
    with pytest.raises(Cancelled):
        commands.run(name, arguments)
    assert not Path(arguments["target"]).exists()


def test_a_long_video_takes_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    def peak(frames: int) -> int:
        file = tmp_path / f"{frames}.mp4"
        still = np.full((360, 640, 3), 90, np.uint8)
        write_video(file, (still for _ in range(frames)), 24, format="mp4")
        tracemalloc.start()
        score_video(file, 24, frames, lambda: None)
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    peak(4)  # what is loaded once
    assert peak(96) < 1.5 * peak(12)


def test_pictures_are_written_at_the_size_of_the_clip(
    commands: Commands, make_plan: Any, tmp_path: Path
) -> None:
    Image.new("RGB", (200, 100), "red").save(tmp_path / "a.jpg")
    plan = make_plan(image=tmp_path / "a.jpg")
    given = {
        "plan": plan.model_dump(mode="json"),
        "inputs": {"image": str(tmp_path / "a.jpg")},
        "folder": str(tmp_path),
    }
    answer = commands.run("fit", given)["inputs"]
    assert Image.open(answer["image"]).size == (plan.width, plan.height)
    assert Image.open(answer["image"]).format == "PNG"
