"""What does a clip of the small world show, going by its pixels alone?

`judge` finds the one object by its colours, which are saturated where the backgrounds are muted,
and says background, colour, shape, size, motion and camera. All that it compares with (colours,
backgrounds, outlines) is measured from the renderer, never typed in, so the two cannot drift apart.
It knows nothing of the model or the prompt.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace
from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

from training.spark.camera import Camera, find_camera
from training.spark.world import HEIGHT, WORLD, Scene, render

Film = NDArray[np.uint8]
Mask = NDArray[np.bool_]

_LEVELS = 32  # a colour axis is cut into so many steps to look labels up
_LEAST_AREA, _MOST_AREA = 0.0008, 0.35  # an object's share of the picture
_LEAST_SHARE = 0.4  # an object's share of all that has an object's colour
_LEAST_SEEN = 0.5  # share of the frames in which the object must be found
_BANDS = 10  # horizontal bands that a background is described by
_FOREIGN = 12.0  # colour distance from which a background is none of the world's
_FINE = 4  # contours are traced at this magnification
_NEIGHBOURS = 5  # prototypes that vote on a shape
# Blurs in pixels, sideways and upwards, at which outlines are learnt; a small model smears motion.
_SOFTNESS = ((0.1, 0.1), (1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (3.5, 0.8), (0.8, 3.5))
# Motions start at about half of the smallest that the renderer draws: ways as shares of width or
# height, growth as a logarithm.
_LEAST_ACROSS, _LEAST_ALONG, _LEAST_HOP, _LEAST_GROWTH = 0.18, 0.18, 0.15, 0.42


@dataclass(frozen=True)
class Track:
    """Where the object was in each frame, in the picture; NaN where it was not found.

    `centres` [T, 2] in pixels, `radii` [T] the radius of a circle of the same area in pixels.
    """

    centres: NDArray[np.float64]
    radii: NDArray[np.float64]


@dataclass(frozen=True)
class Verdict:
    """What was seen, in the words of ``world.json``; None where nothing could be.

    `confidence` holds 0..1 for each attribute that has one: the share of the frames, or the
    distance to the runner-up. `notes` say in plain words what was odd.
    """

    background: str | None
    colour: str | None
    shape: str | None
    size: str | None
    motion: str | None
    camera: str
    track: Track
    confidence: dict[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def judge(film: Film) -> Verdict:
    """Judge a clip, uint8 RGB [T, H, W, 3].

    Raises ValueError when the array is not of that kind. One frame has no motion (None).
    """
    if film.ndim != 4 or film.shape[-1] != 3 or film.dtype != np.uint8 or not len(film):
        raise ValueError(f"uint8 [T, H, W, 3] expected, not {film.dtype} {film.shape}")
    masks, colour, sure_colour = _segment(film)
    covered = np.stack([_widen(m, film.shape[1]) for m in masks])
    background, sure_background = _background(film, covered)
    track = _track(masks)
    seen = np.isfinite(track.radii)
    empty = Verdict(
        background, None, None, None, None, "static", track, {"background": sure_background}
    )
    if seen.mean() < _LEAST_SEEN:
        found = f"an object was found in {seen.sum()} of {len(film)} frames only"
        return replace(empty, camera=find_camera(film, covered).name, notes=(found,))
    notes = [] if seen.all() else [f"no object in {(~seen).sum()} of {len(film)} frames"]
    camera = find_camera(film, covered)
    shape, sure_shape, whole = _shape(masks)
    if not whole:
        notes.append("the object is cut off in every frame")
    motion, sure_motion = _motion(track, camera, film.shape[2], film.shape[1])
    return Verdict(
        background=background,
        colour=colour,
        shape=shape,
        size=_size(track, camera, shape, film.shape[1]),
        motion=motion,
        camera=camera.name,
        track=track,
        confidence={
            "background": sure_background,
            "colour": sure_colour,
            "shape": sure_shape,
            "motion": sure_motion,
        },
        notes=tuple(notes),
    )


# --- the object -----------------------------------------------------------------------------


def _lab(rgb: NDArray[np.floating] | Film) -> NDArray[np.float32]:
    """RGB 0..255 of any shape [..., 3] as CIE L*a*b*, where distances are about what one sees."""
    flat = np.asarray(rgb, np.float32).reshape(1, -1, 3) / 255
    lab: NDArray[np.float32] = cv2.cvtColor(flat, cv2.COLOR_RGB2LAB).reshape(np.shape(rgb))
    return lab


@cache
def _samples() -> list[tuple[str, Film, Mask]]:
    """Frames of every background, far and near, and where their object is."""
    found = []
    for name in WORLD["backgrounds"]:
        for seed in range(12):
            scene = Scene("red", "ball", "small", "still", name, "zoomin", seed)
            film, masks = render(scene, 2)
            found += [(name, f, _widen(m > 0, HEIGHT)) for f, m in zip(film, masks, strict=True)]
    return found


@cache
def _labels() -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """For every colour, how much more it is an object's than a background's, and which object's.

    Returns scores in -1..1 (above 0: an object's) and indices of WORLD["colours"], both
    [32, 32, 32] over red, green and blue.
    """
    axis = (np.arange(_LEVELS) + 0.5) * 256 / _LEVELS
    grid = _lab(np.stack(np.meshgrid(axis, axis, axis, indexing="ij"), -1)).reshape(-1, 3)
    palette = np.array([c["rgb"] for c in WORLD["colours"].values()], np.float64)
    shades = _lab(np.concatenate([palette, 0.9 * palette, 0.8 * palette]))
    seen = np.concatenate([f[~m] for _, f, m in _samples()]) // 16
    met = np.zeros((16, 16, 16), bool)
    met[tuple(seen.T)] = True
    grounds = _lab(np.argwhere(met) * 16.0 + 8)
    to_shade, to_ground = _distances(grid, shades), _distances(grid, grounds)
    nearest = to_shade.argmin(1)
    near, far = to_shade[np.arange(len(grid)), nearest], to_ground.min(1)
    cube = (_LEVELS,) * 3
    scores = ((far - near) / (far + near + 1e-6)).astype(np.float32).reshape(cube)
    return scores, (nearest % len(palette)).astype(np.uint8).reshape(cube)


def _distances(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float32]:
    """Euclidean distances [A, B] between rows."""
    square = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    root: NDArray[np.float32] = np.sqrt(np.maximum(square, 0.0))
    return root


def _segment(film: Film) -> tuple[list[Mask], str | None, float]:
    """Mask [H, W] of the object in each frame, its colour, and that colour's share of it."""
    scores, colours = _labels()
    index = film // (256 // _LEVELS)
    at = index[..., 0], index[..., 1], index[..., 2]
    score, label = scores[at], colours[at]
    votes = np.zeros(len(WORLD["colours"]))
    pieces = [_pieces(s) for s in score]
    for kept, names in zip(pieces, label, strict=True):
        if kept:
            # The rim of a piece is mixed with what is behind it, so its inside votes.
            core = cv2.erode(kept[0].astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
            core = core if core.any() else kept[0]
            votes += np.bincount(names[core], minlength=len(votes)) / core.sum()
    if not votes.any():
        return [np.zeros(f.shape[:2], bool) for f in film], None, 0.0
    best = int(votes.argmax())
    masks = []
    for kept, names in zip(pieces, label, strict=True):
        # Of several pieces, the object is the one with most of the clip's colour.
        own = max(kept, key=lambda m: int((names[m] == best).sum()), default=None)
        masks.append(np.zeros(names.shape, bool) if own is None else own)
    return masks, list(WORLD["colours"])[best], float(votes[best] / votes.sum())


def _pieces(score: NDArray[np.float32]) -> list[Mask]:
    """Connected regions of object colours that an object could be, largest first.

    There is one object: in a picture full of coloured specks, none of them is it.
    """
    soft = cv2.GaussianBlur(score, (0, 0), 0.6)
    _, parts, stats, _ = cv2.connectedComponentsWithStats(
        (soft > 0).astype(np.uint8), connectivity=8
    )
    areas = stats[:, cv2.CC_STAT_AREA] / score.size
    least = max(_LEAST_AREA, _LEAST_SHARE * areas[1:].sum())
    fit = [i for i in range(1, len(areas)) if least <= areas[i] <= _MOST_AREA]
    return [_filled(parts == i) for i in sorted(fit, key=lambda i: -areas[i])[:4]]


def _filled(mask: Mask) -> Mask:
    """The mask without holes, such as a ball's highlight."""
    outlines, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    canvas = np.zeros(mask.shape, np.uint8)
    return np.asarray(cv2.drawContours(canvas, outlines, -1, 1, -1) > 0)


def _widen(mask: Mask, height: int) -> Mask:
    """The mask with its rim and what a soft edge spills around it."""
    reach = max(1, round(height / 20))
    kernel = np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)


def _track(masks: list[Mask]) -> Track:
    centres = np.full((len(masks), 2), np.nan)
    radii = np.full(len(masks), np.nan)
    for t, mask in enumerate(masks):
        ys, xs = np.nonzero(mask)
        if len(xs):
            centres[t] = xs.mean() + 0.5, ys.mean() + 0.5
            radii[t] = np.sqrt(len(xs) / np.pi)
    return Track(centres, radii)


# --- background -----------------------------------------------------------------------------


def _bands(frame: Film, covered: Mask) -> NDArray[np.float32]:
    """Median colour of each horizontal band [_BANDS, 3] in L*a*b*, NaN where nothing is free."""
    found = np.full((_BANDS, 3), np.nan, np.float32)
    edges = np.linspace(0, len(frame), _BANDS + 1).round().astype(int)
    for i in range(_BANDS):
        band = slice(edges[i], edges[i + 1])
        pixels = frame[band][~covered[band]]
        if len(pixels):
            found[i] = _lab(np.median(pixels, 0))
    return found


@cache
def _grounds() -> tuple[list[str], NDArray[np.float32]]:
    """Names [N] and bands [N, _BANDS, 3] of sample backgrounds."""
    samples = _samples()
    bands = np.stack([_bands(f, m) for _, f, m in samples])
    return [name for name, _, _ in samples], bands


def _background(film: Film, covered: NDArray[np.bool_]) -> tuple[str | None, float]:
    """The background whose samples look most like the clip's frames, and its lead over others.

    None when even that one looks different.
    """
    names, known = _grounds()
    keys = np.unique(np.linspace(0, len(film) - 1, 5).round().astype(int))
    nearest: dict[str, float] = dict.fromkeys(WORLD["backgrounds"], 0.0)
    for k in keys:
        apart = np.linalg.norm(known - _bands(film[k], covered[k]), axis=2)
        apart = np.nan_to_num(np.nanmean(apart, 1), nan=100.0)
        for name in nearest:
            nearest[name] += float(min(d for n, d in zip(names, apart, strict=True) if n == name))
    first, second = sorted(nearest, key=lambda n: nearest[n])[:2]
    if nearest[first] > _FOREIGN * len(keys):
        return None, 0.0
    return first, 1 - nearest[first] / max(nearest[second], 1e-6)


# --- shape and size -------------------------------------------------------------------------


def _measures(mask: Mask) -> NDArray[np.float64] | None:
    """Numbers of an outline that do not depend on its size; None for a speck.

    How much of its smallest circle, upright box, convex hull and smallest triangle it fills, how
    many corners a polygon around it has (in tenths), and its roundness 4 pi area / perimeter^2.
    """
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    if not width:
        return None
    cut = np.pad(mask[y : y + height, x : x + width].astype(np.float32), 3)
    fine = cv2.resize(cut, None, fx=_FINE, fy=_FINE)
    fine = (cv2.GaussianBlur(fine, (0, 0), _FINE * 0.6) > 0.5).astype(np.uint8)
    outlines, _ = cv2.findContours(fine, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = max(outlines, key=cv2.contourArea, default=None)
    if outline is None or cv2.contourArea(outline) < 20 * _FINE**2:
        return None
    area = cv2.contourArea(outline)
    _, radius = cv2.minEnclosingCircle(outline)
    _, _, width, height = cv2.boundingRect(outline)
    hull = cv2.contourArea(cv2.convexHull(outline))
    triangle, _ = cv2.minEnclosingTriangle(outline)
    length = cv2.arcLength(outline, True)
    corners = cv2.approxPolyDP(outline, 0.035 * length, True)
    return np.array(
        [
            area / (np.pi * radius**2),
            area / (width * height),
            area / hull,
            area / max(triangle, area),
            min(len(corners), 10) / 10,
            4 * np.pi * area / length**2,
        ]
    )


@cache
def _outlines() -> tuple[list[str], NDArray[np.float64], dict[tuple[str, str], float]]:
    """Names and measures of rendered shapes, sharp and soft, small to large.

    The last value is the radius [pixels, frames of HEIGHT] that is found for a shape and a size.
    """
    names: list[str] = []
    rows: list[NDArray[np.float64]] = []
    radii: dict[tuple[str, str], float] = {}
    for shape in WORLD["shapes"]:
        for size in WORLD["sizes"]:
            found = []
            for seed in range(4):
                scene = Scene("red", shape, size, "still", "grass", "static", seed)
                film, _ = render(scene, 1)
                for across, along in _SOFTNESS:
                    soft = cv2.GaussianBlur(film[0], (0, 0), across, sigmaY=along)
                    mask = _segment(soft[None])[0][0]
                    measures = _measures(mask)
                    if measures is None or _cut_off(mask):
                        continue
                    names.append(shape)
                    rows.append(measures)
                    found.append(np.sqrt(mask.sum() / np.pi))
            radii[shape, size] = float(np.mean(found))
    return names, np.stack(rows), radii


def _cut_off(mask: Mask) -> bool:
    return bool(mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any())


def _shape(masks: list[Mask]) -> tuple[str | None, float, bool]:
    """The shape that most frames show, their share, and whether it is whole in any of them."""
    seen = [m for m in masks if m.any()]
    whole = [m for m in seen if not _cut_off(m)]
    names, known, _ = _outlines()
    scale = np.maximum(known.std(0), 1e-3)
    votes: Counter[str] = Counter()
    for mask in whole or seen:
        measures = _measures(mask)
        if measures is None:
            continue
        apart = np.linalg.norm((known - measures) / scale, axis=1)
        near = Counter(names[i] for i in np.argsort(apart)[:_NEIGHBOURS])
        # Small outlines are coarse: larger ones have more to say.
        votes[near.most_common(1)[0][0]] += int(np.sqrt(mask.sum()))
    if not votes:
        return None, 0.0, bool(whole)
    (shape, count), *_ = votes.most_common(1)
    return shape, count / votes.total(), bool(whole)


def _size(track: Track, camera: Camera, shape: str | None, height: int) -> str | None:
    """The size whose range of radii the object comes closest to, in the middle of the clip."""
    if shape is None:
        return None
    _, magnified = camera.undo(track.centres, len(track.radii), 1, 1)
    radius = float(np.nanmedian(track.radii / magnified)) * HEIGHT / height
    known = _outlines()[2]
    return min(WORLD["sizes"], key=lambda size: abs(np.log(radius / known[shape, size])))


# --- motion ---------------------------------------------------------------------------------


def _motion(track: Track, camera: Camera, width: int, height: int) -> tuple[str | None, float]:
    """The motion of the object in the world, and how far it is from being another one."""
    frames = len(track.radii)
    seen = np.isfinite(track.radii)
    if frames < 3 or seen.sum() < 3:
        return None, 0.0
    places, magnified = camera.undo(track.centres, frames, width, height)
    u = np.linspace(0.0, 1.0, frames)[seen]
    x, y = places[seen].T / np.array([[width], [height]])
    growth = np.log(track.radii / magnified)[seen]
    across, along, larger = (float(np.polyfit(u, v, 1)[0]) for v in (x, y, growth))
    # What is left of the height without its uniform part: a hop comes back, a fall does not.
    hop = float(np.ptp(y - along * u))
    strength = {
        "right" if across > 0 else "left": abs(across) / _LEAST_ACROSS,
        "down" if along > 0 else "up": abs(along) / _LEAST_ALONG,
        "growing" if larger > 0 else "shrinking": abs(larger) / _LEAST_GROWTH,
        "bouncing": hop / _LEAST_HOP,
    }
    first, second = sorted(strength, key=lambda m: -strength[m])[:2]
    if strength[first] < 1:
        return "still", 1 - strength[first]
    return first, 1 - min(1.0, strength[second] / strength[first])
