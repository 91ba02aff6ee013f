"""What can be measured on a clip, in physical units, before anything is judged?

Every measure alone is fooled: a frozen clip has no warp error, noise has the highest Laplacian
variance. `score` puts them together.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Iterable, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from kinoloom.errors import InvalidMedia
from kinoloom.media.frames import Frame, checked_frame

_FloatArray = npt.NDArray[np.float32]

FLOW_SIDE = 320
"""Pixels. Motion is followed at this longer side: a quarter of the time of full size, and generated
motion is large against a pixel of it."""

_COLOUR_SIDE = 64
_SHARPNESS_FRAMES = 16
"""Blur hardly changes from frame to frame, so this many, evenly spread, tell it for the clip."""

_SHARPNESS_SIDE = 1280
_SMALLEST_FLOW_SIDE = 32
"""The flow looks at patches of 8 pixels on three scales; smaller pictures are extended."""

_REBLUR = 11
"""Pixels of the box filter of Crete et al. (2007)."""

_MOVED = 1.5
"""Grey levels, averaged over 8x8 pixels, from which on a place counts as changed. Encoding noise of
a held frame stays below 1, a slowly moving edge is far above."""

_LOOKS_DIFFERENT = 12
"""Grey levels between a pixel and its partner, about 5 % of the range, that the eye notices."""

_FINE_FLOOR = 0.5
"""Grey levels of fine detail below which rounding to 8 bits decides, not the picture."""


_THREADS = min(4, os.cpu_count() or 1)
_own = threading.local()
"""Each thread's optical flow: it keeps buffers between calls."""


@dataclass(frozen=True)
class Measures:
    """What was measured on `count` frames; None where there were too few frames to measure it.

    acuity: 1 - blur effect of Crete et al. (2007), 0 blurred .. 1 sharp; None without any edge.
    detail: variance of the Laplacian, grey levels squared.
    noise: share of the fine detail, 0..1, that does not move along with the picture.
    warp_error: mean grey levels between a frame and the next one moved back along the optical flow.
    lost: share of pixels, 0..1, that the next frame has nowhere: the flow does not lead back to
        them and what it leads to looks different.
    colour_step: CIE Lab distance between the chroma statistics of neighbouring frames, mean.
    colour_drift: the same distance between the first and the last quarter of the clip.
    luma_jerk: mean second difference of the brightness of 4x4 regions, grey levels.
    change: mean difference of neighbouring frames, 0..1 (1 - it is VBench's flicker formula).
    moving: for each pair of neighbours whether anything moved at all.
    """

    count: int
    acuity: float | None
    detail: float
    noise: float | None
    warp_error: float | None
    lost: float | None
    colour_step: float | None
    colour_drift: float | None
    luma_jerk: float | None
    change: float | None
    moving: tuple[bool, ...]


