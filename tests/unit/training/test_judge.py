"""Can the judge of generated clips be trusted?"""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from training.spark.judge import judge
from training.spark.world import Scene, render

SCENE = Scene("red", "ball", "medium", "still", "grass", seed=3)
LENGTHS = (17, 25, 33, 49)


def soften(film: np.ndarray, sigma: float) -> np.ndarray:
    """The clip as a small autoencoder would give it back."""
    return np.stack([cv2.GaussianBlur(frame, (0, 0), sigma) for frame in film])


@pytest.mark.parametrize("sigma", [0.0, 1.5])
def test_renders_are_judged_right(sigma: float) -> None:
    rng = np.random.default_rng(11)
    wrong = []
    for i in range(24):
        scene = Scene.draw(rng)
        film, _ = render(scene, LENGTHS[i % 4])
        verdict = judge(soften(film, sigma) if sigma else film)
        wrong += [
            (a, getattr(scene, a), getattr(verdict, a))
            for a in ("background", "colour", "shape", "motion")
            if getattr(scene, a) != getattr(verdict, a)
        ]
    # One of the 96 answers, so that no single hard clip decides.
    assert len(wrong) <= 1, wrong


def test_playing_backwards_turns_the_direction() -> None:
    film, _ = render(replace(SCENE, motion="right", background="sea"), 25)
    assert judge(film).motion == "right"
    assert judge(film[::-1]).motion == "left"
    assert judge(np.repeat(film[:1], 25, 0)).motion == "still"


def test_a_mirrored_clip_turns_the_direction() -> None:
    film, _ = render(replace(SCENE, motion="up", colour="blue"), 17)
    assert judge(film).motion == "up"
    assert judge(np.ascontiguousarray(film[:, ::-1])).motion == "down"


@pytest.mark.parametrize("camera", ["panleft", "panright", "zoomin", "zoomout"])
def test_a_camera_is_not_taken_for_a_motion(camera: str) -> None:
    film, _ = render(replace(SCENE, camera=camera, background="sky"), 25)
    verdict = judge(film)
    assert verdict.camera == camera
    assert verdict.motion == "still"


def test_an_empty_scene_has_no_object() -> None:
    film, masks = render(replace(SCENE, size="small"), 9)
    hidden = [cv2.inpaint(f, cv2.dilate(m, np.ones((5, 5))), 3, cv2.INPAINT_TELEA)
              for f, m in zip(film, masks, strict=True)]  # fmt: skip
    verdict = judge(np.stack(hidden))
    assert verdict.background == "grass"
    assert (verdict.colour, verdict.shape, verdict.size, verdict.motion) == (None,) * 4
    assert verdict.notes


def test_noise_is_nothing() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (5, 160, 256, 3), dtype=np.uint8)
    for film in (noise, soften(noise, 4.0), np.zeros_like(noise)):
        verdict = judge(film)
        assert (verdict.colour, verdict.shape, verdict.motion) == (None, None, None)
    assert judge(noise).background is None


def test_a_single_frame_has_everything_but_a_motion() -> None:
    film, _ = render(replace(SCENE, colour="pink", shape="star", background="night"), 1)
    verdict = judge(film)
    assert (verdict.colour, verdict.shape, verdict.background) == ("pink", "star", "night")
    assert verdict.motion is None


def test_the_track_follows_the_object() -> None:
    film, masks = render(replace(SCENE, motion="bouncing", background="snow"), 25)
    truth = np.array([np.argwhere(m > 127).mean(0)[::-1] for m in masks])
    assert np.abs(judge(film).track.centres - truth).max() < 2


@pytest.mark.parametrize(
    "film",
    [np.zeros((4, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8), np.zeros((0, 8, 8, 3), np.uint8)],
)
def test_what_is_no_clip_is_refused(film: np.ndarray) -> None:
    with pytest.raises(ValueError, match="uint8"):
        judge(film)
