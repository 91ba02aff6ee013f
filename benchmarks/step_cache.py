"""How much faster is spark with its step caches, and how much does the clip change?

Target: the balanced setting at least 1.5 times as fast as none, at SSIM 0.95 against none.
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np

from benchmarks.machine import machine_line
from kinoloom.backends.base import Inputs, Speed, Take
from kinoloom.backends.local.backend import LocalBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.planner.acceleration import resolve_speed
from kinoloom.request import Level

TARGET, SIMILAR = 1.5, 0.95
FRAMES, STEPS = 25, 20
PROMPTS = (
    "a red ball rolling to the right on green grass",
    "a small blue triangle bouncing in the snow, the camera pans left",
    "a huge yellow star falling at night",
)
ROUNDS = 2


def ssim(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Structural similarity of two clips, uint8 [T, H, W, 3], the mean over all pixels.

    Wang et al. 2004, "Image Quality Assessment: From Error Visibility to Structural Similarity":
    Gaussian window of 11 pixels and sigma 1.5, K1 = 0.01, K2 = 0.03, each colour by itself.
    """
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2

    def blur(picture: np.ndarray) -> np.ndarray:
        return cv2.GaussianBlur(picture, (11, 11), 1.5)

    found = []
    for x, y in zip(ours.astype(np.float64), theirs.astype(np.float64), strict=True):
        mx, my = blur(x), blur(y)
        vx, vy, both = blur(x * x) - mx * mx, blur(y * y) - my * my, blur(x * y) - mx * my
        top = (2 * mx * my + c1) * (2 * both + c2)
        found.append(top / ((mx * mx + my * my + c1) * (vx + vy + c2)))
    return float(np.mean(found))


def renderer(card: ModelCard, home: Path) -> Callable[[str, int, Speed], np.ndarray]:
    """A function that renders a prompt with a seed and a speed, with the model held."""
    backend = LocalBackend(Settings(home=home, device="cpu"))
    (width, height), fps = card.sizes.default, card.fps.default

    def render(prompt: str, seed: int, speed: Speed) -> np.ndarray:
        take = Take(
            task="t2v",
            prompt=prompt,
            negative="",
            width=width,
            height=height,
            frames=FRAMES,
            fps=fps,
            steps=STEPS,
            guidance=card.guidance.default,
            seed=seed,
            device=f"cpu x{os.cpu_count()}",
            speed=speed,
        )
        return backend.render(take, card, Inputs(), lambda _: None).frames

    return render


def main() -> None:
    """Print the table."""
    card = Catalog.load().get("spark")
    levels: tuple[Level, ...] = ("lossless", "balanced", "fast")
    speeds = {
        level: resolve_speed(
            card,
            "t2v",
            level,
            guidance=card.guidance.default,
            steps=STEPS,
            frames=FRAMES,
            placement="resident",
            device_kind="cpu",
        )[0]
        for level in levels
    }
    walls: dict[str, list[float]] = {level: [] for level in levels}
    same: dict[str, list[float]] = {level: [] for level in levels}
    plain = []
    with tempfile.TemporaryDirectory() as folder:
        render = renderer(card, Path(folder))
        for prompt in PROMPTS:  # what is loaded or cached once is not counted
            render(prompt, 0, Speed())
        for seed, prompt in enumerate(PROMPTS * ROUNDS):
            clips, taken = {}, {}
            for level in levels:
                begin = time.perf_counter()
                clips[level] = render(prompt, seed, speeds[level])
                taken[level] = time.perf_counter() - begin
            plain.append(taken["lossless"])
            for level in levels:
                walls[level].append(taken["lossless"] / taken[level])
                same[level].append(ssim(clips[level], clips["lossless"]))
    print(machine_line())
    print(f"{FRAMES} frames, {STEPS} steps, {len(plain)} clips, all of a clip in one turn")
    print(f"{'acceleration':14s} {'seconds':>8s} {'faster':>8s} {'SSIM':>8s} {'lowest':>8s}")
    base = statistics.median(plain)
    for level in levels:
        ratio = statistics.median(walls[level])
        print(
            f"{level:14s} {base / ratio:8.2f} {ratio:8.2f}"
            f" {statistics.mean(same[level]):8.4f} {min(same[level]):8.4f}"
        )
    met = statistics.median(walls["balanced"]) >= TARGET and min(same["balanced"]) >= SIMILAR
    print(f"target {TARGET} at SSIM {SIMILAR}: {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
