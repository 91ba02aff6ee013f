from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import BudgetExceeded, InvalidMedia
from kinoloom.film.board import ShotDefaults, ShotSpec, Storyboard, Transition
from kinoloom.film.making import Planner, ways_of
from kinoloom.film.plan import FilmPlan, There, plan_film
from kinoloom.planner import resolve
from kinoloom.planner.cost import Cost
from kinoloom.planner.inputs import Inputs
from kinoloom.planner.outlook import Machine
from kinoloom.planner.plan import Plan
from kinoloom.request import VideoRequest

_CATALOG = Catalog.load(Path("no-such-folder"))


@pytest.fixture
def planner(tmp_path: Path) -> Planner:
    """Plans for the shipped model on a processor."""
    settings = Settings(home=tmp_path / "home")

    def plan(request: VideoRequest, inputs: Inputs | None) -> Plan:
        return resolve.plan(
            request,
            catalog=_CATALOG,
            settings=settings,
            machine=Machine("cpu x1"),
            inputs=inputs,
        )

    return plan


@pytest.fixture
def paid(planner: Planner) -> Callable[[str | None], Planner]:
    """The same, but every clip costs as much; None is a price that nobody knows."""

    def costing(amount: str | None) -> Planner:
        cost = Cost(amount=None if amount is None else Decimal(amount), basis="a test")
        return lambda request, inputs: planner(request, inputs).model_copy(update={"cost": cost})

    return costing


def _board(*frames: int, mode: str = "chaining", **more: Any) -> Storyboard:
    shots = tuple(
        ShotSpec(id=f"s{n}", prompt="a red ball", frames=count) for n, count in enumerate(frames)
    )
    fields: dict[str, Any] = {"mode": mode, "model": "spark", "fps": 12, "seed": 3}
    return Storyboard(**{**fields, "defaults": ShotDefaults(steps=8), "shots": shots, **more})


def _plan(board: Storyboard, planner: Planner, **more: Any) -> FilmPlan:
    return plan_film(board, planner, _CATALOG.get, **more)


def test_a_chain_begins_with_words_and_goes_on_from_frames(planner: Planner) -> None:
    plan = _plan(_board(9, 8), planner)
    assert [(s.start, s.tasks, s.segments) for s in plan.shots] == [
        ("none", ("t2v",), (9,)),
        ("before", ("i2v",), (9,)),
    ]
    assert (plan.frames, plan.clips, plan.pictures) == (17, 2, 0)
    assert plan.cost.free
    assert FilmPlan.model_validate(plan.model_dump(mode="json")) == plan


def test_shots_between_keyframes_have_pictures_at_both_ends(planner: Planner) -> None:
    plan = _plan(_board(9, 8, 8, mode="keyframe"), planner)
    assert [(s.start, s.end, s.tasks) for s in plan.shots] == [
        ("made", "made", ("flf2v",)),
        ("made", "made", ("flf2v",)),
        ("made", "none", ("i2v",)),
    ]
    assert (plan.pictures, plan.clips) == (3, 6)


def test_a_crossfade_shares_no_picture(planner: Planner) -> None:
    board = _board(12, 12, mode="keyframe")
    fading = board.shots[1].model_copy(
        update={"transition": Transition(kind="crossfade", duration=0.5)}
    )
    plan = _plan(board.model_copy(update={"shots": (board.shots[0], fading)}), planner)
    assert plan.shots[0].end == "none"
    assert plan.frames == 18
    way = ways_of(board.model_copy(update={"shots": (board.shots[0], fading)}), planner, _get)[1]
    assert way.segments[0].skip == 0


def _get(model: str) -> Any:
    return _CATALOG.get(model)


def test_a_shot_longer_than_its_model_is_made_in_parts(planner: Planner) -> None:
    (way,) = ways_of(_board(100), planner, _get)
    assert way.tasks == ("t2v", "i2v", "i2v")
    assert sum(count for runs in way.shown() for _, count in runs) == 100
    assert [runs[0][0] for runs in way.shown()] == [0, 1, 1]


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 24, 48, 49, 50, 97, 98, 131])
@pytest.mark.parametrize("mode", ["chaining", "keyframe"])
def test_just_the_frames_of_the_storyboard_are_shown(
    planner: Planner, frames: int, mode: str
) -> None:
    for way in ways_of(_board(9, frames, 9, mode=mode), planner, _get):
        shown = sum(count for runs in way.shown() for _, count in runs)
        assert shown == way.shot.frames
        for segment, runs in zip(way.segments, way.shown(), strict=True):
            assert all(first + count <= segment.asked for first, count in runs)


def test_another_rate_is_resampled_to_the_frame(planner: Planner) -> None:
    (way,) = ways_of(_board(100, fps=24), planner, _get)
    assert way.rate == 12
    assert any("frames a second" in warning for warning in way.warnings)
    assert sum(count for runs in way.shown() for _, count in runs) == 100


def test_the_segments_of_a_take_have_seeds_and_pictures_of_their_own(planner: Planner) -> None:
    first, second, _ = (
        ways_of(_board(100), planner, _get)[0].request(
            number, seed=5, prompt="a cube", start=Path("before.png")
        )
        for number in range(3)
    )
    assert (first.seed, first.image, first.prompt) == (5, None, "a cube")
    assert (second.seed, second.image) == (6, Path("before.png"))


def test_what_is_there_costs_nothing(paid: Callable[[str | None], Planner]) -> None:
    plan = _plan(_board(9, 8), paid("0.25"), there={"s0": There(clips=1)})
    assert (plan.known, plan.clips, plan.reused) == (Decimal("0.25"), 1, 1)


def test_the_smaller_budget_counts(paid: Callable[[str | None], Planner]) -> None:
    board = _board(9, 8, budget=Decimal(1))
    plan = _plan(board, paid("0.50"), budget=Decimal(2))
    assert (plan.known, plan.budget, plan.fits) == (Decimal(1), Decimal(1), True)
    plan.check_budget()
    dear = _plan(board, paid("0.51"), budget=Decimal(2))
    with pytest.raises(BudgetExceeded, match="more than its budget") as told:
        dear.check_budget()
    assert told.value.details == {"budget": "1", "spent": "0", "asked": "1.02"}


def test_an_unknown_price_is_never_a_sum(paid: Callable[[str | None], Planner]) -> None:
    plan = _plan(_board(9, 8), paid(None))
    assert plan.cost.amount is None
    assert any("not known" in warning for warning in plan.warnings)


def test_a_picture_that_is_missing_is_told_before_anything_runs(
    planner: Planner, tmp_path: Path
) -> None:
    board = _board(9)
    shot = board.shots[0].model_copy(update={"start": tmp_path / "none.png"})
    with pytest.raises(InvalidMedia):
        _plan(board.model_copy(update={"shots": (shot,)}), planner)
