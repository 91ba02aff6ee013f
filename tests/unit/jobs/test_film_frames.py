"""Tests of what a film hands from clip to clip, from rendered frames to what a model is shown."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.film.colour import match_colour, match_colours
from kinoloom.jobs.commands import Commands
from kinoloom.jobs.frames_file import save_frames
from kinoloom.jobs.media import read_inputs
from kinoloom.media.images import load_image, save_png
from kinoloom.media.reader import probe, read_frames
from kinoloom.media.writer import write_video
from kinoloom.planner import resolve
from kinoloom.planner.outlook import Machine
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest

Run = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Has a child's command carried out here."""
    commands = Commands(Settings(home=tmp_path / "home"), lambda _message: None, lambda: False)
    return lambda name, **arguments: commands.run(name, arguments)


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """A square that moves over noise, as spark makes clips: 25 frames of 256x160."""
    random = np.random.default_rng(3)
    clip = np.repeat(random.integers(60, 120, (1, 160, 256, 3), dtype=np.uint8), 25, axis=0)
    for number, frame in enumerate(clip):
        frame[40:90, 6 * number : 6 * number + 50] = (230, 9 * number, 20)
    return clip


@pytest.fixture
def rendered(frames: np.ndarray, tmp_path: Path) -> Path:
    save_frames(tmp_path / "asset", frames)  # assets have no suffix
    return tmp_path / "asset"


def _kept(
    run: Run, source: Path, target: Path, *, shown: int, count: int, streamed: int | None = None
) -> Path:
    of = {"frames": str(source), "streamed": streamed, "fps": 12}
    run("boundary", **of, target=str(target), shown=shown, count=count)
    return target


def _planned(tmp_path: Path, **media: Path) -> Plan:
    request = VideoRequest(prompt="a red ball", model="spark", frames=25, seed=1, **media)
    return resolve.plan(
        request,
        catalog=Catalog.load(Path("no-such-folder")),
        settings=Settings(home=tmp_path / "home"),
        machine=Machine("cpu x1"),
    )


@pytest.mark.parametrize(("shown", "count"), [(25, 9), (20, 9), (9, 9)])
def test_the_model_is_shown_the_very_frames_that_were_generated(
    run: Run, rendered: Path, frames: np.ndarray, tmp_path: Path, shown: int, count: int
) -> None:
    plan = _planned(tmp_path, video=_kept(run, rendered, tmp_path / "b", shown=shown, count=count))
    assert (plan.task, plan.context_frames) == ("extend", count)
    assert not plan.warnings
    given = read_inputs(plan).video
    assert given is not None
    assert np.array_equal(given, frames[shown - count : shown])


def test_or_the_last_one_of_them(
    run: Run, rendered: Path, frames: np.ndarray, tmp_path: Path
) -> None:
    plan = _planned(tmp_path, image=_kept(run, rendered, tmp_path / "b", shown=20, count=1))
    given = read_inputs(plan).image
    assert given is not None
    assert np.array_equal(given, frames[19])


def test_fewer_are_taken_of_what_was_kept(
    run: Run, rendered: Path, frames: np.ndarray, tmp_path: Path
) -> None:
    nine = _kept(run, rendered, tmp_path / "nine", shown=20, count=9)
    one = _kept(run, nine, tmp_path / "one", shown=9, count=1, streamed=9)
    assert np.array_equal(load_image(one), frames[19])


def test_of_a_service_s_video_they_are_what_it_decodes_to(
    run: Run, frames: np.ndarray, tmp_path: Path
) -> None:
    write_video(tmp_path / "clip.mp4", frames, 12, format="mp4")
    kept = _kept(run, tmp_path / "clip.mp4", tmp_path / "b", shown=20, count=9, streamed=25)
    whole = list(read_frames(tmp_path / "clip.mp4"))
    assert np.array_equal(list(read_frames(kept)), whole[11:20])


def test_what_has_not_drifted_is_the_same_file_afterwards(
    run: Run, rendered: Path, frames: np.ndarray, tmp_path: Path
) -> None:
    save_png(tmp_path / "anchor", frames[19])
    for count in (1, 9):
        kept = _kept(run, rendered, tmp_path / "kept", shown=20, count=count)
        places = {"frames": str(kept), "anchor": str(tmp_path / "anchor")}
        run("match", **places, target=str(tmp_path / "matched"), video=count > 1)
        assert (tmp_path / "matched").read_bytes() == kept.read_bytes()


def test_all_of_them_get_the_colours_by_the_change_that_the_last_one_needs(
    run: Run, frames: np.ndarray, tmp_path: Path
) -> None:
    # Ever redder: a change for each frame would take out of each what its own colours are off by.
    red = np.arange(25)[:, None, None] * np.array([0.4, 0, 0])
    drifted = np.clip(frames + red[:, None], 0, 255).astype(np.uint8)
    save_frames(tmp_path / "take-0.npy", drifted)
    save_png(tmp_path / "anchor", frames[0])
    kept = _kept(run, tmp_path / "take-0.npy", tmp_path / "kept", shown=25, count=9)
    places = {"frames": str(kept), "anchor": str(tmp_path / "anchor")}
    run("match", **places, target=str(tmp_path / "matched"), video=True)
    matched = list(read_frames(tmp_path / "matched"))
    assert probe(tmp_path / "matched").fps == 12
    assert np.array_equal(matched, match_colours(drifted[16:], frames[0]))
    assert np.array_equal(matched[-1], match_colour(drifted[24], frames[0]))
    assert not np.array_equal(matched[0], match_colour(drifted[16], frames[0]))
    assert not np.array_equal(matched[-1], drifted[24])
