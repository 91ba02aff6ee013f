"""Where does the transformer's training data come from without an encoder pass a sample?

Clips are rendered and encoded once, kept as half-precision latents, and drawn several times. Every
step adds a few new clips and, once the bank is full, drops the oldest, so the model never sees a
fixed data set. A bank renders at one size: the first stage of the training uses a smaller picture
with things as large as ever, 40 % of the tokens and of the encoder's work, to learn what the words
mean and how things look before it learns to fill a whole picture.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLLTXVideo

from training.spark.precision import half_precision
from training.spark.vae import to_tensor
from training.spark.world import HEIGHT, WIDTH, Scene, render

CELL = 16  # pixels a latent is wide and high
SPAN = 8  # frames that a latent stands for, but the first
WHOLE, SMALL = (WIDTH, HEIGHT), (144, 112)
# Share of the drawn batches by length in frames; 1 is a single image.
LENGTHS = {1: 0.12, 9: 0.08, 17: 0.2, 25: 0.35, 33: 0.1, 41: 0.05, 49: 0.1}
TOKENS_A_BATCH = 6400
MOST_A_BATCH = 64


@dataclass
class Sample:
    """One encoded clip: normalised latents [C, F, h, w] of the clip and [C, 1, h, w] of its last
    frame alone, how much of each latent cell the object covers, [F, h, w] in 0..1, and its track
    [F, 6] in pixels, as `track_of` tells it."""

    scene: Scene
    latents: torch.Tensor
    last: torch.Tensor
    cover: torch.Tensor
    track: torch.Tensor


def track_of(masks: np.ndarray) -> torch.Tensor:
    """Where the object is in each latent frame, [F, 6] in pixels from masks 0/255 [T, H, W].

    Its x and y in the first frame that the latent stands for, its x and y in the last, and its
    radius (that of a disc of its area) in both; NaN where it cannot be seen in both.
    """
    inside = (masks > 127).astype(np.float32)
    area = inside.sum((1, 2))
    area[area == 0] = np.nan
    x = (inside.sum(1) * np.arange(masks.shape[2])).sum(1) / area
    y = (inside.sum(2) * np.arange(masks.shape[1])).sum(1) / area
    radius = np.sqrt(area / np.pi)
    first = np.r_[0, np.arange(1, len(masks), SPAN)]
    last = np.r_[0, np.arange(SPAN, len(masks), SPAN)]
    track = np.stack([x[first], y[first], x[last], y[last], radius[first], radius[last]], 1)
    return torch.from_numpy(track.astype(np.float32))


class Bank:
    """A bounded store of samples by length, of clips of one size (width, height) in pixels."""

    def __init__(
        self, vae: AutoencoderKLLTXVideo, capacity: int, size: tuple[int, int] = WHOLE
    ) -> None:
        self.vae = vae
        self.size = size
        self.device = next(vae.parameters()).device
        self.mean = vae.latents_mean.view(1, -1, 1, 1, 1)
        self.std = vae.latents_std.view(1, -1, 1, 1, 1)
        self.samples: dict[int, deque[Sample]] = {
            frames: deque(maxlen=max(64, int(share * capacity)))
            for frames, share in LENGTHS.items()
        }

    @torch.no_grad()
    def encode(self, film: torch.Tensor) -> torch.Tensor:
        """Normalised latents of clips [B, 3, T, H, W] in -1..1."""
        with half_precision(self.device.type):
            z = self.vae.encode(film.to(self.device)).latent_dist.mode()
        return (z.float() - self.mean) / self.std

    def add(self, rng: np.random.Generator, frames: int, count: int) -> None:
        """Render and encode `count` new clips of one length."""
        scenes = [Scene.draw(rng) for _ in range(count)]
        rendered = [render(s, frames, *self.size) for s in scenes]
        film = torch.stack([to_tensor(f) for f, _ in rendered])
        latents = self.encode(film).half().cpu()
        last = self.encode(film[:, :, -1:]).half().cpu()
        for i, scene in enumerate(scenes):
            mask = torch.from_numpy(rendered[i][1]).float()[None, None] / 255
            # The first latent frame stands for one frame, each later one for eight.
            mask = F.pad(mask, (0, 0, 0, 0, SPAN - 1, 0), mode="constant")
            mask[:, :, : SPAN - 1] = mask[:, :, SPAN - 1 : SPAN]
            cover = F.avg_pool3d(mask, (SPAN, CELL, CELL))[0, 0].half()
            track = track_of(rendered[i][1])
            self.samples[frames].append(Sample(scene, latents[i], last[i], cover, track))

    def draw(self, rng: np.random.Generator, frames: int, count: int) -> list[Sample]:
        """`count` random samples of one length."""
        kept = self.samples[frames]
        return [kept[int(i)] for i in rng.integers(len(kept), size=count)]


def draw_length(rng: np.random.Generator) -> int:
    """A clip length in frames."""
    return int(rng.choice(list(LENGTHS), p=np.array(list(LENGTHS.values()))))


def batch_size(frames: int, size: tuple[int, int], scale: int) -> int:
    """So many clips of that length are one batch: the tokens of a batch are about constant."""
    tokens = ((frames - 1) // SPAN + 1) * (size[0] // CELL) * (size[1] // CELL)
    return int(min(MOST_A_BATCH, max(4, TOKENS_A_BATCH // tokens))) * scale
