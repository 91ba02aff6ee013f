"""Does the renderer show what a scene says?"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from training.spark.world import ATTRIBUTES, HEIGHT, WIDTH, WORLD, Scene, render

SCENE = Scene("red", "ball", "medium", "still", "grass", seed=3)


def centres(masks: np.ndarray) -> np.ndarray:
    """Centre (x, y) of the object in each frame."""
    return np.array([np.argwhere(m > 127).mean(0)[::-1] for m in masks])


def test_a_clip_has_the_size_and_length_that_was_asked_for() -> None:
    film, masks = render(SCENE, 17)
    assert film.shape == (17, HEIGHT, WIDTH, 3)
    assert masks.shape == (17, HEIGHT, WIDTH)
    assert film.dtype == masks.dtype == np.uint8


def test_a_single_frame_can_be_rendered() -> None:
    for motion in WORLD["motions"]:
        film, masks = render(replace(SCENE, motion=motion, camera="zoomin"), 1)
        assert film.shape[0] == 1
        assert masks.any()


def test_a_seed_gives_the_same_clip_again_and_another_one_gives_another() -> None:
    first, again = render(SCENE, 9)[0], render(SCENE, 9)[0]
    other = render(replace(SCENE, seed=4), 9)[0]
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("colour", list(WORLD["colours"]))
def test_the_object_has_its_colour(colour: str) -> None:
    film, masks = render(replace(SCENE, colour=colour, shape="square"), 1)
    inside = np.median(film[0][masks[0] == 255], 0)
    assert np.abs(inside - np.array(WORLD["colours"][colour]["rgb"])).max() <= 14


@pytest.mark.parametrize("size", list(WORLD["sizes"]))
def test_the_object_has_its_size(size: str) -> None:
    low, high = WORLD["sizes"][size]["radius"]
    for seed in range(5):
        _, masks = render(replace(SCENE, size=size, seed=seed), 1)
        radius = np.sqrt((masks[0] > 127).sum() / np.pi)
        assert low - 1 <= radius <= high + 1


@pytest.mark.parametrize(
    ("motion", "axis", "sign"), [("right", 0, 1), ("left", 0, -1), ("down", 1, 1), ("up", 1, -1)]
)
def test_a_direction_is_kept_through_the_whole_clip(motion: str, axis: int, sign: int) -> None:
    for seed in range(4):
        _, masks = render(replace(SCENE, motion=motion, size="small", seed=seed), 17)
        steps = np.diff(centres(masks), axis=0)
        assert (sign * steps[:, axis] > 0).all()
        assert np.abs(steps[:, 1 - axis]).max() < 0.5


def test_a_hop_comes_back_to_the_floor() -> None:
    _, masks = render(replace(SCENE, motion="bouncing"), 25)
    y = centres(masks)[:, 1]
    assert abs(y[0] - y[-1]) < 1
    assert y[0] - y.min() > 0.25 * HEIGHT


def test_growing_and_shrinking_change_the_area_alone() -> None:
    for motion, grows in (("growing", True), ("shrinking", False)):
        _, masks = render(replace(SCENE, motion=motion), 17)
        areas = (masks > 127).sum((1, 2)).astype(float)
        assert ((np.diff(areas) > 0) == grows).all()
        assert np.ptp(centres(masks), axis=0).max() < 1


def test_a_pan_carries_a_resting_object_against_the_camera() -> None:
    for camera, sign in (("panright", -1), ("panleft", 1)):
        _, masks = render(replace(SCENE, camera=camera, size="small"), 17)
        x = centres(masks)[:, 0]
        assert sign * (x[-1] - x[0]) > 0.15 * WIDTH


def test_the_object_is_never_lost() -> None:
    rng = np.random.default_rng(0)
    for _ in range(40):
        scene = Scene.draw(rng)
        _, masks = render(scene, 9)
        assert (masks > 127).any((1, 2)).all(), scene


def test_a_prompt_says_what_it_may_say_and_nothing_else() -> None:
    rng = np.random.default_rng(1)
    for _ in range(50):
        scene = Scene.draw(rng)
        mute = replace(scene, say=())
        assert mute.prompt(rng) in ("a thing", "thing")
        for attribute in ATTRIBUTES:
            text = replace(scene, say=(attribute,)).prompt(rng)
            said = WORLD[f"{attribute}s"][getattr(scene, attribute)]["say"]
            assert not any(said) or any(phrase in text for phrase in said)


def test_leaving_out_goes_from_all_to_nothing() -> None:
    rng = np.random.default_rng(2)
    assert SCENE.partly_said(rng, 0.0).say == ATTRIBUTES
    assert SCENE.partly_said(rng, 1.0).say == ()
