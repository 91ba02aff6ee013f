"""What does a whole film look like at a glance, one row of frames a shot?"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

from kinoloom.errors import InvalidMedia, InvalidRequest, Problem
from kinoloom.media.frames import Frame
from kinoloom.media.images import save_png
from kinoloom.media.reader import VideoInfo, probe, read_frames

MAX_HEIGHT = 16_000
"""Pixels of a sheet's height; many viewers show no more."""
MAX_ROWS = 200

_MAX_TILE = 4000
_GAP = 6
_PAPER = (24, 24, 27)
_INK = (228, 228, 231)
_MAX_NAME = 200


@dataclass(frozen=True)
class Row:
    """One row of a sheet: its name, and the run of frames of the film that it shows."""

    name: str
    first: int
    frames: int


def contact_sheet(
    film: Path, target: Path, rows: Sequence[Row], *, columns: int = 6, width: int = 1280
) -> tuple[str, ...]:
    """Write a PNG, `width` pixels wide, with up to `columns` frames of each row, evenly spread.

    A row's first and last frames are among them, each frame has its number in the film. Of more
    rows than fit, at most 200, every so many are shown; the names of those shown are the answer.
    The film is read once and streams: only the sheet is in memory.
    Raises InvalidMedia (no usable film, or shorter than a row), InvalidRequest (no rows, or one
    without frames), OutputFailed.
    """
    _check(rows, columns, width)
    info = probe(film)
    tile_width, tile_height = _tile(info, (width - _GAP * (columns + 1)) // columns)
    name_height = max(14, width // 80)
    row_height = name_height + tile_height + 2 * _GAP
    shown = _spread(rows, min(MAX_ROWS, max(1, (MAX_HEIGHT - _GAP) // row_height)))
    last = max(row.first + row.frames for row in shown)
    if last > info.frames:
        raise InvalidMedia(
            f"The film {film} is shorter than its shots.",
            cause=f"It has {info.frames} frames, its shots end at {last}.",
            hints=("Stitch the film again.",),
        )
    sheet = Image.new("RGB", (width, _GAP + len(shown) * row_height), _PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=name_height * 3 // 4)
    for number, row in enumerate(shown):
        name = " ".join(row.name.split())[:_MAX_NAME]
        draw.text((_GAP, _GAP + number * row_height), name, fill=_INK, font=font)
    places = _places(shown, columns)
    for frame_number, frame in enumerate(read_frames(film, limit=last)):
        for line, column in places.get(frame_number, ()):
            corner = (
                _GAP + column * (tile_width + _GAP),
                _GAP + line * row_height + name_height + _GAP // 2,
            )
            sheet.paste(Image.fromarray(_small(frame, tile_width, tile_height)), corner)
            _number(draw, corner, str(frame_number), max(9, tile_width // 16))
    save_png(target, np.array(sheet, dtype=np.uint8))
    return tuple(row.name for row in shown)


def _check(rows: Sequence[Row], columns: int, width: int) -> None:
    problems = []
    if not rows:
        problems.append(Problem("rows", 0, "at least one shot"))
    if not 1 <= columns <= 24:
        problems.append(Problem("columns", columns, "1 to 24"))
    if not 64 <= width <= 8192:
        problems.append(Problem("width", width, "64 to 8192 pixels"))
    problems += [
        Problem(f"rows[{number}]", f"{row.frames} from {row.first}", "1 or more frames from 0")
        for number, row in enumerate(rows)
        if row.first < 0 or row.frames < 1
    ]
    if problems:
        raise InvalidRequest(problems)


def _tile(info: VideoInfo, width: int) -> tuple[int, int]:
    """The size of one picture of a film: so wide, or less where it would be too high."""
    width = max(16, width)
    height = max(1, round(width * info.height / info.width))
    if height > _MAX_TILE:
        return max(1, round(_MAX_TILE * info.width / info.height)), _MAX_TILE
    return width, height


def _spread(rows: Sequence[Row], most: int) -> list[Row]:
    """At most so many of the rows, evenly spread, the first and the last among them."""
    if len(rows) <= most:
        return list(rows)
    return [rows[int(number)] for number in np.linspace(0, len(rows) - 1, most).round()]


def _places(rows: Iterable[Row], columns: int) -> dict[int, list[tuple[int, int]]]:
    """Where each frame of the film goes: (row, column) on the sheet; most go nowhere."""
    places: dict[int, list[tuple[int, int]]] = {}
    for line, row in enumerate(rows):
        count = min(columns, row.frames)
        for column, offset in enumerate(np.linspace(0, row.frames - 1, count).round()):
            places.setdefault(row.first + int(offset), []).append((line, column))
    return places


def _small(frame: Frame, width: int, height: int) -> Frame:
    method = cv2.INTER_AREA if width < frame.shape[1] else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(frame, (width, height), interpolation=method), dtype=np.uint8)


def _number(draw: ImageDraw.ImageDraw, corner: tuple[int, int], text: str, size: int) -> None:
    """A frame's number on a dark patch, readable on any picture."""
    font = ImageFont.load_default(size=size)
    left, top, right, bottom = draw.textbbox((corner[0] + 4, corner[1] + 3), text, font=font)
    draw.rectangle((left - 4, top - 3, right + 4, bottom + 3), fill=_PAPER)
    draw.text((corner[0] + 4, corner[1] + 3), text, fill=_INK, font=font)
