from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import kinoloom as package
from kinoloom import cli
from kinoloom.backends.local import loader
from kinoloom.clip import Clip
from kinoloom.errors import InvalidRequest
from kinoloom.media.reader import probe
from kinoloom.request import VideoRequest
from within import Within

pytestmark = pytest.mark.usefixtures("studio")


@pytest.fixture(autouse=True)
def within(monkeypatch: pytest.MonkeyPatch) -> None:
    """Render in this process."""
    monkeypatch.setattr("kinoloom.jobs.here.RenderProcess", Within)


Batch = Callable[..., Result]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    file = tmp_path / "prompts.txt"
    file.write_text("a red ball\n# a remark\n\na blue square\n")
    return file


@pytest.fixture
def batch() -> Batch:
    """Run `kinoloom batch`; an exception that is no exit fails the test."""

    def run(*arguments: object, text: str | None = None) -> Result:
        result = CliRunner().invoke(cli.app, ["batch", *map(str, arguments)], input=text)
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line, parse_constant=pytest.fail) for line in result.stdout.splitlines()]


def test_a_video_of_each_prompt(batch: Batch, prompts: Path, studio: Path) -> None:
    result = batch(prompts, "--seed", 7, "--quiet")
    assert (result.exit_code, result.stderr) == (0, "")
    names = [studio / "out" / f"{stem}-7.mp4" for stem in ("a-red-ball", "a-blue-square")]
    assert result.stdout.splitlines() == [str(name) for name in names]
    assert {probe(name).frames for name in names} == {9}


def test_standard_input_a_folder_and_a_format(batch: Batch, studio: Path) -> None:
    result = batch("-", "-o", "new/takes", "--format", "gif", "--seed", 7, "-q", text="a ball\n")
    assert result.stdout == f"{studio / 'new' / 'takes' / 'a-ball-7.gif'}\n"


def test_every_line_of_json_is_json(batch: Batch, prompts: Path) -> None:
    events = lines(batch(prompts, "--json", "--steps", 1))
    kinds = [e["type"] for e in events if e["type"] not in ("progress", "preview")]
    assert kinds == ["plan", "success", "plan", "success"]
    clips = [e["clip"] for e in events if e["type"] == "success"]
    assert [c["request"]["prompt"] for c in clips] == ["a red ball", "a blue square"]
    assert {c["plan"]["steps"] for c in clips} == {1}


def test_the_model_is_loaded_once(
    batch: Batch, prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads: list[str] = []
    load = loader.load

    def counting(card: Any, *args: Any, **options: Any) -> Any:
        loads.append("words" if options.get("only") else "render")
        return load(card, *args, **options)

    monkeypatch.setattr(loader, "load", counting)
    assert batch(prompts, "--steps", 1).exit_code == 0
    assert sorted(loads) == ["render", "words"]


def test_all_are_checked_before_the_first_is_rendered(
    batch: Batch, tmp_path: Path, studio: Path
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a red ball\n" + "x" * 2001 + "\n")
    result = batch(file, "--json")
    assert result.exit_code == 2
    assert [e["type"] for e in lines(result)] == ["error"]
    assert not (studio / "out").exists()


def test_a_file_that_is_no_list_and_a_folder_that_is_none(
    batch: Batch, tmp_path: Path, prompts: Path
) -> None:
    result = batch(tmp_path / "none.txt", "--json")
    assert result.exit_code == 1
    assert lines(result)[-1]["error"]["kind"] == "invalid_media"
    (tmp_path / "file").touch()
    result = batch(prompts, "--json", "-o", tmp_path / "file")
    assert result.exit_code == 1
    assert lines(result)[-1]["error"]["kind"] == "output_failed"


def test_several_clips_from_a_program() -> None:
    given = ["a red ball", VideoRequest.checked(prompt="a blue square", steps=3)]
    made: list[Clip] = list(package.generate_many(given, seed=7))
    assert [clip.record.prompt for clip in made] == ["a red ball", "a blue square"]
    assert [clip.seed for clip in made] == [7, 7]
    assert made[1].record.plan["steps"] == 3
    again = list(package.generate_many(given, seed=7))
    assert all(clip.reused for clip in again)
    assert [clip.path for clip in again] == [clip.path for clip in made]


def test_a_wrong_one_among_several_is_told_before_the_first_is_made(studio: Path) -> None:
    with pytest.raises(InvalidRequest):
        package.generate_many(["a red ball", ""], seed=7)
    assert not (studio / "out").exists()
