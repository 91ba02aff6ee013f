from __future__ import annotations

import cv2
import numpy as np
import pytest

from kinoloom.quality.measures import measure

Clip = np.ndarray


def test_motion_that_the_flow_explains_costs_nothing(clips: dict[str, Clip]) -> None:
    found = measure(clips["clean"])
    unexplained = float(np.abs(np.diff(clips["clean"].astype(float), axis=0)).mean())
    assert found.warp_error is not None
    assert found.warp_error < unexplained / 2
    assert found.lost is not None
    assert found.lost < 0.05


def test_what_appears_from_nowhere_is_lost(clips: dict[str, Clip]) -> None:
    lost = measure(clips["noise"]).lost
    assert lost is not None
    assert lost > 0.4


def test_noise_is_the_part_of_the_detail_that_does_not_move_along(clips: dict[str, Clip]) -> None:
    shares = [measure(clips[name]).noise or 0.0 for name in ("frozen noise", "clean", "noisy")]
    assert shares == sorted(shares)
    assert shares[0] == 0
    assert shares[1] < 0.3
    assert shares[2] > 0.6


def test_acuity_does_not_depend_on_how_much_of_the_picture_is_flat() -> None:
    picture = np.full((200, 200, 3), 100, np.uint8)
    cv2.rectangle(picture, (20, 20), (60, 60), (200, 30, 30), -1)
    wide = np.full((200, 800, 3), 100, np.uint8)
    wide[:, :200] = picture
    one, other = measure(picture[None]).acuity, measure(wide[None]).acuity
    assert one == pytest.approx(other, abs=0.02)
    soft = measure(cv2.GaussianBlur(picture, (0, 0), 4)[None]).acuity
    assert soft is not None
    assert one is not None
    assert soft < one - 0.3


def test_luminance_jerk_is_in_grey_levels() -> None:
    clip = np.full((9, 64, 64, 3), 100, np.uint8)
    clip[1::2] = 110
    assert measure(clip).luma_jerk == pytest.approx(20)
    ramp = np.arange(100, 118, 2, dtype=np.uint8)[:, None, None, None]
    assert measure(np.broadcast_to(ramp, (9, 64, 64, 3))).luma_jerk == pytest.approx(0, abs=1e-4)


def test_colour_distances_are_in_lab_units() -> None:
    clip = np.full((8, 32, 32, 3), 128, np.uint8)
    clip[4:] = (160, 110, 128)
    found = measure(clip)
    lab = cv2.cvtColor((clip[[0, 7], :1, :1] / 255).astype(np.float32)[:, 0], cv2.COLOR_RGB2LAB)
    distance = float(np.linalg.norm(lab[0, 0, 1:] - lab[1, 0, 1:]))
    assert found.colour_drift == pytest.approx(distance, abs=0.1)
    assert found.colour_step == pytest.approx(distance / 7, abs=0.1)


def test_encoding_noise_is_not_motion(clips: dict[str, Clip]) -> None:
    held = np.repeat(clips["clean"][:1], 6, axis=0).astype(np.int16)
    held += np.random.default_rng(0).integers(-1, 2, held.shape, dtype=np.int16)
    assert not any(measure(np.clip(held, 0, 255).astype(np.uint8)).moving)
