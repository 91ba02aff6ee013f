from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kinoloom.jobs.naming import output_path, slug
from kinoloom.planner.plan import Plan

MakePlan = Callable[..., Plan]


@pytest.mark.parametrize(
    ("prompt", "name"),
    [
        ("A red ball, rolling to the right on grass!", "a-red-ball-rolling-to-the"),
        ("Café crème brûlée", "cafe-creme-brulee"),
        ("../../etc/passwd", "etc-passwd"),
        ("C:\\con.txt", "c-con-txt"),
        ("赤いボール", ""),
        ("  ...  ", ""),
        ("x" * 300, "x" * 60),
        ("a" * 59 + " bcd", "a" * 59),
    ],
)
def test_a_prompt_as_a_name(prompt: str, name: str) -> None:
    assert slug(prompt) == name


def test_a_clip_is_named_after_its_prompt_and_seed(make_plan: MakePlan, tmp_path: Path) -> None:
    assert output_path(make_plan(), tmp_path) == tmp_path / "a-red-ball-rolling-7.mp4"
    assert output_path(make_plan(format="gif"), tmp_path) == tmp_path / "a-red-ball-rolling-7.gif"
    assert output_path(make_plan(format="png"), tmp_path) == tmp_path / "a-red-ball-rolling-7"


def test_without_a_word_it_is_named_after_its_task(make_plan: MakePlan, tmp_path: Path) -> None:
    assert output_path(make_plan(prompt="赤いボール"), tmp_path).name == "t2v-7.mp4"


def test_a_taken_name_gets_a_number(make_plan: MakePlan, tmp_path: Path) -> None:
    names = []
    for _ in range(3):
        path = output_path(make_plan(), tmp_path)
        names.append(path.name)
        path.touch()
    assert names == [f"a-red-ball-rolling-7{n}.mp4" for n in ("", "-2", "-3")]


def test_a_taken_folder_of_frames_gets_a_number(make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(format="png")
    output_path(plan, tmp_path).mkdir()
    assert output_path(plan, tmp_path).name == "a-red-ball-rolling-7-2"


def test_a_name_that_was_given_is_taken_as_it_is(make_plan: MakePlan, tmp_path: Path) -> None:
    wanted = tmp_path / "there" / "mine.mp4"
    assert output_path(make_plan(output=wanted), tmp_path / "out") == wanted
    wanted.parent.mkdir()
    wanted.touch()
    assert output_path(make_plan(output=wanted), tmp_path / "out") == wanted


def test_in_a_folder_that_was_given_the_clip_has_its_own_name(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    (tmp_path / "a-red-ball-rolling-7.mp4").touch()
    path = output_path(make_plan(output=tmp_path), tmp_path / "out")
    assert path == tmp_path / "a-red-ball-rolling-7-2.mp4"


def test_a_folder_given_for_frames_is_the_sequence_itself(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    assert output_path(make_plan(output=tmp_path, format="png"), tmp_path / "out") == tmp_path


def test_a_name_too_long_for_the_disk_is_not_this_modules_error(
    make_plan: MakePlan, tmp_path: Path
) -> None:
    wanted = tmp_path / ("x" * 300)
    assert output_path(make_plan(output=wanted), tmp_path) == wanted
