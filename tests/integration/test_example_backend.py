"""Does a backend of another package work as docs/backends.md says, from its entry point on?"""

from __future__ import annotations

import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image

from kinoloom.backends.base import Inputs, Progress, Rendered, Take
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import Cancelled, InvalidMedia
from kinoloom.media.reader import read_video
from kinoloom.readiness import price_words

EXAMPLE = Path(__file__).parents[2] / "examples" / "panning"

Run = Callable[..., subprocess.CompletedProcess[str]]


def install(package: Path, site: Path) -> None:
    """Lay a package out as an installer does: its modules, and its metadata from pyproject.toml."""
    project = tomllib.loads((package / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module = project["name"].replace("-", "_")
    shutil.copytree(package / module, site / module, ignore=shutil.ignore_patterns("__pycache__"))
    info = site / f"{module}-{project['version']}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.4\nName: {project['name']}\nVersion: {project['version']}\n"
    )
    lines = []
    for group, entries in project["entry-points"].items():
        lines += [f"[{group}]", *(f"{name} = {value}" for name, value in entries.items())]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Run `kinoloom` in a process of its own that finds the example, as its user would."""
    install(EXAMPLE, tmp_path / "site")
    work = tmp_path / "work"
    work.mkdir()
    environment = {k: v for k, v in os.environ.items() if not k.startswith("KINOLOOM_")} | {
        "PYTHONPATH": str(tmp_path / "site"),
        "KINOLOOM_HOME": str(tmp_path / "home"),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "COLUMNS": "200",
    }

    def start(*arguments: object) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "kinoloom", *map(str, arguments)],
            cwd=work,
            env=environment,
            capture_output=True,
            encoding="utf-8",
            timeout=300,
            check=False,
        )

    return start


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """Red grows to the right, green downwards."""
    rows, columns = np.mgrid[0:360, 0:640]
    pixels = np.stack([columns * 255 // 640, rows * 255 // 360, np.full_like(rows, 90)], axis=-1)
    file = tmp_path / "picture.png"
    Image.fromarray(pixels.astype(np.uint8)).save(file)
    return file


def test_it_is_listed_with_its_model(run: Run) -> None:
    done = run("backends", "--json")
    assert done.returncode == 0, done.stderr
    rows = {row["name"]: row for row in json.loads(done.stdout)["backends"]}
    assert rows["panning"]["ready"], rows["panning"]["reasons"]
    assert rows["panning"]["models"] == ["panning"]
    assert rows["panning"]["prices"] == "free"
    assert not rows["panning"]["remote"]
    assert rows["local"]["name"] == "local"  # and it hides no other
    checked = run("models", "check", "panning")
    assert checked.returncode == 0, checked.stderr
    assert "panning runs on panning" in checked.stdout
    pulled = run("models", "pull", "panning")
    assert pulled.returncode == 0
    assert "nothing to download" in pulled.stdout


def test_it_makes_a_clip_from_the_command_line(run: Run, picture: Path, tmp_path: Path) -> None:
    output = tmp_path / "clip.mp4"
    options = ("--image", picture, "--frames", "24", "--size", "640x360", "--seed", "7")
    done = run("generate", "pan right", "--backend", "panning", *options, "-o", output, "--json")
    assert done.returncode == 0, done.stderr + done.stdout
    last = json.loads(done.stdout.splitlines()[-1])
    assert last["type"] == "success"
    assert (last["clip"]["backend"], last["clip"]["model"]) == ("panning", "panning")
    frames = read_video(output)[0]
    assert frames.shape == (24, 360, 640, 3)
    # The window goes right, where the picture has more red, and neither up nor down.
    first, end = (frames[n].reshape(-1, 3).mean(axis=0) for n in (0, -1))
    assert end[0] - first[0] > 20
    assert abs(end[1] - first[1]) < 3


def test_the_cards_of_the_documentation_are_right() -> None:
    text = (EXAMPLE.parents[1] / "docs" / "backends.md").read_text(encoding="utf-8")
    first, more = (yaml.safe_load(b) for b in re.findall(r"```yaml\n(.*?)```", text, re.DOTALL))
    assert ModelCard.model_validate(first).tasks == ("i2v",)
    card = ModelCard.model_validate(first | more)
    assert price_words(card) == "0.10 to 0.15 USD/s"


def test_words_alone_are_not_enough(run: Run) -> None:
    done = run("generate", "pan right", "--backend", "panning")
    assert done.returncode in (1, 2)
    assert "Traceback" not in done.stderr
    assert "error (" in done.stderr


def test_it_keeps_the_promises_of_a_renderer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(EXAMPLE, tmp_path / "site")
    monkeypatch.syspath_prepend(tmp_path / "site")
    backend = importlib.import_module("kinoloom_panning").PanningBackend(Settings(home=tmp_path))
    (card,) = backend.cards(Catalog.load())
    assert backend.readiness(card).ready
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    take = Take("i2v", "zoom in", "", 96, 64, 5, 24.0, 0, 0.0, 7, "cpu")
    told: list[Progress] = []

    def render(**changes: Any) -> Rendered:
        rendered = backend.render(replace(take, **changes), card, Inputs(image=image), told.append)
        assert isinstance(rendered, Rendered)
        return rendered

    one = render()
    assert one.frames.shape == (5, 64, 96, 3)
    assert one.frames.dtype == np.uint8
    assert [p.step for p in told if p.phase == "denoise"] == [1, 2, 3, 4, 5]
    # The window begins with all of the picture, and pixels that it shows whole are its own.
    np.testing.assert_array_equal(one.frames[0], image)
    np.testing.assert_array_equal(render().frames, one.frames)
    assert (render(seed=8).frames != one.frames).any()

    def stop(progress: Progress) -> None:
        raise Cancelled("stop")

    with pytest.raises(Cancelled):
        backend.render(take, card, Inputs(image=image), stop)
    with pytest.raises(InvalidMedia):
        backend.render(take, card, Inputs(), told.append)
