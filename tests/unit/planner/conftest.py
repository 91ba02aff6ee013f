from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    """A picture of the clip's own shape, 512x320."""
    file = tmp_path / "picture.png"
    Image.new("RGB", (512, 320), (200, 30, 30)).save(file)
    return file


@pytest.fixture
def square(tmp_path: Path) -> Path:
    file = tmp_path / "square.png"
    Image.new("RGB", (300, 300), (30, 200, 30)).save(file)
    return file


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """20 frames of 256x160 at 12 a second."""
    return write_video(tmp_path / "video.mp4", frames=20, fps=12)


def write_video(file: Path, frames: int, fps: int) -> Path:
    with av.open(str(file), "w") as container:
        stream = container.add_stream("libx264", rate=Fraction(fps))
        stream.width, stream.height, stream.pix_fmt = 256, 160, "yuv420p"
        for i in range(frames):
            frame = np.full((160, 256, 3), 10 * (i % 20), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode())
    return file
