from __future__ import annotations

import json

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinoloom.errors import InvalidMedia
from kinoloom.quality.seam import RETAKE_BELOW, WINDOW, SeamScore, seam_score

Clip = np.ndarray
JOIN = 12


@pytest.fixture(scope="module")
def before(clips: dict[str, Clip]) -> Clip:
    return clips["clean"][:JOIN]


@pytest.fixture(scope="module")
def after(clips: dict[str, Clip]) -> Clip:
    return clips["clean"][JOIN:]


def as_bytes(values: Clip) -> Clip:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def brighter(clip: Clip, percent: float) -> Clip:
    return as_bytes(clip * (1 + percent / 100))


def worst(score: SeamScore) -> str:
    parts = {name: getattr(score, name) for name in ("match", "colour", "motion", "fresh")}
    return min(parts, key=parts.__getitem__)


@pytest.mark.parametrize("place", [1, 2, 5, 12, 18, 23, 24])
def test_a_join_that_is_none_is_not_seen(clips: dict[str, Clip], place: int) -> None:
    score = seam_score(clips["clean"][:place], clips["clean"][place:])
    assert score.overall > 0.8
    assert score.notes == ()


def test_a_still_scene_has_no_seam(before: Clip) -> None:
    still = np.repeat(before[:1], 6, axis=0)
    assert seam_score(still, still).overall == 1


def test_a_still_scene_with_the_noise_of_encoding_has_no_seam(before: Clip) -> None:
    random = np.random.default_rng(0)
    still = as_bytes(before[:1] + random.normal(0, 1, (8, *before.shape[1:])))
    assert seam_score(still[:4], still[4:]).overall > 0.9


def test_a_cut_is_seen(before: Clip, after: Clip) -> None:
    for other in (after[:, ::-1, ::-1], after[:, :, ::-1], 255 - after, np.zeros_like(after)):
        score = seam_score(before, other)
        assert score.overall < 0.3
        assert score.match < 0.3
        assert any("jumps" in note for note in score.notes)


def test_a_jump_of_the_colours_is_seen(before: Clip, after: Clip) -> None:
    score = seam_score(before, brighter(after, 5))
    assert score.overall < RETAKE_BELOW
    assert any("brightness" in note for note in score.notes)
    warmer = seam_score(before, as_bytes(after + np.array([10, 0, -10])))
    assert warmer.overall < RETAKE_BELOW
    assert worst(warmer) == "colour"


def test_a_frame_that_is_shown_twice_is_seen(before: Clip, after: Clip) -> None:
    twice = np.concatenate([before[-1:], after])
    nearly = as_bytes(twice + np.random.default_rng(0).normal(0, 1, twice.shape))
    for start in (twice, nearly):
        score = seam_score(before, start)
        assert worst(score) == "fresh"
        assert score.overall < RETAKE_BELOW
        assert any("twice" in note for note in score.notes)


@pytest.mark.parametrize("back", [1, 4])
def test_motion_that_turns_back_is_seen(before: Clip, clips: dict[str, Clip], back: int) -> None:
    """Shown backwards from the join on, or going on from some frames ago."""
    reverse = seam_score(before, before[-2::-1])
    repeat = seam_score(before, clips["clean"][JOIN - back - 1 :])
    for score in (reverse, repeat):
        assert worst(score) == "motion"
        assert score.overall < RETAKE_BELOW
        assert any("motion breaks" in note for note in score.notes)


def test_left_out_frames_and_another_speed_are_seen_less(before: Clip, after: Clip) -> None:
    whole, left_out, faster = (
        seam_score(before, after[start::step]).overall for start, step in ((0, 1), (3, 1), (0, 2))
    )
    assert RETAKE_BELOW < left_out < faster < whole


def test_worse_faults_score_lower(before: Clip, after: Clip) -> None:
    scores = [seam_score(before, brighter(after, percent)).overall for percent in (0, 2, 5, 10, 20)]
    assert scores == sorted(scores, reverse=True)
    cut = seam_score(before, after[:, :, ::-1]).overall
    turned = seam_score(before, before[-2::-1]).overall
    faster = seam_score(before, after[::2]).overall
    assert cut < turned < faster


