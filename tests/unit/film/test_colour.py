from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinoloom.errors import InvalidMedia, InvalidRequest
from kinoloom.film.colour import MAX_MOVE, drift, match_colour, match_colours

Picture = np.ndarray
HEIGHT, WIDTH = 64, 96
JOINS = 10


def noise(strength: float, seed: int, grain: float = 0) -> Picture:
    grains = np.random.default_rng(seed).normal(0, 1, (HEIGHT, WIDTH, 3)).astype(np.float32)
    if grain:
        grains = cv2.GaussianBlur(grains, (0, 0), grain)
    return grains / grains.std() * strength


def as_bytes(values: Picture) -> Picture:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def landscape(ball_at: int = 50, ball: int = 9) -> Picture:
    """A graded sky over a meadow, and a red ball."""
    y = np.mgrid[0:HEIGHT, 0:WIDTH][0].astype(np.float32)[..., None]
    picture = np.array([110, 160, 215], np.float32) + y * np.array([0.7, 0.5, 0.1], np.float32)
    picture[40:] = (75, 125, 55)
    picture = np.ascontiguousarray(picture + noise(5, 0))
    cv2.circle(picture, (ball_at, 38), ball, (190, 45, 40), -1)
    return as_bytes(picture)


def meadow(left: int = 0) -> Picture:
    """Coarse flowers in every hue over all of the picture, seen by a camera that pans."""
    picture = np.array([90, 140, 80], np.float32) + noise(30, 1, grain=3)
    return as_bytes(np.roll(picture, -left, axis=1))


def fog() -> Picture:
    """No colour at all, only shades."""
    return as_bytes(np.repeat(120 + noise(35, 2, grain=4)[..., :1], 3, axis=2))


def bath() -> Picture:
    """Another place: brown wood and white tiles."""
    picture = np.full((HEIGHT, WIDTH, 3), (225, 222, 214), np.float32)
    picture[:, :40] = (95, 60, 35)
    return as_bytes(picture + noise(5, 3))


WORLDS = {"landscape": landscape, "meadow": meadow, "fog": fog}


def drifted(
    picture: Picture,
    gain: float = 1.05,
    offset: tuple[float, ...] = (2, -1, -2),
    saturation: float = 1.05,
) -> Picture:
    """What one pass through a model may do to the colours."""
    values = picture.astype(np.float32) * gain + np.array(offset, np.float32)
    grey = values.mean(axis=2, keepdims=True)
    return as_bytes(grey + (values - grey) * saturation)


DRIFTS: dict[str, Callable[[Picture], Picture]] = {
    "brighter and warmer": drifted,
    "darker and paler": lambda p: drifted(p, 0.95, (-2, 1, 2), 0.95),
    "brighter": lambda p: drifted(p, 1.05, (0, 0, 0), 1),
    "a cast": lambda p: drifted(p, 1, (4, -1, -4), 1),
    "richer": lambda p: drifted(p, 1, (0, 0, 0), 1.08),
}


def lab(picture: Picture) -> Picture:
    return cv2.cvtColor(picture.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)


def apart(first: Picture, second: Picture) -> Picture:
    """CIE Lab distance of each pixel."""
    return np.linalg.norm(lab(first) - lab(second), axis=2)


@pytest.mark.parametrize(
    ("world", "change"),
    # What has no colour cannot become richer.
    [(w, d) for w in WORLDS for d in DRIFTS if (w, d) != ("fog", "richer")],
)
def test_a_drift_that_adds_up_over_ten_joins_is_held(world: str, change: str) -> None:
    anchor, pass_through = WORLDS[world](), DRIFTS[change]
    free = held = anchor
    for _ in range(JOINS):
        free, held = pass_through(free), match_colour(pass_through(held), anchor)
    assert apart(held, anchor).mean() < 0.25 * apart(free, anchor).mean()


def test_a_drift_is_taken_out_while_things_move() -> None:
    anchor = landscape(ball_at=20)
    for place in (30, 50, 70):
        sound = landscape(ball_at=place)
        spoilt = drifted(sound)
        assert apart(match_colour(spoilt, anchor), sound).mean() < 0.3 * apart(spoilt, sound).mean()


def test_a_drift_is_taken_out_while_the_camera_pans() -> None:
    sound = meadow(left=30)
    spoilt = drifted(sound)
    assert apart(match_colour(spoilt, meadow()), sound).mean() < 0.3 * apart(spoilt, sound).mean()


@pytest.mark.parametrize(
    ("frame", "anchor"),
    [
        (landscape(ball=26), landscape(ball=1)),
        (landscape(ball=1), landscape(ball=26)),
        (landscape(ball_at=-40), landscape()),
    ],
    ids=["it comes near", "it goes away", "it leaves the picture"],
)
def test_nothing_is_tinted_because_an_object_came_or_went(frame: Picture, anchor: Picture) -> None:
    assert apart(match_colour(frame, anchor), frame).mean() < 1


