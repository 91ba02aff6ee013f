"""A procedural clip that is sound, and the same clip with one fault each."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

FPS = 12
FRAMES, HEIGHT, WIDTH = 25, 128, 192


def moving_shapes() -> np.ndarray:
    """A textured ball crosses a textured meadow while the camera pans slowly."""
    meadow = np.array([90, 140, 80], np.float32) + _texture(HEIGHT + 40, WIDTH + 140, 2.5, 35, 0)
    skin = np.array([200, 60, 50], np.float32) + _texture(HEIGHT, HEIGHT, 2.0, 20, 1)
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH].astype(np.float32)
    clip = np.empty((FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    for t in range(FRAMES):
        pan = np.array([[1, 0, -0.75 * t], [0, 1, -10]], np.float32)
        ground = cv2.warpAffine(meadow, pan, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
        at_x, at_y = 38 + 3 * t, 64 + 25 * np.sin(t / 8)
        place = np.array([[1, 0, at_x - HEIGHT / 2], [0, 1, at_y - HEIGHT / 2]], np.float32)
        ball = cv2.warpAffine(skin, place, (WIDTH, HEIGHT), flags=cv2.INTER_CUBIC)
        inside = np.clip(26 - np.hypot(x - at_x, y - at_y), 0, 1)[..., None]
        clip[t] = np.clip(ground * (1 - inside) + ball * inside, 0, 255)
    return clip


def _texture(height: int, width: int, grain: float, strength: float, seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 1, (height, width, 3)).astype(np.float32)
    noise = cv2.GaussianBlur(noise, (0, 0), grain)
    return noise / noise.std() * strength


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype(np.uint8)


def _noisy(clip: np.ndarray) -> np.ndarray:
    return _bytes(clip + np.random.default_rng(2).normal(0, 15, clip.shape))


def _flickering(clip: np.ndarray) -> np.ndarray:
    gain = 1 + 0.08 * (-1.0) ** np.arange(len(clip))
    return _bytes(clip * gain[:, None, None, None])


def _shuffled(clip: np.ndarray) -> np.ndarray:
    return clip[np.random.default_rng(3).permutation(len(clip))]


def _cast(clip: np.ndarray) -> np.ndarray:
    share = np.linspace(0, 1, len(clip))[:, None, None, None]
    return _bytes(clip + share * np.array([60, -20, -40]))


FAULTS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "frozen": lambda clip: np.repeat(clip[:1], len(clip), axis=0),
    "noisy": _noisy,
    "noise": lambda clip: np.random.default_rng(4).integers(0, 256, clip.shape, dtype=np.uint8),
    "frozen noise": lambda clip: np.repeat(
        np.random.default_rng(4).integers(0, 256, clip[:1].shape, dtype=np.uint8), len(clip), 0
    ),
    "blurred": lambda clip: np.stack([cv2.GaussianBlur(f, (0, 0), 4) for f in clip]),
    "flickering": _flickering,
    "shuffled": _shuffled,
    "colour cast": _cast,
    "black": np.zeros_like,
}


@pytest.fixture(scope="session")
def clips() -> dict[str, np.ndarray]:
    """The sound clip under "clean", and each fault under its name."""
    clean = moving_shapes()
    return {"clean": clean} | {name: fault(clean) for name, fault in FAULTS.items()}