def measure(frames: Iterable[Frame], expected: int | None = None) -> Measures:
    """Measure a clip of uint8 RGB frames [H, W, 3], one pass, a few small frames in memory.

    `expected` is about how many frames an iterator will give; sharpness is sampled evenly over
    them. Raises InvalidMedia when there are no frames, or when they are not RGB of one size.
    """
    if expected is None:
        expected = len(frames) if isinstance(frames, Sized) else _SHARPNESS_FRAMES
    last = max(0, expected - 1)
    sampled = set(np.linspace(0, last, min(last + 1, _SHARPNESS_FRAMES)).round().astype(int))
    acuities: list[float | None] = []
    details: list[float] = []
    pairs: list[Pair] = []
    waiting: deque[Future[Pair]] = deque()
    chroma: list[_FloatArray] = []
    regions: list[_FloatArray] = []
    before: Frame | None = None
    shape: tuple[int, ...] | None = None
    count = 0
    # Pairs are compared beside each other: OpenCV leaves Python's lock while it works.
    with ThreadPoolExecutor(_THREADS, "kinoloom-score") as pool:
        for index, raw in enumerate(frames):
            frame = checked_frame(raw, f"Frame {index}")
            if shape is not None and frame.shape != shape:
                raise InvalidMedia(
                    f"Frame {index} differs in size from the first.",
                    cause="All frames of a clip must have one size.",
                )
            shape = frame.shape
            count += 1
            grey = np.asarray(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), dtype=np.uint8)
            small = extended(shrunk(grey, FLOW_SIDE))
            if before is not None:
                waiting.append(pool.submit(compare, before, small))
                if len(waiting) > 2 * _THREADS:  # a long clip must not pile up in memory
                    pairs.append(waiting.popleft().result())
            before = small
            if index in sampled:
                near = shrunk(grey, _SHARPNESS_SIDE)
                acuities.append(_acuity(near))
                details.append(float(cv2.meanStdDev(cv2.Laplacian(near, cv2.CV_16S))[1][0, 0] ** 2))
            chroma.append(_chroma(frame))
            regions.append(_regions(small))
        pairs.extend(future.result() for future in waiting)
    if count == 0:
        raise InvalidMedia("There are no frames to score.", cause="The clip is empty.")
    known = [a for a in acuities if a is not None]
    step, drift = _colour(chroma)
    jerks = np.abs(np.diff(np.stack(regions), 2, axis=0))
    return Measures(
        count=count,
        acuity=float(np.mean(known)) if known else None,
        detail=float(np.mean(details)),
        noise=_mean([p.noise for p in pairs]),
        warp_error=_mean([p.error for p in pairs]),
        lost=_mean([p.lost for p in pairs]),
        colour_step=step,
        colour_drift=drift,
        luma_jerk=float(jerks.mean()) if jerks.size else None,
        change=_mean([p.change for p in pairs]),
        moving=tuple(p.moved for p in pairs),
    )


@dataclass(frozen=True)
class Pair:
    """What two neighbouring frames tell."""

    error: float
    lost: float
    noise: float
    change: float
    moved: bool