@pytest.mark.parametrize(
    ("frame", "anchor"),
    [
        (as_bytes(landscape() * np.array([0.15, 0.18, 0.35]) + (2, 4, 16)), landscape()),
        (as_bytes(meadow() * np.array([0.15, 0.18, 0.35]) + (2, 4, 16)), meadow()),
        (bath(), landscape()),
        (landscape(), bath()),
        (fog(), landscape()),
        (landscape(), fog()),
        (landscape(), meadow()),
        (meadow(), landscape()),
    ],
    ids=["night", "night there", "bath", "no bath", "fog", "no fog", "no meadow", "meadow"],
)
def test_another_time_or_place_keeps_its_colours(frame: Picture, anchor: Picture) -> None:
    assert apart(match_colour(frame, anchor), frame).mean() < 3


@pytest.mark.parametrize("world", WORLDS.values(), ids=WORLDS)
def test_equal_colours_stay_equal_to_the_bit(world: Callable[[], Picture]) -> None:
    assert np.array_equal(match_colour(world(), world()), world())


def test_black_and_white_stay_what_they_are() -> None:
    black, white = np.zeros((8, 8, 3), np.uint8), np.full((8, 8, 3), 255, np.uint8)
    assert np.array_equal(match_colour(black, white), black)
    assert np.array_equal(match_colour(white, black), white)


def test_the_anchor_may_have_another_size() -> None:
    anchor = cv2.resize(landscape(), (300, 170), interpolation=cv2.INTER_AREA)
    spoilt = drifted(landscape())
    matched = match_colour(spoilt, anchor)
    assert matched.shape == spoilt.shape
    assert apart(matched, landscape()).mean() < 0.3 * apart(spoilt, landscape()).mean()


def test_the_strength_scales_the_correction() -> None:
    anchor, spoilt = landscape(), drifted(landscape())
    left = [drift([match_colour(spoilt, anchor, share)], anchor) for share in (0, 0.5, 1)]
    assert np.array_equal(match_colour(spoilt, anchor, 0), spoilt)
    assert left[1] == pytest.approx(left[0] / 2, rel=0.2)
    assert left[2] < left[0] / 4


def test_overlap_frames_get_one_correction_and_do_not_flicker() -> None:
    spoilt = [drifted(landscape(ball_at=place)) for place in (20, 50, 80)]
    matched = match_colours(spoilt, landscape())
    assert np.array_equal(matched[-1], match_colour(spoilt[-1], landscape()))
    still = slice(0, 25)  # the sky above the ball
    for frame in matched:
        assert np.array_equal(frame[still], matched[-1][still])
    with pytest.raises(InvalidMedia):
        match_colours([], landscape())


@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    st.tuples(*[st.integers(0, 255)] * 3),
    st.tuples(*[st.integers(0, 255)] * 3),
    st.floats(0, 60),
    st.integers(0, 2**16),
)
def test_no_pixel_ever_moves_far(
    here: tuple[int, ...], there: tuple[int, ...], strength: float, seed: int
) -> None:
    frame = as_bytes(np.array(here) + noise(strength, seed, grain=2))
    anchor = as_bytes(np.array(there) + noise(strength, seed + 1, grain=2))
    moved = apart(match_colour(frame, anchor), frame)
    assert moved.mean() < MAX_MOVE
    # Rounding, and the edge of what a screen can show, move single pixels a little farther.
    assert moved.max() < 2 * MAX_MOVE


@pytest.mark.parametrize("strength", [-0.1, 1.1, float("nan"), float("inf")])
def test_a_strength_out_of_range_is_a_mistake(strength: float) -> None:
    with pytest.raises(InvalidRequest) as caught:
        match_colour(landscape(), landscape(), strength)
    assert [problem.field for problem in caught.value.problems] == ["strength"]


@pytest.mark.parametrize("wrong", [np.zeros((4, 4)), np.zeros((4, 4, 3)), np.zeros((0, 4, 3))])
def test_what_is_no_frame_is_refused(wrong: Picture) -> None:
    for frame, anchor in ((wrong, landscape()), (landscape(), wrong)):
        with pytest.raises(InvalidMedia):
            match_colour(frame, anchor)
        with pytest.raises(InvalidMedia):
            drift([frame], anchor)


def test_drift_grows_with_each_join_and_starts_at_none() -> None:
    anchor = frame = landscape()
    seen = []
    for _ in range(6):
        seen.append(drift([frame], anchor))
        frame = drifted(frame)
    assert seen[0] < 0.001
    assert seen == sorted(seen)
    assert seen[1] > 2


def test_drift_sees_colours_and_not_what_is_shown() -> None:
    shown = [landscape(ball_at=place, ball=size) for place, size in ((20, 3), (60, 16), (-40, 9))]
    assert drift(shown, landscape()) < 1
    assert drift([drifted(frame) for frame in shown], landscape()) > 2
    assert drift([bath()], landscape()) > 10


def test_drift_is_that_of_the_mean_over_time() -> None:
    """A flicker about the anchor's colours is no drift."""
    anchor = fog()
    lighter, darker = as_bytes(anchor + 6.0), as_bytes(anchor - 6.0)
    assert drift([lighter, darker], anchor) < 0.2 * drift([lighter], anchor)
    with pytest.raises(InvalidMedia):
        drift([], anchor)
