"""What does the small world that spark knows look like?

A scene is one coloured shape with a size and a motion before a background, seen by a camera
that may pan or zoom. `Scene.draw` picks one at random, `render` turns it into frames. The words
of the world stand in ``world.json``; how they are tokenised stands in ``tokenizer.py``.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

WORLD: dict[str, dict[str, dict[str, Any]]] = json.loads(
    (Path(__file__).parent / "world.json").read_text(encoding="utf-8")
)
WIDTH, HEIGHT, FPS = 256, 160, 12
ATTRIBUTES = ("size", "colour", "shape", "motion", "background", "camera")
_MARGIN = 1.5  # the background is painted this much larger than a frame, so that a camera can move
_SUBPIXEL = 4  # cv2's fixed-point bits: a slow motion is smooth, not stepped


@dataclass(frozen=True)
class Scene:
    """One clip of the world.

    `seed` fixes everything that the words leave open: the place, the exact radius and speed, the
    layout of the background.
    """

    colour: str
    shape: str
    size: str
    motion: str
    background: str
    camera: str = "static"
    seed: int = 0
    say: tuple[str, ...] = field(default=ATTRIBUTES)

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Scene:
        """A random scene, with the motions that are hard to learn drawn more often."""
        motions = list(WORLD["motions"])
        weights = np.array([{"right": 3, "left": 3, "up": 2, "down": 2}.get(m, 1) for m in motions])
        motion = str(rng.choice(motions, p=weights / weights.sum()))
        camera = "static"
        if motion in ("still", "bouncing") and rng.random() < 0.6:
            camera = str(rng.choice([c for c in WORLD["cameras"] if c != "static"]))
        elif motion in ("left", "right", "up", "down") and rng.random() < 0.1:
            camera = str(rng.choice(["zoomin", "zoomout"]))
        return cls(
            colour=str(rng.choice(list(WORLD["colours"]))),
            shape=str(rng.choice(list(WORLD["shapes"]))),
            size=str(rng.choice(list(WORLD["sizes"]))),
            motion=motion,
            background=str(rng.choice(list(WORLD["backgrounds"]))),
            camera=camera,
            seed=int(rng.integers(2**31)),
        )

    def partly_said(self, rng: np.random.Generator, drop: float) -> Scene:
        """The same scene of which the prompt leaves each attribute out with chance `drop`."""
        return replace(self, say=tuple(a for a in ATTRIBUTES if rng.random() >= drop))

    def prompt(self, rng: np.random.Generator) -> str:
        """The scene in words, e.g. ``a small red ball rolling to the right on green grass``."""

        def words(attribute: str) -> str:
            if attribute not in self.say:
                return ""
            said = WORLD[attribute + "s"][getattr(self, attribute)]["say"]
            return str(rng.choice(said)) if said else ""

        noun = words("shape") or "thing"
        subject = " ".join(w for w in (words("size"), words("colour"), noun) if w)
        motion, place, camera = words("motion"), words("background"), words("camera")
        form = rng.random()
        if form < 0.6:
            text = f"a {subject} {motion} {place}"
        elif form < 0.8:
            text = f"{place} a {subject} {motion}"
        else:
            text = ", ".join(w for w in (subject, motion, place) if w)
        return " ".join(f"{text}, {camera}".split()).strip(", ")


def render(
    scene: Scene, frames: int, width: int = WIDTH, height: int = HEIGHT
) -> tuple[np.ndarray, np.ndarray]:
    """Render a scene; a smaller picture shows less of the world, with things as large as ever.

    Returns frames as uint8 RGB [T, H, W, 3] and masks of the object as uint8 0/255 [T, H, W].
    """
    rng = np.random.default_rng(scene.seed)
    canvas = _background(scene.background, int(width * _MARGIN), int(height * _MARGIN), rng)
    low, high = WORLD["sizes"][scene.size]["radius"]
    radius = rng.uniform(low, high)
    places, radii = _path(scene.motion, frames, radius, width, height, rng)
    shift, zoom = _camera(scene.camera, frames, width, rng)
    rgb = np.array(WORLD["colours"][scene.colour]["rgb"], np.float64) * rng.uniform(0.95, 1.0)

    film = np.empty((frames, height, width, 3), np.uint8)
    masks = np.zeros((frames, height, width), np.uint8)
    centre = np.array([width / 2, height / 2])
    for t in range(frames):
        # A camera maps world to screen: the canvas and the object go through the same map.
        s = zoom[t]
        offset = centre - s * (centre + np.array([shift[t], 0.0]))
        origin = (np.array([canvas.shape[1] - width, canvas.shape[0] - height])) / 2
        matrix = np.array([[s, 0, offset[0] - s * origin[0]], [0, s, offset[1] - s * origin[1]]])
        film[t] = cv2.warpAffine(
            canvas, matrix, (width, height), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        _paint(film[t], masks[t], scene.shape, s * places[t] + offset, s * radii[t], rgb)
    return film, masks


def _path(
    motion: str, frames: int, radius: float, width: int, height: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Place [T, 2] and radius [T] of the object in pixels, before the camera."""
    u = np.linspace(0.0, 1.0, frames) if frames > 1 else np.zeros(1)
    x = np.full(frames, rng.uniform(0.3, 0.7) * width)
    y = np.full(frames, rng.uniform(0.42, 0.66) * height)
    scale = np.ones(frames)
    edge = radius + 3
    if motion in ("left", "right"):
        travel = min(rng.uniform(0.4, 0.62) * width, width - 2 * edge)
        start = rng.uniform(edge, max(edge + 1, width - edge - travel))
        x = start + travel * u
        if motion == "left":
            x = width - x
    elif motion in ("up", "down"):
        travel = min(rng.uniform(0.4, 0.6) * height, height - 2 * edge)
        start = rng.uniform(edge, max(edge + 1, height - edge - travel))
        y = start + travel * u
        if motion == "up":
            y = height - y
    elif motion == "bouncing":
        # The floor is low enough that a hop shows; about one hop a second of film.
        hops = max(1, round(frames / FPS))
        floor = height - edge - rng.uniform(0.02, 0.12) * height
        hop = min(rng.uniform(0.35, 0.5) * height, floor - edge)
        y = floor - hop * np.abs(np.sin(math.pi * hops * u))
    elif motion == "growing":
        scale = np.linspace(0.55, 1.35, frames) if frames > 1 else scale
    elif motion == "shrinking":
        scale = np.linspace(1.35, 0.55, frames) if frames > 1 else scale
    return np.stack([x, y], 1), radius * scale


