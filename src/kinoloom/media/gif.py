"""How is a GIF written frame by frame, and what do its blocks say?

Pillow chooses the colours and FFmpeg compresses; the comment extension, which its muxer cannot
write, is added by hand as GIF89a (W3C, 1990) lays it down.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np
import numpy.typing as npt
from av.packet import Packet
from PIL import Image

from kinoloom.errors import InvalidMedia
from kinoloom.media.frames import Frame
from kinoloom.media.settings_tag import MAX_SETTINGS_BYTES

CENTISECOND = Fraction(1, 100)
"""The unit of time of a GIF."""

SHORTEST_DELAY = 2
"""Centiseconds. Every browser shows a shorter delay as 10, so 50 fps is the fastest that works."""

_DITHER = 8
"""Grey levels from the darkest to the lightest cell of the dither: on smooth gradients 2 dB better
after the eye's own blur, and still invisible as a pattern."""

_TRAILER = b"\x3b"
_MAX_COMMENTS = 16


class GifEncoder:
    """Writes frames [H, W, 3] one at a time; loops for ever.

    Every frame has its own palette of 256 colours and an ordered dither, which unlike error
    diffusion does not shimmer from frame to frame. Delays are whole centiseconds, spread so that
    the clip as a whole keeps its length; above 50 fps it plays slower instead of losing frames.
    """

    def __init__(self, part: Path, frame: Frame, rate: Fraction, comment: str) -> None:
        height, width = frame.shape[:2]
        self._part = part
        self._comment = comment.encode("ascii")
        self._step = max(100 / rate, Fraction(SHORTEST_DELAY))
        self._count = 0
        self._delays: list[int] = []
        self._dither = _bayer(height, width)
        self._container = av.open(f"file:{part}", "w", format="gif")
        stream = self._container.add_stream("gif", rate=100)
        stream.width, stream.height, stream.pix_fmt = width, height, "pal8"
        stream.codec_context.time_base = CENTISECOND
        self._stream = stream

    def add(self, frame: Frame) -> None:
        """Encode the next frame."""
        # PyAV's own type hints miss that pal8 takes a pair.
        picture = av.VideoFrame.from_ndarray(self._reduced(frame), format="pal8")  # type: ignore[arg-type]
        start, end = round(self._count * self._step), round((self._count + 1) * self._step)
        picture.pts, picture.time_base = start, CENTISECOND
        self._delays.append(end - start)
        self._count += 1
        self._container.mux(self._timed(self._stream.encode(picture)))

    def close(self) -> None:
        """Finish the file and add the comment."""
        self._container.mux(self._timed(self._stream.encode(None)))
        self._container.close()
        if self._comment:
            _append_comment(self._part, self._comment)

    def abandon(self) -> None:
        """Let go of the file without finishing it."""
        with suppress(OSError, av.FFmpegError):
            self._container.close()

    def _reduced(self, frame: Frame) -> tuple[Frame, Frame]:
        """The frame as indices [H, W] and its palette [256, 4] of alpha, red, green, blue."""
        # The octree takes 3 ms where median cut takes 600, for colours within 0.1 dB of it.
        colours = Image.fromarray(frame).quantize(256, method=Image.Quantize.FASTOCTREE)
        dithered = np.clip(frame + self._dither, 0, 255).astype(np.uint8)
        indices = Image.fromarray(dithered).quantize(palette=colours, dither=Image.Dither.NONE)
        palette = np.full((256, 4), 255, np.uint8)
        used = np.array(colours.getpalette(), np.uint8).reshape(-1, 3)
        palette[: len(used), 1:] = used
        return np.array(indices, dtype=np.uint8), palette

    def _timed(self, packets: list[Packet[av.VideoStream]]) -> list[Packet[av.VideoStream]]:
        # The muxer derives a delay from the next frame's time; only the last frame needs its own.
        for packet in packets:
            packet.duration = self._delays.pop(0)
        return packets


