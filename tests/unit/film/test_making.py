"""Tests of kinoloom.film.making: what goes on from what, and that no frame is lost or doubled."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinoloom.catalog.card import FrameRule, ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest
from kinoloom.film.board import Mode, ShotSpec, Storyboard, Transition
from kinoloom.film.making import Planner, Way, ways_of
from kinoloom.media.rates import exact_rate
from kinoloom.planner import resolve
from kinoloom.planner.inputs import Inputs
from kinoloom.planner.outlook import Machine
from kinoloom.planner.plan import Plan
from kinoloom.planner.snap import context_for
from kinoloom.request import VideoRequest

LTX = "ltx-video-2b-0.9.5"
_CATALOG = Catalog.load(Path("no-such-folder"))
_SPARK = _CATALOG.get("spark")


def _small(rule: FrameRule, context: int) -> ModelCard:
    """A model of spark's kind with another rule of lengths and another context."""
    assert _SPARK.extend is not None
    extend = _SPARK.extend.model_copy(update={"context_frames": context, "chains": True})
    return _SPARK.model_copy(update={"frames": rule, "extend": extend})


@pytest.fixture(scope="module")
def planner(tmp_path_factory: pytest.TempPathFactory) -> Planner:
    """Plans for the shipped models on a processor."""
    home = Settings(home=tmp_path_factory.mktemp("home"))

    def plan(request: VideoRequest, inputs: Inputs | None) -> Plan:
        return resolve.plan(
            request, catalog=_CATALOG, settings=home, machine=Machine("cpu x1"), inputs=inputs
        )

    return plan


def _board(*frames: int, mode: Mode = "chaining", **more: Any) -> Storyboard:
    shots = tuple(
        ShotSpec(id=f"s{n}", prompt="a red ball", frames=count) for n, count in enumerate(frames)
    )
    return Storyboard(**{"mode": mode, "model": LTX, "fps": 24, "seed": 3, "shots": shots, **more})


def _changed(board: Storyboard, index: int, **fields: Any) -> Storyboard:
    shots = list(board.shots)
    shots[index] = shots[index].model_copy(update=fields)
    return board.model_copy(update={"shots": tuple(shots)})


Making = Callable[[Storyboard], tuple[Way, ...]]


@pytest.fixture
def made(planner: Planner) -> Making:
    return lambda board: ways_of(board, planner, _CATALOG.get)


def test_a_chain_goes_on_from_several_frames_where_the_model_takes_them(made: Making) -> None:
    first, second, third = made(_board(60, 40, 40))
    assert (first.tasks, first.segments[0].skip) == (("t2v",), 0)
    for way in (second, third):
        assert (way.tasks, way.context(0)) == (("extend",), 17)
        assert [(s.asked, s.skip, s.trim) for s in way.segments] == [(57, 17, 0)]
        assert way.shown() == (((17, 40),),)


def test_it_goes_on_from_fewer_where_the_film_shows_no_more(made: Making) -> None:
    ways = made(_board(60, 12, 8, 40))
    assert [way.tasks for way in ways] == [("t2v",), ("extend",), ("extend",), ("i2v",)]
    assert [way.context(0) for way in ways] == [0, 17, 9, 1]


@pytest.mark.parametrize("kind", ["crossfade", "fade"])
def test_what_does_not_follow_at_once_begins_with_a_picture(made: Making, kind: Any) -> None:
    board = _changed(_board(60, 40), 1, transition=Transition(kind=kind, duration=0.5))
    _, way = made(board)
    assert (way.tasks, way.context(0), way.segments[0].skip) == (("i2v",), 1, 0)


def test_a_picture_of_the_user_s_begins_anew(made: Making, tmp_path: Path) -> None:
    *_, way = made(_changed(_board(60, 40), 1, keyframe=tmp_path / "mine.png"))
    assert (way.start, way.tasks, way.goes_on) == ("given", ("i2v",), False)


def test_another_rate_before_it_leaves_the_picture(made: Making) -> None:
    ways = made(_changed(_board(60, 40, size=(256, 160)), 0, model="spark"))
    assert [way.rate for way in ways] == [12, 24]
    assert ways[1].tasks == ("i2v",)


def test_a_model_without_the_task_goes_on_from_a_picture(made: Making) -> None:
    ways = made(_board(60, 40, model="ltx-2"))
    assert "extend" not in {task for way in ways for task in way.tasks}


