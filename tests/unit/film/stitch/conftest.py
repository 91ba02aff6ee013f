"""Tiny videos whose frames carry their own numbers, and what a film of them must show."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from kinoloom.film.stitch.cut import Cut
from kinoloom.media.audio import AudioTrack
from kinoloom.media.images import fit
from kinoloom.media.reader import read_video
from kinoloom.media.writer import VideoFormat, write_video

FPS = Fraction(6)
"""Twelve frames between key frames: short files have several."""
SIZE = (64, 48)
LOW, HIGH = 60, 220


def numbered(name: int, count: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """Frames [count, H, W, 3] of 8x2 fields: above the frame's number in bits, below `name`."""
    width, height = size
    frames = np.empty((count, height, width, 3), np.uint8)
    for number in range(count):
        bits = [[value >> bit & 1 for bit in range(8)] for value in (number, name)]
        fields = np.where(np.array(bits, dtype=bool), HIGH, LOW).astype(np.uint8)
        frames[number] = np.kron(fields, np.ones((height // 2, width // 8), np.uint8))[..., None]
    return frames


def fields(frames: np.ndarray) -> np.ndarray:
    """The brightness [..., 2, 8] of the fields, away from their edges, averaged over colours."""
    height, width = frames.shape[-3] // 2, frames.shape[-2] // 8
    grey = frames.mean(axis=-1)
    parts = grey.reshape(*grey.shape[:-2], 2, height, 8, width)
    return parts[..., :, height // 4 : -height // 4, :, 2:-2].mean(axis=(-3, -1))


def read_back(frames: np.ndarray) -> list[tuple[int, int]]:
    """(name, number) of each frame."""
    bits = (fields(frames) > (LOW + HIGH) / 2).astype(int)
    values = (bits << np.arange(8)).sum(axis=-1)
    return [(int(name), int(number)) for number, name in values]


@dataclass(frozen=True)
class Material:
    """A file, its frames as they were before encoding, and its rate."""

    path: Path
    frames: np.ndarray = field(repr=False)
    fps: Fraction
    name: int


def shown(material: Material, number: int, fps: Fraction) -> np.ndarray:
    """The frame of a file that is shown in the middle of the film's frame of that number."""
    time = (number + Fraction(1, 2)) / fps
    return material.frames[math.ceil(time * material.fps) - 1]


def film_of(cut: Cut, materials: Sequence[Material]) -> np.ndarray:
    """What the film must show: all in memory, first what cuts join, then what transitions do."""
    parts: list[tuple[str, int, list[np.ndarray]]] = []
    for piece, material in zip(cut.pieces, materials, strict=True):
        own = [
            fit(shown(material, piece.skip + i, cut.fps), *cut.size).astype(float)
            for i in range(piece.frames)
        ]
        if parts and not piece.transition_frames:
            parts[-1][2].extend(own)
        else:
            parts.append((piece.transition, piece.transition_frames, own))
    film: list[np.ndarray] = []
    for transition, n, own in parts:
        if transition == "crossfade":
            for i in range(n):
                share = (i + 1) / (n + 1)
                film[i - n] = film[i - n] * (1 - share) + own[i] * share
            own = own[n:]
        if transition == "fade":
            half = n // 2
            if film:
                for i in range(half):
                    film[i - half] = film[i - half] * (1 - (i + 1) / half)
            for i in range(n - half):
                own[i] = own[i] * (i + 1) / (n - half + 1)
        film += own
    return np.stack(film)


def assert_shows(path: Path, cut: Cut, materials: Sequence[Material]) -> np.ndarray:
    """The film at `path` is what it must be, frame by frame, and at its rate; its frames."""
    wanted = film_of(cut, materials)
    frames, fps = read_video(path)
    assert len(frames) == len(wanted) == cut.frames
    assert fps == pytest.approx(float(cut.fps), rel=1e-9)
    off = np.abs(fields(frames) - fields(wanted)).max(axis=(1, 2))
    assert off.max() < 14, f"frames {np.flatnonzero(off >= 14)} of {len(off)} differ by {off.max()}"
    return frames


Make = Callable[..., Material]


@pytest.fixture(scope="session")
def make(tmp_path_factory: pytest.TempPathFactory) -> Make:
    """A function that writes a numbered video, once for the same arguments."""
    folder = tmp_path_factory.mktemp("material")
    known: dict[tuple[object, ...], Material] = {}

    def write(
        name: int,
        count: int,
        *,
        fps: Fraction = FPS,
        size: tuple[int, int] = SIZE,
        format: VideoFormat = "mp4",  # noqa: A002
        hertz: float = 0,
    ) -> Material:
        key = (name, count, fps, size, format, hertz)
        if key not in known:
            frames = numbered(name, count, size)
            path = folder / f"{len(known)}.{format}"
            sound = None
            if hertz:
                at = np.arange(math.ceil(count / fps * 48_000)) / 48_000
                wave = 0.5 * np.sin(2 * np.pi * hertz * at)
                sound = AudioTrack(np.stack([wave, wave]).astype(np.float32), 48_000)
            write_video(path, frames, fps, format=format, audio=sound)
            known[key] = Material(path, frames, fps, name)
        return known[key]

    return write
