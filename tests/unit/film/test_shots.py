"""Tests of kinoloom.film.shots: what each shot inherits, and how many frames it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kinoloom.film.shots import film_frames, frames_in, shots_of
from kinoloom.film.storyboard import Storyboard, storyboard_of


def board(*shots: dict[str, Any], **film: Any) -> Storyboard:
    named = [{"prompt": "a", **shot} for shot in shots]
    return storyboard_of({"shots": named, **film}, media=lambda value: Path("/media") / str(value))


@pytest.mark.parametrize(
    ("seconds", "fps", "frames"),
    [
        (1, 24, 24),
        (2.5, 1, 3),  # half up, where round() would go to the even number
        (0.5, 1, 1),
        (1.5, 1, 2),
        (0.1, 25, 3),
        (0.29, 50, 15),  # 14.499999999999998 in floats
        (2.1, 12, 25),
        (1001, 23.976, 24000),  # an NTSC rate is 24000/1001
        (0.01, 1, 0),
    ],
)
def test_frames_in_seconds(seconds: float, fps: float, frames: int) -> None:
    assert frames_in(seconds, fps) == frames


def test_a_shot_has_at_least_one_frame() -> None:
    assert shots_of(board({"duration": 0.01}, fps=1))[0].frames == 1


def test_the_length_is_the_shots_own_or_the_defaults_or_five_seconds() -> None:
    film = board({}, {"duration": 1}, {"frames": 7}, fps=10, defaults={"frames": 33})
    assert [shot.frames for shot in shots_of(film)] == [33, 10, 7]
    assert shots_of(board({}, fps=10))[0].frames == 50


def test_shot_before_defaults_before_film() -> None:
    film = board(
        {"model": "m3", "tier": "premium", "negative": "", "guidance": 0, "steps": 0},
        {},
        model="m1",
        backend="b1",
        defaults={
            "model": "m2",
            "tier": "preview",
            "negative": "n",
            "guidance": 2,
            "candidates": 3,
        },
    )
    first, second = shots_of(film)
    assert (first.model, first.backend, first.tier) == ("m3", "b1", "premium")
    assert (first.negative, first.guidance, first.steps, first.candidates) == ("", 0, 0, 3)
    assert (second.model, second.backend, second.tier) == ("m2", "b1", "preview")
    assert (second.negative, second.guidance, second.steps) == ("n", 2, None)
    plain = shots_of(board({}))[0]
    assert (plain.model, plain.tier, plain.candidates, plain.size) == (None, "auto", 1, None)


def test_seeds() -> None:
    seeds = [shot.seed for shot in shots_of(board({}, {"seed": 99}, {}, seed=5))]
    assert seeds == [5, 99, 7]
    assert [s.seed for s in shots_of(board({}, {}))] == [None, None]
    assert [s.seed for s in shots_of(board({}, {}, seed=5, defaults={"seed": 1}))] == [1, 1]
    assert [s.seed for s in shots_of(board({}, {}, seed=2**63 - 1))] == [2**63 - 1, 0]


def test_characters_go_before_the_prompt_once() -> None:
    film = board(
        {"prompt": "Mara waits."},
        {"prompt": "MARA_V2 and a woman in red. walk", "characters": ["mara", "mara", "tom"]},
        {"characters": []},
        defaults={"characters": ["mara"]},
        characters={
            "mara": {
                "trigger": "mara_v2",
                "description": "A woman in red.",
                "references": ["a", "b"],
            },
            "tom": {"description": "戴帽子的人。", "references": ["b", "c"]},
        },
    )
    first, second, third = shots_of(film)
    assert first.prompt == "mara_v2. A woman in red. Mara waits."
    assert second.prompt == "戴帽子的人。 MARA_V2 and a woman in red. walk"
    assert second.references == (Path("/media/a"), Path("/media/b"), Path("/media/c"))
    assert (third.prompt, third.references) == ("a", ())


def test_two_characters_with_one_trigger() -> None:
    people = {n: {"trigger": "duo", "description": n * 5} for n in ("x", "y")}
    shot = shots_of(board({"characters": ["x", "y"]}, characters=people))[0]
    assert shot.prompt == "duo. xxxxx. yyyyy. a"


def test_transitions_and_their_overlap() -> None:
    fade = {"kind": "fade", "duration": 1}
    film = board(
        {"frames": 40},
        {"frames": 40},
        {"frames": 40, "transition": fade},
        {"frames": 40, "transition": "cut"},
        fps=10,
        defaults={"transition": {"kind": "crossfade", "duration": 0.75}},
    )
    shots = shots_of(film)
    assert [shot.transition.kind for shot in shots] == ["cut", "crossfade", "fade", "cut"]
    assert [shot.overlap for shot in shots] == [0, 8, 0, 0]
    assert film_frames(shots) == 160 - 8


def test_a_film_may_open_from_black() -> None:
    film = board({"frames": 40, "transition": "fade"}, fps=10)
    shots = shots_of(film)
    assert (shots[0].transition.kind, film_frames(shots)) == ("fade", 40)


def test_pictures_at_a_cut_belong_to_both_shots() -> None:
    film = board(
        {"start": "0", "frames": 48},
        {"keyframe": "1", "end": "2", "frames": 48},
        {"frames": 48},
        {"keyframe": "3", "transition": "crossfade", "frames": 48, "end": "4"},
        {"transition": "fade", "frames": 48},
        mode="keyframe",
    )
    found = [(s.start and s.start.name, s.end and s.end.name) for s in shots_of(film)]
    assert found == [("0", "1"), ("1", "2"), ("2", None), ("3", "4"), (None, None)]


def test_chaining_leaves_the_end_open() -> None:
    film = board({"start": "0"}, {"keyframe": "1"}, {})
    found = [(s.start and s.start.name, s.end) for s in shots_of(film)]
    assert found == [("0", None), ("1", None), (None, None)]


@given(
    st.lists(st.integers(2, 300), min_size=1, max_size=12),
    st.sampled_from([12, 23.976, 24, 25, 29.97, 60]),
    st.data(),
)
def test_the_film_is_as_long_as_its_shots_less_its_overlaps(
    lengths: list[int], fps: float, data: st.DataObject
) -> None:
    shots: list[dict[str, Any]] = []
    overlaps = 0
    for index, frames in enumerate(lengths):
        shot: dict[str, Any] = {"frames": frames}
        if index:
            overlap = data.draw(st.integers(1, min(frames, lengths[index - 1]) // 2))
            if data.draw(st.booleans()):
                overlaps += overlap
                seconds = round(overlap / fps, 6)
                shot["transition"] = {"kind": "crossfade", "duration": seconds}
        shots.append(shot)
    resolved = shots_of(board(*shots, fps=fps))
    assert [shot.frames for shot in resolved] == lengths
    assert film_frames(resolved) == sum(lengths) - overlaps