def test_a_card_may_say_that_one_picture_is_better(planner: Planner) -> None:
    card = _CATALOG.get(LTX)
    assert card.extend is not None
    extend = card.extend.model_copy(update={"chains": False})
    kept = card.model_copy(update={"extend": extend})
    ways = ways_of(_board(60, 40), planner, lambda _model: kept)
    assert [way.tasks for way in ways] == [("t2v",), ("i2v",)]


def test_the_parts_of_a_long_shot_go_on_alike_in_both_modes(made: Making) -> None:
    (chained,) = made(_board(600))
    assert chained.tasks == ("t2v", "extend", "extend")
    assert [segment.skip for segment in chained.segments] == [0, 17, 17]


def test_a_fixed_last_picture_takes_a_picture_at_its_other_end(
    made: Making, tmp_path: Path
) -> None:
    board = _changed(_board(600, mode="keyframe"), 0, start=tmp_path / "a", end=tmp_path / "b")
    (way,) = made(board)
    assert way.tasks == ("i2v", "extend", "flf2v")
    assert [segment.skip for segment in way.segments] == [0, 17, 1]
    assert way.segments[-1].taken[-1] == way.segments[-1].asked - 1
    assert sum(segment.frames for segment in way.segments) == 600


def test_what_is_kept_is_what_the_model_itself_would_go_on_from(made: Making) -> None:
    assert [way.kept(0) for way in made(_board(60, 12, 8))] == [17, 9, 1]
    assert made(_board(49, model="spark", fps=12))[0].kept(0) == 1


def test_what_is_asked_for_is_the_video_of_the_frames_before(
    made: Making, planner: Planner, tmp_path: Path
) -> None:
    _, way = made(_board(60, 40))
    asked = way.request(0, seed=5, prompt="on", start=tmp_path / "before")
    assert (asked.task, asked.video, asked.image) == ("extend", tmp_path / "before", None)
    plan = planner(asked, way.pending(0))
    # Planning changes nothing of it, so the film's length stands.
    assert (plan.frames, plan.context_frames, plan.fps) == (57, 17, 24)
    assert not plan.adjustments


rules = st.builds(
    lambda multiple, offset, low, more: (multiple, offset, max(low, int(not offset)), more),
    st.integers(1, 12),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(1, 12),
).map(
    lambda r: FrameRule(
        multiple=r[0],
        offset=r[1],
        minimum=r[1] + r[0] * r[2],
        maximum=r[1] + r[0] * (r[2] + r[3]),
        default=r[1] + r[0] * r[2],
    )
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.integers(1, 120), min_size=1, max_size=4),
    rules.filter(lambda rule: rule.maximum > 2),
    st.integers(2, 40),
    st.sampled_from([12, 12, 12, 10, 16, 18, 23.976, 24, 25]),
)
def test_every_frame_of_the_storyboard_is_there_once(
    planner: Planner, frames: list[int], rule: FrameRule, context: int, fps: float
) -> None:
    context = context_for(rule.maximum - 1, max(context, rule.minimum), rule)
    card = _small(rule, context)
    before = None
    for way in ways_of(_board(*frames, model="spark", fps=fps), planner, lambda _model: card):
        _check_lengths(way, fps)
        for number, segment in enumerate(way.segments):
            if way.tasks[number] != "extend":
                assert segment.skip == (way.context(number) if number or before else 0)
                continue
            # Frames that the film shows of the segment before, as many as the model takes.
            earlier, last = (way, number - 1) if number else (before, -1)
            assert earlier is not None
            assert 1 < segment.skip <= min(context, earlier.ending(last))
            assert rule.allows(segment.skip)
            # The planner sees the same numbers.
            assert context_for(segment.skip, context, rule) == segment.skip
        before = way


def _check_lengths(way: Way, fps: float) -> None:
    """The film has the shot's frames, and every one of them is in its clip."""
    shown = way.shown()
    assert sum(count for runs in shown for _, count in runs) == way.shot.frames
    scale = exact_rate(fps) / exact_rate(way.rate)
    for segment, runs in zip(way.segments, shown, strict=True):
        there = math.ceil(segment.asked * scale - Fraction(1, 2))  # as `stitch.source` counts
        assert all(first + count <= there for first, count in runs)
        if scale == 1:
            assert runs[0][0] == segment.skip


def test_clips_that_are_shorter_than_a_frame_of_the_film_are_a_mistake(planner: Planner) -> None:
    rule = FrameRule(multiple=1, offset=0, minimum=1, maximum=4, default=4)
    with pytest.raises(InvalidRequest) as caught:
        ways_of(_board(5, 5, model="spark", fps=1), planner, lambda _model: _small(rule, 2))
    assert [problem.field for problem in caught.value.problems] == ["fps"]
