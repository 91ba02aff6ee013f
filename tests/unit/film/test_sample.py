"""Tests of kinoloom.film.sample: the storyboard for newcomers loads, and explains every field."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kinoloom.errors import InvalidRequest
from kinoloom.film import board
from kinoloom.film.sample import sample
from kinoloom.film.shots import film_frames, shots_of
from kinoloom.film.storyboard import read_storyboard


@pytest.mark.parametrize(
    "title", ["Untitled", 'It\'s: "a" #film {', "- 1", "null", "日本語 \U0001f600"]
)
def test_it_loads_as_it_is(tmp_path: Path, title: str) -> None:
    file = tmp_path / "film.yaml"
    file.write_text(sample(title), encoding="utf-8")
    film = read_storyboard(file)
    assert film.title == title
    assert len(shots_of(film)) == len(film.shots) == 3


def test_it_loads_with_everything_in_force(tmp_path: Path) -> None:
    for name in (
        "first.png",
        "closer.png",
        "music.wav",
        "wind.wav",
        "mara-front.png",
        "mara-side.png",
    ):
        (tmp_path / name).write_bytes(b"not looked into")
    # A field behind a # is one that is not in force; `end` is for the other mode.
    text = re.sub(r"(?m)^( *)# ?(?= *[a-z_]+:( |$))", r"\1", sample())
    text = re.sub(r"(?m)^ *end:.*$", "", text)
    (tmp_path / "film.yaml").write_text(text, encoding="utf-8")
    film = read_storyboard(tmp_path / "film.yaml")
    assert film.size == (1280, 720)
    assert film.characters["mara"].trigger == "mara_v2"
    assert film.defaults.candidates == 2
    assert film.shots[2].audio is not None


DOCUMENTATION = (Path(__file__).parents[3] / "docs" / "films.md").read_text(encoding="utf-8")

PARTS = pytest.mark.parametrize(
    "part",
    [
        board.Storyboard,
        board.ShotDefaults,
        board.ShotSpec,
        board.Character,
        board.FilmAudio,
        board.ShotAudio,
        board.Transition,
    ],
)


@PARTS
def test_every_field_is_in_it(part: type[board.Part]) -> None:
    words = set(re.findall(r"[a-z_]+", sample()))
    assert set(part.model_fields) <= words


@PARTS
def test_every_field_is_in_the_documentation(part: type[board.Part]) -> None:
    words = set(re.findall(r"`([a-z_]+)`", DOCUMENTATION))
    assert set(part.model_fields) - {"kind"} <= words


def test_the_examples_of_the_documentation_load(tmp_path: Path) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", DOCUMENTATION, re.DOTALL)
    assert examples
    for text in examples:
        (tmp_path / "film.yaml").write_text(text, encoding="utf-8")
        assert shots_of(read_storyboard(tmp_path / "film.yaml"))


@pytest.mark.parametrize("title", ["", " ", "x" * 201, "a\x07b"])
def test_no_title(title: str) -> None:
    with pytest.raises(InvalidRequest):
        sample(title)


@pytest.mark.parametrize("mode", ["chaining", "keyframe"])
def test_the_examples_are_right(mode: str) -> None:
    folder = Path(__file__).parents[3] / "examples" / "films"
    board = read_storyboard(folder / f"{mode}.yaml")
    assert board.mode == mode
    assert len(board.shots) >= 6
    assert film_frames(shots_of(board)) == 144
