"""Small procedural clips; nothing is downloaded or stored."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest


def smooth_clip(frames: int, height: int, width: int) -> np.ndarray:
    """Colourful gradients that move smoothly: every hue, no fine detail."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    clip = np.empty((frames, height, width, 3), np.uint8)
    for t in range(frames):
        for channel, (a, b, speed) in enumerate(
            [(2.0, 1.0, 0.20), (1.0, 2.5, 0.13), (3.0, -1, 0.1)]
        ):
            wave = np.sin(a * x / width * np.pi + b * y / height * np.pi + speed * t + 2 * channel)
            clip[t, ..., channel] = (wave * 120 + 128).round()
    return clip


@pytest.fixture(scope="session")
def clip() -> np.ndarray:
    """24 frames of 96x64."""
    return smooth_clip(24, 64, 96)


@pytest.fixture(scope="session")
def make_clip() -> Callable[[int, int, int], np.ndarray]:
    """A function (frames, height, width) -> clip."""
    return smooth_clip


@pytest.fixture(scope="session")
def psnr() -> Callable[[np.ndarray, np.ndarray], float]:
    """Peak signal-to-noise ratio in dB."""

    def measure(a: np.ndarray, b: np.ndarray) -> float:
        error = np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)
        return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))

    return measure
