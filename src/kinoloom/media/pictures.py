"""Which single picture shows what a clip is: its poster, or a sheet of many of its frames?"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from kinoloom.errors import InvalidMedia
from kinoloom.media.frames import Frame, checked_frame

_SMALL_SIDE = 160
_GAP = 6
_PAPER = (24, 24, 27)
_INK = (228, 228, 231)
_MAX_CAPTION_LINES = 3


def poster(frames: Frame | Sequence[Frame]) -> Frame:
    """The frame [H, W, 3] of the middle half that is sharpest and most like the others.

    Sharpness (variance of the Laplacian) and closeness (mean distance to the median frame) are each
    scaled to the best of the candidates and added. Raises InvalidMedia when there are no frames.
    """
    count = len(frames)
    if count == 0:
        raise InvalidMedia("There are no frames to make a poster of.")
    quarter = count // 4
    candidates = range(quarter, max(quarter + 1, count - quarter))
    small = np.stack([_small_grey(checked_frame(frames[i], f"Frame {i}")) for i in candidates])
    sharp = np.array([cv2.Laplacian(grey, cv2.CV_32F).var() for grey in small])
    far = np.abs(small - np.median(small, axis=0)).mean(axis=(1, 2))
    merit = sharp / max(float(sharp.max()), 1e-6) - far / max(float(far.max()), 1e-6)
    return checked_frame(frames[candidates[int(merit.argmax())]])


def contact_sheet(
    frames: Frame | Sequence[Frame],
    columns: int = 4,
    rows: int = 4,
    width: int = 1280,
    caption: str | None = None,
) -> Frame:
    """One picture [H, width, 3] of up to `columns` x `rows` frames with their numbers from 0.

    A longer clip is sampled evenly, the first and the last frame included. `caption` stands
    beneath, in at most three lines. Raises InvalidMedia when there are no frames.
    """
    count = len(frames)
    if count == 0:
        raise InvalidMedia("There are no frames to make a contact sheet of.")
    shown = min(count, max(1, columns) * max(1, rows))
    numbers = np.linspace(0, count - 1, shown).round().astype(int)
    columns = min(max(1, columns), shown)
    lines = -(-shown // columns)
    height, source_width = checked_frame(frames[0]).shape[:2]
    tile_width = max(16, (width - _GAP * (columns + 1)) // columns)
    tile_height = max(1, round(tile_width * height / source_width))
    font = ImageFont.load_default(size=max(10, tile_width // 18))
    text_font = ImageFont.load_default(size=max(12, width // 64))
    text = _wrapped(caption or "", text_font, width - 2 * _GAP)
    line_height = max(12, width // 64) * 3 // 2
    grid_height = _GAP + lines * (tile_height + _GAP)
    sheet = Image.new("RGB", (width, grid_height + len(text) * line_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for place, number in enumerate(numbers):
        left = _GAP + (place % columns) * (tile_width + _GAP)
        top = _GAP + (place // columns) * (tile_height + _GAP)
        frame = checked_frame(frames[int(number)], f"Frame {number}")
        method = cv2.INTER_AREA if tile_width < frame.shape[1] else cv2.INTER_CUBIC
        tile = cv2.resize(frame, (tile_width, tile_height), interpolation=method)
        sheet.paste(Image.fromarray(tile), (left, top))
        _number(draw, (left, top), str(number), font)
    for index, line in enumerate(text):
        draw.text((_GAP, grid_height + index * line_height), line, fill=_INK, font=text_font)
    return np.array(sheet, dtype=np.uint8)


def _small_grey(frame: Frame) -> npt.NDArray[np.float32]:
    height, width = frame.shape[:2]
    scale = min(1.0, _SMALL_SIDE / max(height, width))
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.float32)


def _number(
    draw: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    text: str,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """A frame's number on a dark patch, readable on any picture."""
    left, top, right, bottom = draw.textbbox((corner[0] + 4, corner[1] + 3), text, font=font)
    draw.rectangle((left - 4, top - 3, right + 4, bottom + 3), fill=_PAPER)
    draw.text((corner[0] + 4, corner[1] + 3), text, fill=_INK, font=font)


def _wrapped(
    text: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int
) -> list[str]:
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    if len(lines) > _MAX_CAPTION_LINES:
        lines = [*lines[: _MAX_CAPTION_LINES - 1], lines[_MAX_CAPTION_LINES - 1] + " ..."]
    return lines