def _camera(
    camera: str, frames: int, width: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Sideways shift in pixels [T] and zoom factor [T]."""
    u = np.linspace(0.0, 1.0, frames) if frames > 1 else np.zeros(1)
    shift, zoom = np.zeros(frames), np.ones(frames)
    if camera in ("panleft", "panright"):
        shift = (u - 0.5) * rng.uniform(0.22, 0.32) * width
        if camera == "panleft":
            shift = -shift
    elif camera in ("zoomin", "zoomout"):
        zoom = 1.0 + u * rng.uniform(0.3, 0.45)
        if camera == "zoomout":
            zoom = zoom[::-1].copy()
    return shift, zoom


def _outline(shape: str) -> np.ndarray:
    """Corners of a shape of radius 1 around the origin, y downwards."""
    if shape == "square":
        return 0.86 * np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]], np.float64)
    if shape == "triangle":
        return np.array([[0, -1.05], [1.1, 0.85], [-1.1, 0.85]], np.float64)
    angles = -math.pi / 2 + np.arange(10) * math.pi / 5
    spikes = np.where(np.arange(10) % 2 == 0, 1.2, 0.52)
    return np.stack([spikes * np.cos(angles), spikes * np.sin(angles)], 1)


def _paint(
    frame: np.ndarray,
    mask: np.ndarray,
    shape: str,
    place: np.ndarray,
    radius: float,
    rgb: np.ndarray,
) -> None:
    """Draw the object with a darker rim and, on a ball, a highlight."""
    rim = max(1.0, 0.09 * radius)
    one = 1 << _SUBPIXEL
    draws = ((1.0, tuple(0.45 * rgb)), (1.0 - rim / radius, tuple(rgb)))
    for target, colours in ((frame, draws), (mask, ((1.0, 255.0),))):
        for scale, colour in colours:
            if shape == "ball":
                cv2.circle(
                    target,
                    tuple(np.round(place * one).astype(int).tolist()),
                    round(radius * scale * one),
                    colour,
                    -1,
                    cv2.LINE_AA,
                    _SUBPIXEL,
                )
            else:
                corners = place + _outline(shape) * radius * scale
                cv2.fillPoly(
                    target,
                    [np.round(corners * one).astype(np.int32)],
                    colour,
                    cv2.LINE_AA,
                    _SUBPIXEL,
                )
    if shape == "ball":
        cv2.circle(
            frame,
            tuple(np.round((place - 0.34 * radius) * one).astype(int).tolist()),
            round(0.26 * radius * one),
            tuple(np.minimum(255, rgb * 0.5 + 120)),
            -1,
            cv2.LINE_AA,
            _SUBPIXEL,
        )


def _gradient(width: int, height: int, top: list[int], bottom: list[int]) -> np.ndarray:
    ramp = np.linspace(0.0, 1.0, height)[:, None, None]
    colours = np.array(top) * (1 - ramp) + np.array(bottom) * ramp
    return np.broadcast_to(colours, (height, width, 3)).astype(np.float32).copy()


def _blobs(
    canvas: np.ndarray,
    rng: np.random.Generator,
    count: int,
    colour: list[int],
    size: tuple[float, float],
    rows: tuple[float, float],
    flat: float,
    blur: float,
) -> None:
    """Blend soft ellipses of one colour into the canvas between two heights (0 top, 1 bottom).

    `count` is for the canvas of a whole picture; a smaller one gets its share.
    """
    height, width = canvas.shape[:2]
    count = max(1, round(count * height * width / (HEIGHT * WIDTH * _MARGIN**2)))
    layer = np.zeros((height, width), np.float32)
    for _ in range(count):
        r = rng.uniform(*size)
        place = (int(rng.uniform(0, width)), int(rng.uniform(*rows) * height))
        cv2.ellipse(layer, place, (max(1, int(r)), max(1, int(r * flat))), 0, 0, 360, 1.0, -1)
    layer = cv2.GaussianBlur(layer, (0, 0), blur)[..., None]
    canvas[:] = canvas * (1 - layer) + np.array(colour, np.float32) * layer


def _background(name: str, width: int, height: int, rng: np.random.Generator) -> np.ndarray:
    """Paint a background, uint8 RGB [height, width, 3].

    Its colours are muted against the objects' and its features are soft and large, so that a tiny
    VAE can carry them and a camera's motion can be seen in them.
    """
    horizon = int(height * rng.uniform(0.42, 0.5))
    canvas = np.empty((height, width, 3), np.float32)
    if name == "sky":
        canvas[:] = _gradient(width, height, [118, 170, 222], [188, 216, 240])
        _blobs(canvas, rng, 9, [240, 244, 248], (16, 38), (0.1, 0.9), 0.42, 5)
    elif name == "night":
        canvas[:] = _gradient(width, height, [10, 12, 34], [34, 32, 70])
        _blobs(canvas, rng, 30, [225, 225, 215], (1.6, 2.6), (0.05, 0.95), 1.0, 1.1)
    else:
        sky, ground = {
            "grass": (([168, 204, 232], [206, 224, 236]), ([112, 152, 84], [82, 122, 62])),
            "desert": (([196, 208, 220], [232, 222, 204]), ([218, 188, 140], [196, 158, 108])),
            "snow": (([150, 166, 190], [196, 206, 220]), ([240, 243, 247], [216, 224, 236])),
            "sea": (([190, 212, 228], [222, 230, 234]), ([74, 124, 150], [40, 80, 108])),
            "room": (([172, 170, 168], [186, 184, 180]), ([128, 104, 84], [104, 82, 66])),
        }[name]
        canvas[:horizon] = _gradient(width, horizon, *sky)
        canvas[horizon:] = _gradient(width, height - horizon, *ground)
        top = horizon / height
        if name == "grass":
            _blobs(canvas, rng, 26, [66, 108, 52], (7, 15), (top + 0.1, 1.0), 0.35, 2.5)
        elif name == "desert":
            _blobs(canvas, rng, 7, [176, 138, 92], (28, 60), (top + 0.12, 1.0), 0.18, 3)
        elif name == "snow":
            _blobs(canvas, rng, 8, [196, 208, 228], (22, 50), (top + 0.12, 1.0), 0.2, 3)
        elif name == "sea":
            _blobs(canvas, rng, 22, [136, 176, 192], (8, 20), (top + 0.08, 1.0), 0.14, 1.6)
        else:
            _blobs(canvas, rng, 5, [150, 146, 142], (12, 26), (0.1, top - 0.1), 0.9, 4)
            _blobs(canvas, rng, 8, [86, 66, 52], (20, 46), (top + 0.1, 1.0), 0.12, 2)
    return np.clip(canvas, 0, 255).astype(np.uint8)