def compare(first: Frame, second: Frame) -> Pair:
    """What changed between two grey pictures [H, W] of one size that motion does not explain."""
    difference = cv2.absdiff(first, second)
    change = float(cv2.mean(difference)[0]) / 255
    moved = float(cv2.blur(difference.astype(np.float32), (8, 8)).max()) > _MOVED
    if not difference.any():
        return Pair(error=0.0, lost=0.0, noise=0.0, change=0.0, moved=False)
    forth, back = follow(first, second), follow(second, first)
    height, width = first.shape
    x, y = np.meshgrid(
        np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32), copy=False
    )
    at_x, at_y = x + forth[..., 0], y + forth[..., 1]
    moved_back = cv2.remap(second, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    warped = np.asarray(moved_back, dtype=np.uint8)
    found = cv2.remap(back, at_x, at_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    returned = np.asarray(found, dtype=np.float32)
    # Occlusion by the forward-backward check of Sundaram, Brox and Keutzer (2010), equation 5.
    gap = _squared(forth + returned)
    visible = gap < 0.01 * (_squared(forth) + _squared(returned)) + 0.5
    # What has left the picture has no partner and is nobody's fault.
    inside = (at_x >= 0) & (at_x <= width - 1) & (at_y >= 0) & (at_y <= height - 1)
    judged = (visible & inside).astype(np.uint8)
    apart = cv2.absdiff(first, warped)
    # In flat areas the flow is arbitrary and yet right: only what also looks different is lost.
    lost = inside & ~visible & (apart > _LOOKS_DIFFERENT)
    return Pair(
        error=float(cv2.mean(apart, judged)[0]),
        lost=float(lost.sum()) / max(1.0, float(inside.sum())),
        noise=_incoherent(first, warped),
        change=change,
        moved=moved,
    )


def follow(first: Frame, second: Frame) -> _FloatArray:
    """Where each pixel went: [H, W, 2], x and y in pixels."""
    if not hasattr(_own, "flow"):
        _own.flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    flow: cv2.DISOpticalFlow = _own.flow
    # OpenCV's own type hints miss that the third argument may be None: no first guess.
    return np.asarray(flow.calc(first, second, None), dtype=np.float32)  # type: ignore[call-overload]


def _incoherent(first: Frame, warped: Frame) -> float:
    """Share of the fine detail's energy that differs after motion is taken out: 0 the same, 1 none.

    For two independent signals of equal energy E[(a-b)^2] / (E[a^2] + E[b^2]) is 1.
    """
    a, b = _fine(first), _fine(warped)
    energy = float(cv2.norm(a, cv2.NORM_L2SQR) + cv2.norm(b, cv2.NORM_L2SQR)) / a.size
    apart = float(cv2.norm(a, b, cv2.NORM_L2SQR)) / a.size
    return min(1.0, apart / (energy + _FINE_FLOOR))


def _fine(grey: Frame) -> _FloatArray:
    sharp = grey.astype(np.float32)
    return np.asarray(sharp - cv2.GaussianBlur(sharp, (5, 5), 1.0), dtype=np.float32)


def _squared(vectors: npt.NDArray[np.float32]) -> _FloatArray:
    x, y = vectors[..., 0], vectors[..., 1]
    return np.asarray(x * x + y * y, dtype=np.float32)


def _acuity(grey: Frame) -> float | None:
    """1 - the perceptual blur of Crete et al., "The Blur Effect" (2007): how much of the edges a
    second blurring takes away. Nearly independent of how many edges there are. None without any."""
    sharp = grey.astype(np.float32)
    worst: float | None = None
    for (dx, dy), box in (((1, 0), (_REBLUR, 1)), ((0, 1), (1, _REBLUR))):
        edges = np.abs(cv2.Sobel(sharp, cv2.CV_32F, dx, dy))
        blurred = np.abs(cv2.Sobel(cv2.blur(sharp, box), cv2.CV_32F, dx, dy))
        total = float(edges.sum())
        if total > edges.size * 1e-3:
            lost = float(cv2.subtract(edges, cv2.min(edges, blurred)).sum()) / total
            worst = lost if worst is None else min(worst, lost)
    return worst


def _chroma(frame: Frame) -> _FloatArray:
    """Mean and spread of Lab a and b of one frame: [4], CIE units."""
    tiny = shrunk(frame, _COLOUR_SIDE).astype(np.float32) / 255
    lab = cv2.cvtColor(tiny, cv2.COLOR_RGB2LAB)
    mean, spread = cv2.meanStdDev(lab)
    return np.concatenate([mean[1:, 0], spread[1:, 0]]).astype(np.float32)


def _colour(chroma: list[_FloatArray]) -> tuple[float | None, float | None]:
    if len(chroma) < 2:
        return None, None
    every = np.stack(chroma)
    quarter = max(1, len(every) // 4)
    step = np.linalg.norm(np.diff(every, axis=0), axis=1).mean()
    drift = np.linalg.norm(every[-quarter:].mean(axis=0) - every[:quarter].mean(axis=0))
    return float(step), float(drift)


def _regions(grey: Frame) -> _FloatArray:
    return np.asarray(
        cv2.resize(grey.astype(np.float32), (4, 4), interpolation=cv2.INTER_AREA), dtype=np.float32
    )


def shrunk(picture: Frame, side: int) -> Frame:
    """The picture with its longer side at most `side` pixels."""
    height, width = picture.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return picture
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def extended(grey: Frame) -> Frame:
    """A grey picture at least as large as the optical flow needs, its edges repeated."""
    height, width = grey.shape
    bottom, right = (max(0, _SMALLEST_FLOW_SIDE - n) for n in (height, width))
    if not bottom and not right:
        return grey
    larger = cv2.copyMakeBorder(grey, 0, bottom, 0, right, cv2.BORDER_REPLICATE)
    return np.asarray(larger, dtype=np.uint8)


def _mean(values: list[float]) -> float | None:
    return float(np.mean(values)) if values else None