FAULTS = ("brighter", "cast", "shift", "blur", "noise", "twice", "left out", "other", "mirror")


def spoilt(before: Clip, after: Clip, fault: str, strength: float) -> Clip:
    """`after` with a fault of the join, from 0 (hardly) to 1."""
    match fault:
        case "brighter":
            return brighter(after, 30 * strength)
        case "cast":
            return as_bytes(after + strength * np.array([30, -10, -20]))
        case "shift":
            move = np.array([[1, 0, 20 * strength], [0, 1, 10 * strength]], np.float32)
            size = (after.shape[2], after.shape[1])
            return np.stack(
                [cv2.warpAffine(f, move, size, borderMode=cv2.BORDER_REFLECT) for f in after]
            )
        case "blur":
            return np.stack([cv2.GaussianBlur(f, (0, 0), 0.3 + 3 * strength) for f in after])
        case "noise":
            noise = np.random.default_rng(1).normal(0, 20 * strength, after[:1].shape)
            return np.concatenate([as_bytes(after[:1] + noise), after[1:]])
        case "twice":
            return np.concatenate([before[-1:]] * (1 + round(2 * strength)) + [after])
        case "left out":
            return after[1 + round(4 * strength) :]
        case "other":
            return as_bytes(after * (1 - strength) + after[:, ::-1, ::-1] * strength)
        case _:
            return after[:, :, ::-1]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.sampled_from(FAULTS), st.floats(0, 1), st.sampled_from([8, 12, 16]))
def test_a_fault_never_raises_the_score(
    clips: dict[str, Clip], fault: str, strength: float, place: int
) -> None:
    before, after = clips["clean"][:place], clips["clean"][place:]
    clean = seam_score(before, after).overall
    assert seam_score(before, spoilt(before, after, fault, strength)).overall <= clean


def test_only_the_frames_next_to_the_join_count(clips: dict[str, Clip]) -> None:
    whole = clips["clean"]
    near = seam_score(whole[JOIN - WINDOW : JOIN], whole[JOIN : JOIN + WINDOW])
    spoilt_elsewhere = whole.copy()
    spoilt_elsewhere[: JOIN - WINDOW] = 0
    spoilt_elsewhere[JOIN + WINDOW :] = 255
    assert seam_score(spoilt_elsewhere[:JOIN], spoilt_elsewhere[JOIN:]) == near


def test_frames_may_come_as_a_list_and_in_any_size(before: Clip, after: Clip) -> None:
    assert seam_score(list(before), list(after)) == seam_score(before, after)
    tiny = np.zeros((3, 2, 2, 3), np.uint8)
    assert seam_score(tiny, tiny).overall == 1
    large = np.stack([cv2.resize(f, (960, 640)) for f in before[-3:]])
    assert seam_score(large[:2], large[2:]).overall > 0.8


def test_it_is_the_same_every_time(before: Clip, after: Clip) -> None:
    assert seam_score(before, after[2:]) == seam_score(before, after[2:])


def test_the_figures_are_json_and_within_their_range(before: Clip, after: Clip) -> None:
    said = json.loads(json.dumps(seam_score(before, 255 - after).as_dict()))
    assert list(said) == ["match", "colour", "motion", "fresh", "overall", "notes"]
    assert all(0 <= said[name] <= 1 for name in list(said)[:-1])


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        np.zeros((3, 128, 192, 4), np.uint8),
        np.zeros((3, 64, 64, 3), np.uint8),
        np.zeros((3, 128, 192, 3), np.float32),
    ],
    ids=["none", "not RGB", "another size", "floats"],
)
def test_what_cannot_be_joined_is_refused(before: Clip, wrong: Clip) -> None:
    for sides in ((before, wrong), (wrong, before)):
        with pytest.raises(InvalidMedia):
            seam_score(*sides)
