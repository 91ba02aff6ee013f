"""A small real video, for fakes to hand out."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import numpy as np

from kinoloom.media.writer import write_video


@cache
def small_mp4(width: int = 96, height: int = 64, frames: int = 12, fps: float = 24) -> bytes:
    """An mp4 of a brightening grey; equal arguments give equal bytes."""
    pictures = [np.full((height, width, 3), 40 + 5 * (i % 40), np.uint8) for i in range(frames)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        write_video(file, pictures, fps, format="mp4")
        return file.read_bytes()
