from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinoloom.backends.base import Audio
from kinoloom.config import Settings
from kinoloom.errors import Cancelled
from kinoloom.jobs.commands import Commands
from kinoloom.jobs.frames_file import save_audio, save_frames
from kinoloom.media.reader import probe
from kinoloom.planner.plan import Plan

MakePlan = Callable[..., Plan]


@pytest.fixture
def rendered(make_plan: MakePlan, tmp_path: Path) -> dict[str, Any]:
    """The arguments of an encoding of what a render left: moving frames, and a tone."""
    plan = make_plan()
    rows = np.arange(64, dtype=np.uint8)[:, None, None]
    frames = [np.broadcast_to((rows + 8 * n) % 250, (64, 64, 3)) for n in range(plan.frames)]
    save_frames(tmp_path / "take-0.npy", np.stack(frames).astype(np.uint8))
    tone = 0.5 * np.sin(np.arange(48_000, dtype=np.float32) / 20)[None]
    save_audio(tmp_path / "take-0.npz", Audio(tone, 48_000))
    return {
        "plan": plan.model_dump(mode="json"),
        "frames": str(tmp_path / "take-0.npy"),
        "audio": str(tmp_path / "take-0.npz"),
        "target": str(tmp_path / "clip.mp4"),
        "settings": {"clip": "a-clip"},
        "format": "mp4",
    }


@pytest.fixture
def commands(tmp_path: Path) -> Callable[..., Commands]:
    """A function (what is told, whether to stop) -> the commands of a child."""
    settings = Settings(home=tmp_path / "home")

    def made(told: list[dict[str, Any]], stopping: Callable[[], bool] = lambda: False) -> Commands:
        return Commands(settings, told.append, stopping)

    return made


def test_the_sound_of_a_take_is_in_its_file(
    commands: Callable[..., Commands], rendered: dict[str, Any]
) -> None:
    commands([]).run("encode", rendered)
    assert probe(rendered["target"]).has_audio
    silent = rendered | {"audio": None}
    commands([]).run("encode", silent)
    assert not probe(rendered["target"]).has_audio


def test_stopped_while_it_is_encoded_nothing_is_left(
    commands: Callable[..., Commands], rendered: dict[str, Any], tmp_path: Path
) -> None:
    before = sorted(tmp_path.iterdir())
    told: list[dict[str, Any]] = []
    with pytest.raises(Cancelled):
        commands(told, lambda: bool(told)).run("encode", rendered)
    assert [message["step"] for message in told] == [1]
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["encode", "score", "poster"])
def test_a_command_that_is_to_stop_before_it_begins_does_nothing(
    commands: Callable[..., Commands], rendered: dict[str, Any], name: str
) -> None:
    with pytest.raises(Cancelled):
        commands([], lambda: True).run(name, rendered | {"fps": 12})
    assert not Path(rendered["target"]).exists()


def test_scoring_stops_at_any_frame(
    commands: Callable[..., Commands], rendered: dict[str, Any]
) -> None:
    asked: list[int] = []

    def stopping() -> bool:
        asked.append(1)
        return len(asked) > 5

    arguments = {"frames": rendered["frames"], "fps": 12}
    with pytest.raises(Cancelled):
        commands([], stopping).run("score", arguments)
    assert len(asked) == 6
    assert commands([]).run("score", arguments)["scores"]["overall"] > 0
