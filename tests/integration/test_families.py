"""Every family of models through the public API: tiny checkpoints in the real repositories' layout,
called as the packaged cards say, to a file that plays."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import kinoloom
from kinoloom.catalog.card import ModelCard
from kinoloom.clip import Clip
from kinoloom.config import load_settings
from kinoloom.errors import Cancelled
from kinoloom.jobs.planning import load_catalog
from kinoloom.jobs.progress import Event
from kinoloom.media.reader import probe
from kinoloom.media.writer import write_video
from kinoloom.request import Task

FAMILIES = (
    "wan",
    "skyreels",
    "hunyuan_video15",
    "framepack",
    "ltx",
    "ltx2",
    "animatediff",
    "svd",
    "stable_diffusion_xl",
    "flux",
)
WORDLESS = {"svd"}

Make = Callable[..., Clip]


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder with a family's cards and weights, written when it is first asked for."""
    written: dict[str, Path] = {}

    def folder_of(family: str) -> Path:
        if family not in written:
            folder = tmp_path_factory.mktemp(family)
            import_module(f"tiny_models.{family}").cards(folder)
            written[family] = folder
        return written[family]

    return folder_of


@pytest.fixture
def place(tmp_path: Path, one_thread: None, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's place with an empty store."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(tmp_path / "conf"))
    monkeypatch.setenv("KINOLOOM_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("KINOLOOM_OUTPUTS", str(tmp_path / "out"))
    monkeypatch.setenv("KINOLOOM_DEVICE", "cpu")
    return tmp_path


def picture(folder: Path, name: str, colour: tuple[int, int, int]) -> Path:
    """A picture with a colour and a slope, so that no encoder sees nothing."""
    file = folder / f"{name}.png"
    slope = np.linspace(0, 80, 96, dtype=np.uint8)[None, :, None].repeat(64, 0)
    Image.fromarray((np.full((64, 96, 3), colour, np.uint8) // 2 + slope).astype(np.uint8)).save(
        file
    )
    return file


def film(folder: Path, name: str, shade: int) -> Path:
    """A video of 24 frames in which a stripe moves."""
    file = folder / f"{name}.mp4"
    frames = np.full((24, 64, 96, 3), shade, np.uint8)
    for i, frame in enumerate(frames):
        frame[:, 3 * i : 3 * i + 8] = (250, 40, 40)
    write_video(file, frames, 12, format="mp4")
    return file


def inputs(folder: Path, task: Task, first: bool) -> dict[str, Any]:
    """What a task must be given; another picture for the second time."""
    colour = (220, 40, 40) if first else (30, 60, 230)
    name = "first" if first else "second"
    match task:
        case "i2v":
            return {"image": picture(folder, name, colour)}
        case "flf2v":
            return {
                "image": picture(folder, name, colour),
                "last_image": picture(folder, f"{name}-last", (40, 200, 40)),
            }
        case "extend":
            return {"video": film(folder, name, 40 if first else 200)}
        case "inpaint":
            mask = folder / "mask.png"
            Image.fromarray(np.hstack([np.full((64, 48), s, np.uint8) for s in (0, 255)])).save(
                mask
            )
            return {"video": film(folder, name, 40 if first else 200), "mask": mask}
        case "r2v":
            return {"references": [picture(folder, name, colour)]}
    return {}


def cards(folder: Path) -> list[ModelCard]:
    settings = load_settings(models=folder)
    catalog = load_catalog(settings)
    catalog.check()
    return [card for card in catalog if card.id.startswith("tiny-")]


@pytest.mark.parametrize("family", FAMILIES)
def test_every_task_of_a_family(
    family: str,
    checkpoints: Callable[[str], Path],
    place: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = checkpoints(family)
    monkeypatch.setenv("KINOLOOM_MODELS", str(folder))
    found = cards(folder)
    assert found
    for card in found:
        for task in card.tasks:
            drive(card, task, place, worded=family not in WORDLESS)


def drive(card: ModelCard, task: Task, place: Path, worded: bool) -> None:
    """One task from a plan to a file, and what must hold of it."""
    what = f"{card.id} {task}"
    options: dict[str, Any] = {"model": card.id, "seed": 7} | inputs(place, task, first=True)
    prompt = "a red ball on the grass" if worded else ""
    events: list[Event] = []
    clip = kinoloom.generate(prompt, on_progress=events.append, **options)
    info = probe(clip.path)
    plan = clip.record.plan
    assert clip.record.task == task, what
    assert (info.width, info.height, info.frames) == (plan["width"], plan["height"], plan["frames"])
    steps = [e.step for e in events if e.phase == "denoise"]
    total = {e.steps for e in events if e.phase == "denoise"}
    assert len(total) == 1, what
    assert steps == list(range(1, total.pop() + 1)), what
    assert any(e.preview is not None for e in events), what
    assert info.has_audio == card.audio, what
    assert clip.frames.std() > 1, f"{what}: nothing to see"

    anew = {"cache": "bypass"}
    again = kinoloom.generate(prompt, **options, **anew)  # its words come from the cache
    assert np.array_equal(again.frames, clip.frames), f"{what}: same seed, other frames"
    if worded:
        other = kinoloom.generate("a blue star at night", **options, **anew)
        assert not np.array_equal(other.frames, clip.frames), f"{what}: the prompt does nothing"
    changed = inputs(place, task, first=False)
    if changed:
        other = kinoloom.generate(prompt, **(options | changed), **anew)
        assert not np.array_equal(other.frames, clip.frames), f"{what}: the input does nothing"

    def stop(event: Event) -> None:
        if event.phase == "denoise":
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        kinoloom.generate(prompt, on_progress=stop, **options, **anew)
    after = kinoloom.generate(prompt, **options, **anew)
    assert np.array_equal(after.frames, clip.frames), f"{what}: a stopped run left something"
