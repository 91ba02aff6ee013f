"""How did the camera move in a clip, going by the background alone?

The judge needs the camera for one thing: a resting object that a pan carries across the picture
must not be taken for a moving one. The cameras of the world are uniform, so one pan and one zoom
rate are searched that map each key frame onto the next best, outside of the object.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

_KEYS = 7  # frames compared, spread evenly over the clip
_WIDTH, _HEIGHT = 128, 80  # size at which they are compared
_PANS = np.linspace(-0.42, 0.42, 43)  # content's way over the whole clip, shares of the width
_ZOOMS = np.linspace(-0.5, 0.5, 41)  # logarithm of the magnification over the whole clip
_BETTER = 0.8  # a camera is believed when it leaves at most this share of the standstill's error
_LEAST_PAN, _LEAST_ZOOM = 0.08, 0.1  # smaller ones are not told from noise


@dataclass(frozen=True)
class Camera:
    """A camera's move: its name in the world, and what it does to the picture over the clip.

    `pan` is the way of the background in frame widths, to the right positive; `zoom` the natural
    logarithm of its magnification.
    """

    name: str = "static"
    pan: float = 0.0
    zoom: float = 0.0

    def undo(
        self, centres: NDArray[np.float64], frames: int, width: int, height: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """What a resting camera would have seen.

        Takes places [T, 2] in pixels; returns them without the camera's part, and by how much each
        frame is magnified [T], 1 where it is least.
        """
        u = np.linspace(0.0, 1.0, frames)
        magnified = np.exp(self.zoom * (u if self.zoom >= 0 else u - 1))
        middle = np.array([width / 2, height / 2])
        rested = (centres - middle) / magnified[:, None] + middle
        rested[:, 0] -= self.pan * width * (u - 0.5)
        return rested, magnified


def find_camera(film: NDArray[np.uint8], covered: NDArray[np.bool_]) -> Camera:
    """The camera of a clip uint8 [T, H, W, 3] of which `covered` [T, H, W] is no background."""
    if len(film) < 3:
        return Camera()
    keys = np.unique(np.linspace(0, len(film) - 1, _KEYS).round().astype(int))
    views, free = zip(*(_view(film[k], covered[k]) for k in keys), strict=True)
    shares = np.diff(keys) / (len(film) - 1)

    def error(pan: float, zoom: float) -> float:
        return float(
            np.mean(
                [
                    _mismatch(views[i : i + 2], free[i : i + 2], pan * share, zoom * share)
                    for i, share in enumerate(shares)
                ]
            )
        )

    still = error(0.0, 0.0)
    pan = min(_PANS, key=lambda p: error(p, 0.0))
    zoom = min(_ZOOMS, key=lambda z: error(0.0, z))
    pan = min(pan + np.linspace(-0.02, 0.02, 9), key=lambda p: error(p, 0.0))
    zoom = min(zoom + np.linspace(-0.025, 0.025, 9), key=lambda z: error(0.0, z))
    panned, zoomed = error(pan, 0.0), error(0.0, zoom)
    if min(panned, zoomed) > _BETTER * still:
        return Camera()
    if panned < zoomed:
        # The camera looks to where the content comes from.
        name = "panright" if pan < 0 else "panleft"
        return Camera(name, pan=float(pan)) if abs(pan) >= _LEAST_PAN else Camera()
    name = "zoomin" if zoom > 0 else "zoomout"
    return Camera(name, zoom=float(zoom)) if abs(zoom) >= _LEAST_ZOOM else Camera()


def _view(
    frame: NDArray[np.uint8], covered: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A frame's details in grey, small, and how free of the object each of its pixels is.

    Gradients, which no pan would move, are taken out; the object counts for nothing in them, or its
    halo would look like a background that moves with it.
    """
    size = (_WIDTH, _HEIGHT)
    hidden = cv2.resize(covered.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    free = (hidden < 0.05).astype(np.float32)
    small = cv2.resize(frame, size, interpolation=cv2.INTER_AREA)
    grey = cv2.cvtColor(small, cv2.COLOR_RGB2GRAY).astype(np.float32)
    around = cv2.GaussianBlur(grey * free, (0, 0), 8.0) / (
        cv2.GaussianBlur(free, (0, 0), 8.0) + 1e-3
    )
    return (grey - around) * free, free


def _mismatch(
    views: Sequence[NDArray[np.float32]],
    free: Sequence[NDArray[np.float32]],
    pan: float,
    zoom: float,
) -> float:
    """Mean absolute difference of two views after moving the first one, where both are free."""
    s = float(np.exp(zoom))
    matrix = np.array(
        [
            [s, 0.0, (1 - s) * (_WIDTH - 1) / 2 + pan * _WIDTH],
            [0.0, s, (1 - s) * (_HEIGHT - 1) / 2],
        ]
    )
    size = (_WIDTH, _HEIGHT)
    moved = cv2.warpAffine(views[0], matrix, size, flags=cv2.INTER_LINEAR)
    both = cv2.warpAffine(free[0], matrix, size, flags=cv2.INTER_NEAREST) * free[1]
    total = float(cv2.sumElems(both)[0])
    return float(cv2.norm(moved * both, views[1] * both, cv2.NORM_L1)) / max(1.0, total)