@dataclass(frozen=True)
class GifFacts:
    """What the blocks of a GIF say: how many frames, how long in centiseconds, its comments."""

    frames: int
    centiseconds: int
    comments: tuple[str, ...]


def read_gif_facts(path: Path) -> GifFacts:
    """Walk the blocks of a GIF without decoding any picture.

    Raises InvalidMedia when it is no GIF or ends before its trailer.
    """
    frames, total, delay = 0, 0, 0
    comments: list[str] = []
    with path.open("rb") as file:
        header = _exactly(file, 13, path)
        if header[:6] not in (b"GIF87a", b"GIF89a"):
            raise InvalidMedia(f"{path} is not a GIF.")
        _skip_palette(file, header[10])
        while (kind := _exactly(file, 1, path)) != _TRAILER:
            if kind == b"\x2c":
                _skip_palette(file, _exactly(file, 9, path)[8])
                _exactly(file, 1, path)
                for _ in _sub_blocks(file, path):
                    pass
                frames += 1
                # Browsers and FFmpeg alike play a delay below 2 as 10.
                total += delay if delay >= SHORTEST_DELAY else 10
                delay = 0
            elif kind == b"\x21":
                label = _exactly(file, 1, path)
                if label == b"\xfe" and len(comments) < _MAX_COMMENTS:
                    comments.append(_comment(file, path))
                    continue
                for block in _sub_blocks(file, path):
                    if label == b"\xf9" and len(block) >= 3:
                        delay = int.from_bytes(block[1:3], "little")
            else:
                raise _damaged(path)
    return GifFacts(frames, total, tuple(comments))


def _bayer(height: int, width: int) -> npt.NDArray[np.int16]:
    """Bayer's ordered 8x8 dither (1973) over a whole frame: [H, W, 1], grey levels around 0."""
    cell = np.zeros((1, 1))
    for _ in range(3):
        cell = np.block([[4 * cell, 4 * cell + 2], [4 * cell + 3, 4 * cell + 1]])
    levels = ((cell + 0.5) / 64 - 0.5) * _DITHER
    tiled = np.tile(levels.round(), (height // 8 + 1, width // 8 + 1))
    return tiled[:height, :width, None].astype(np.int16)


def _append_comment(path: Path, comment: bytes) -> None:
    """Put a comment extension before the trailer, where no other byte has to move."""
    with path.open("rb+") as file:
        file.seek(-1, 2)
        if file.read(1) != _TRAILER:
            raise OSError("FFmpeg wrote a GIF without a trailer")
        file.seek(-1, 2)
        file.write(b"\x21\xfe")
        for start in range(0, len(comment), 255):
            block = comment[start : start + 255]
            file.write(bytes([len(block)]) + block)
        file.write(b"\x00" + _TRAILER)


def _comment(file: BinaryIO, path: Path) -> str:
    parts, size = [], 0
    for block in _sub_blocks(file, path):
        size += len(block)
        if size <= MAX_SETTINGS_BYTES:
            parts.append(block)
    return b"".join(parts).decode("utf-8", "replace") if size <= MAX_SETTINGS_BYTES else ""


def _sub_blocks(file: BinaryIO, path: Path) -> Iterator[bytes]:
    while size := _exactly(file, 1, path)[0]:
        yield _exactly(file, size, path)


def _skip_palette(file: BinaryIO, flags: int) -> None:
    if flags & 0x80:
        file.seek(3 * 2 ** ((flags & 7) + 1), 1)


def _exactly(file: BinaryIO, count: int, path: Path) -> bytes:
    data = file.read(count)
    if len(data) < count:
        raise InvalidMedia(
            f"The video {path} is cut short.",
            cause="The file ends in the middle of the GIF.",
            hints=("Copy or download it again.",),
        )
    return data


def _damaged(path: Path) -> InvalidMedia:
    return InvalidMedia(
        f"The video {path} is damaged.",
        cause="Its GIF blocks are out of order.",
        hints=("Copy or download it again.",),
    )
