from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinoloom.errors import InvalidMedia, InvalidRequest
from kinoloom.quality.score import WEIGHTS, Scores, score

Clip = np.ndarray


@pytest.fixture(scope="session")
def scores(clips: dict[str, Clip]) -> dict[str, Scores]:
    return {name: score(clip, 12) for name, clip in clips.items()}


def test_a_sound_clip_is_good_and_has_no_notes(scores: dict[str, Scores]) -> None:
    assert scores["clean"].overall > 0.85
    assert min(scores["clean"].as_dict()[name] for name in WEIGHTS) > 0.75
    assert scores["clean"].notes == ()


@pytest.mark.parametrize(
    ("fault", "loss"),
    [
        ("frozen", 0.4),
        ("noisy", 0.4),
        ("noise", 0.6),
        ("frozen noise", 0.4),
        ("blurred", 0.25),
        ("flickering", 0.5),
        ("shuffled", 0.15),
        ("colour cast", 0.08),
        ("black", 0.6),
    ],
)
def test_every_fault_is_clearly_worse(scores: dict[str, Scores], fault: str, loss: float) -> None:
    assert scores[fault].overall < scores["clean"].overall - loss
    assert scores[fault].notes


@pytest.mark.parametrize(
    ("fault", "measure", "word"),
    [
        ("frozen", "frozen", "Nothing moves"),
        ("noisy", "sharpness", "Noisy"),
        ("noise", "temporal", "Unsteady"),
        ("blurred", "sharpness", "Blurred"),
        ("flickering", "flicker", "Flicker"),
        ("shuffled", "flicker", "Flicker"),
        ("colour cast", "colour", "Colours"),
        ("black", "sharpness", "empty"),
    ],
)
def test_the_score_that_falls_and_the_note_name_the_fault(
    scores: dict[str, Scores], fault: str, measure: str, word: str
) -> None:
    assert getattr(scores[fault], measure) < 0.5
    assert any(word in note for note in scores[fault].notes)


def test_each_fault_alone_fools_some_measure(scores: dict[str, Scores]) -> None:
    """Why they are only any good together."""
    assert scores["frozen"].temporal == 1
    assert scores["frozen noise"].sharpness > scores["clean"].sharpness
    assert scores["blurred"].temporal > 0.9
    assert scores["flickering"].sharpness > 0.75


def test_worse_faults_score_lower(clips: dict[str, Clip]) -> None:
    clean, random = clips["clean"], np.random.default_rng(0)
    normal = random.normal(0, 1, clean.shape)
    falling = [
        score(np.clip(clean + sigma * normal, 0, 255).astype(np.uint8), 12).overall
        for sigma in (0, 6, 12, 24)
    ]
    assert falling == sorted(falling, reverse=True)
    sign = (-1.0) ** np.arange(len(clean))[:, None, None, None]
    falling = [
        score(np.clip(clean * (1 + gain * sign), 0, 255).astype(np.uint8), 12).overall
        for gain in (0, 0.01, 0.03, 0.1)
    ]
    assert falling == sorted(falling, reverse=True)


def test_overall_is_the_documented_mean(scores: dict[str, Scores]) -> None:
    assert sum(WEIGHTS.values()) == pytest.approx(1)
    for found in scores.values():
        expected = math.prod(max(0.02, getattr(found, n)) ** w for n, w in WEIGHTS.items())
        assert found.overall == pytest.approx(expected)


def test_a_pause_is_found_and_timed(clips: dict[str, Clip]) -> None:
    clean = clips["clean"]
    paused = np.concatenate([clean[:7], np.repeat(clean[6:7], 12, axis=0), clean[7:]])
    found = score(paused, 12)
    assert found.frozen == pytest.approx(24 / 36)
    assert found.notes == ("Stands still for 1.0 s from second 0.5 on.",)


def test_a_small_slow_object_is_motion(clips: dict[str, Clip]) -> None:
    clip = np.repeat(clips["clean"][:1], 10, axis=0)
    for t, frame in enumerate(clip):
        frame[60:66, 20 + t : 26 + t] = 230
    assert score(clip, 12).frozen == 1


def test_one_frame_is_judged_by_its_sharpness(clips: dict[str, Clip]) -> None:
    found = score(clips["clean"][:1], 12)
    assert (found.temporal, found.colour, found.flicker, found.frozen) == (1, 1, 1, 1)
    assert found.overall == found.sharpness > 0.75
    assert "single frame" in found.notes[0]
    assert score(clips["blurred"][:1], 12).overall < 0.35


def test_two_frames(clips: dict[str, Clip]) -> None:
    found = score(list(clips["clean"][:2]), 12)
    assert found.overall > 0.85
    assert any("Two frames" in note for note in found.notes)


@given(
    count=st.integers(1, 4),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    seed=st.integers(0, 5),
    flat=st.booleans(),
)
@settings(max_examples=40, deadline=None)
def test_any_clip_has_scores_from_0_to_1(
    count: int, height: int, width: int, seed: int, flat: bool
) -> None:
    random = np.random.default_rng(seed)
    clip = random.integers(0, 256, (count, height, width, 3), dtype=np.uint8)
    if flat:
        clip[:] = clip[0, 0, 0]
    values = score(clip, 24).as_dict()
    notes = values.pop("notes")
    assert all(0 <= value <= 1 for value in values.values())
    assert all(isinstance(note, str) and note for note in notes)
    json.dumps(values)


def test_the_same_clip_has_the_same_scores(clips: dict[str, Clip]) -> None:
    assert score(clips["clean"], 12) == score(clips["clean"].copy(), 12)


def test_bad_input_is_named(clips: dict[str, Clip]) -> None:
    clean = clips["clean"]
    for wrong in (clean[:0], [clean[0], clean[1][:-2]], clean.astype(float), clean[..., 0]):
        with pytest.raises(InvalidMedia):
            score(wrong, 12)
    with pytest.raises(InvalidRequest):
        score(clean, 0)
