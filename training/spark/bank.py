"""Where does the transformer's training data come from without an encoder pass a sample?

Clips are rendered and encoded once, kept as half-precision latents, and drawn several times. Every
step adds a few new clips and, once the bank is full, drops the oldest, so the model never sees a
fixed data set. A bank renders at one size: the first stage of the training uses half the width and
height, a quarter of the tokens, to learn what the words mean before it learns how things look.
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

# Share of the drawn batches by length in frames; 1 is a single image.
LENGTHS = {1: 0.07, 9: 0.05, 17: 0.2, 25: 0.4, 33: 0.12, 41: 0.06, 49: 0.1}
TOKENS_A_BATCH = 6400


@dataclass
class Sample:
    """One encoded clip: normalised latents [C, F, h, w] of the clip and [C, 1, h, w] of its last
    frame alone, and how much of each latent cell the object covers, [F, h, w] in 0..1."""

    scene: Scene
    latents: torch.Tensor
    last: torch.Tensor
    cover: torch.Tensor


class Bank:
    """A bounded store of samples by length, of clips `shrink` times smaller than spark's size."""

    def __init__(self, vae: AutoencoderKLLTXVideo, capacity: int, shrink: int = 1) -> None:
        self.vae = vae
        self.shrink = shrink
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
        size = WIDTH // self.shrink, HEIGHT // self.shrink
        rendered = [render(s, frames, *size) for s in scenes]
        film = torch.stack([to_tensor(f) for f, _ in rendered])
        latents = self.encode(film).half().cpu()
        last = self.encode(film[:, :, -1:]).half().cpu()
        for i, scene in enumerate(scenes):
            mask = torch.from_numpy(rendered[i][1]).float()[None, None] / 255
            # The first latent frame stands for one frame, each later one for eight.
            mask = F.pad(mask, (0, 0, 0, 0, 7, 0), mode="constant")
            mask[:, :, :7] = mask[:, :, 7:8]
            cover = F.avg_pool3d(mask, (8, 16, 16))[0, 0].half()
            self.samples[frames].append(Sample(scene, latents[i], last[i], cover))

    def draw(self, rng: np.random.Generator, frames: int, count: int) -> list[Sample]:
        """`count` random samples of one length."""
        kept = self.samples[frames]
        return [kept[int(i)] for i in rng.integers(len(kept), size=count)]


def draw_length(rng: np.random.Generator) -> int:
    """A clip length in frames."""
    return int(rng.choice(list(LENGTHS), p=np.array(list(LENGTHS.values()))))


def batch_size(frames: int, shrink: int, scale: int) -> int:
    """So many clips of that length are one batch: the tokens of a batch are about constant."""
    tokens = ((frames - 1) // 8 + 1) * 160 // shrink**2
    return int(min(32, max(4, TOKENS_A_BATCH // tokens))) * scale
