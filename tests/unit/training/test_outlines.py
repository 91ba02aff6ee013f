"""Is the autoencoder's further training told the truth, and does it begin where it was?"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKLLTXVideo

from training.spark import vae as vae_module
from training.spark.bank import CELL
from training.spark.outlines import Heads, Windows, hard_scene
from training.spark.world import HEIGHT, WIDTH


def test_it_begins_with_the_shipped_autoencoder(tmp_path: Path) -> None:
    torch.manual_seed(0)
    shipped = AutoencoderKLLTXVideo.from_pretrained(
        vae_module.SHIPPED / "vae", dtype=torch.float32
    ).eval()
    loaded = vae_module.load(tmp_path).eval()
    clip = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    with torch.inference_mode():
        ours, theirs = (m(clip).sample for m in (loaded, shipped))
    # The decoder may be deeper than the one that was shipped: what is new does nothing yet.
    assert torch.allclose(ours, theirs, atol=1e-4)
    assert torch.equal(loaded.latents_mean, shipped.latents_mean)


def test_a_window_shows_the_object_and_says_where_it_is() -> None:
    windows = Windows(np.random.default_rng(3), 64, 64, 9, 16)
    assert windows.films.shape == (16, 3, 9, 64, 64)
    for mask, track in zip(windows.masks[:, 0], windows.tracks, strict=True):
        assert mask.any()
        first = mask[0].numpy() > 0.5
        inner = np.zeros_like(first)
        inner[4:-4, 4:-4] = True
        # Of an object that is whole inside, the track must be where its pixels are.
        if first.any() and not (first & ~inner).any():
            y, x = np.argwhere(first).mean(0)
            assert track[0, :2].tolist() == pytest.approx([x, y], abs=0.6)


def test_whole_frames_are_windows_too() -> None:
    windows = Windows(np.random.default_rng(3), HEIGHT, WIDTH, 9, 2)
    assert windows.masks.shape == (2, 1, 9, HEIGHT, WIDTH)


def test_cells_without_the_object_are_told_from_the_others() -> None:
    windows = Windows(np.random.default_rng(5), 64, 64, 9, 2)
    windows.masks.zero_()
    windows.masks[0, 0, 0, 20, 40] = 1  # in the first frame, the cell of row 1 and column 2
    windows.masks[1, 0, 8, 0, 63] = 1  # in the last one, row 0 and column 3
    free = windows.without_object()
    assert free.shape == (2, 1, 2, 64 // CELL, 64 // CELL)
    touched = [tuple(at) for at in (free == 0).nonzero().tolist()]
    assert touched == [(0, 0, 0, 1, 2), (1, 0, 1, 0, 3)]


def test_the_heads_teach_what_they_read() -> None:
    torch.manual_seed(0)
    windows = Windows(np.random.default_rng(7), 64, 64, 9, 2)
    latents = torch.randn(2, vae_module.LATENT_CHANNELS, 2, 4, 4, requires_grad=True)
    features = torch.randn(2, 8, 2, 4, 4, requires_grad=True)
    losses = Heads(8).loss(latents, features, windows.truth(latents))
    sum(losses).backward()
    assert latents.grad.abs().sum() > 0
    assert features.grad.abs().sum() > 0


def test_small_ones_and_stars_are_rendered_more_often() -> None:
    rng = np.random.default_rng(0)
    scenes = [hard_scene(rng) for _ in range(600)]
    assert np.mean([s.size == "small" for s in scenes]) > 0.45
    assert np.mean([s.shape == "star" for s in scenes]) > 0.33
