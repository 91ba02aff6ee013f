from __future__ import annotations

import cv2
import numpy as np
import pytest

from kinoloom.errors import InvalidMedia
from kinoloom.media.pictures import contact_sheet, poster

Clip = np.ndarray


def test_the_poster_is_the_sharp_frame_of_the_middle(clip: Clip) -> None:
    texture = np.random.default_rng(1).integers(0, 60, clip.shape[1:], dtype=np.uint8)
    clips = np.stack([cv2.GaussianBlur(f // 2 + texture, (0, 0), 2) for f in clip])
    clips[13] = clip[13] // 2 + texture
    assert np.array_equal(poster(clips), clips[13])


def test_an_odd_one_out_is_not_the_poster() -> None:
    texture = np.random.default_rng(1).integers(100, 140, (32, 32, 3), dtype=np.uint8)
    frames = np.repeat(texture[None], 12, axis=0)
    frames[6] = 255 - texture // 2
    assert np.array_equal(poster(frames), texture)


@pytest.mark.parametrize("count", [1, 2, 3, 4])
def test_short_clips_have_a_poster(clip: Clip, count: int) -> None:
    assert any(np.array_equal(poster(clip[:count]), frame) for frame in clip[:count])
    assert poster(list(clip[:count])).shape == clip[0].shape


def test_the_sheet_shows_first_and_last(clip: Clip) -> None:
    frames = np.stack([np.full((40, 60, 3), 40 + 8 * i, np.uint8) for i in range(24)])
    sheet = contact_sheet(frames, columns=3, rows=2, width=600)
    assert sheet.shape[1] == 600
    tile_height = (sheet.shape[0] - 6 * 3) // 2
    assert sheet[6 + tile_height // 2, 120].tolist() == [40] * 3
    assert sheet[-6 - tile_height // 2, 500].tolist() == [40 + 8 * 23] * 3


def test_fewer_frames_than_places(clip: Clip) -> None:
    assert contact_sheet(clip[:1], width=320).shape[1] == 320
    assert contact_sheet(clip[:5], columns=4, rows=4, width=320).shape[1] == 320


def test_the_numbers_and_the_caption_are_drawn(clip: Clip) -> None:
    plain = np.full((9, 40, 60, 3), 128, np.uint8)
    sheet = contact_sheet(plain, columns=3, rows=3, width=600)
    assert (sheet > 200).any()  # the light ink of the numbers; nothing else is that light
    captioned = contact_sheet(plain, columns=3, rows=3, width=600, caption="a red ball " * 100)
    grown = captioned.shape[0] - sheet.shape[0]
    assert grown > 0
    assert (captioned[-grown:] > 200).any()
    assert np.array_equal(captioned[: sheet.shape[0]], sheet)
    assert (
        contact_sheet(plain, width=600, caption="").shape == contact_sheet(plain, width=600).shape
    )


def test_no_frames() -> None:
    empty = np.zeros((0, 4, 4, 3), np.uint8)
    for make in (poster, contact_sheet):
        with pytest.raises(InvalidMedia):
            make(empty)
