"""How do tests give commands of films, at a place of their own with a story?"""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from kinoloom import cli
from kinoloom.config import load_settings
from kinoloom.film_api import films_of
from kinoloom.store.films import FilmRecord

STORY = """\
title: Two balls
model: tiny
size: [64, 64]
fps: 8
seed: 3
shots:
  - {id: first, prompt: a red ball, frames: 9}
  - {id: second, prompt: a blue ball, frames: 9}
"""


def run(*arguments: object, text: str | None = None) -> Result:
    """Run a command; an exception that is no exit fails the test."""
    result = CliRunner().invoke(cli.app, ["film", *map(str, arguments)], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def place(folder: Path, cards: Path, patch: pytest.MonkeyPatch) -> None:
    """A user's place: a current folder, a store of its own, and the tiny model."""
    patch.chdir(folder)
    patch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(folder / "conf"))
    for name, value in {
        "KINOLOOM_HOME": folder / "home",
        "KINOLOOM_OUTPUTS": folder / "out",
        "KINOLOOM_MODELS": cards,
        "KINOLOOM_DEFAULT_MODEL": "tiny",
        "KINOLOOM_DEVICE": "cpu",
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
    }.items():
        patch.setenv(name, str(value))


def made_of(file: Path) -> FilmRecord:
    """The film of a file, as `render` would begin it."""
    from kinoloom.film.storyboard import read_storyboard

    with films_of(load_settings()) as (_, names):
        return names.made_of(file, read_storyboard(file))
