"""How does spark's autoencoder learn to carry the shape of small things?

    python -m training.spark.outlines --minutes 60

It goes on from the autoencoder that is there. The pixels of a small star are a hundredth of a
picture and blur to a dot at little cost, so a loss of pixels alone takes very long to bring its
points out. Here two small heads that are thrown away afterwards read where the object is, how large
it is and which shape it has (``landmarks.py``): one off the latents, so that they say it, and one
off the decoder's widest features, so that the outline is known before it is drawn. Things are
rendered in windows around the object, small ones and stars more often than the world shows them.

The latents of cells without the object are held where they were: what a transformer has learnt of
backgrounds and cameras stays true, and training it on is short.
"""

from __future__ import annotations

import argparse
import copy
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution

from training.spark import vae as vae_module
from training.spark.bank import CELL, SPAN, Sample, track_of
from training.spark.landmarks import Landmarks, Truth
from training.spark.muon import Muon
from training.spark.precision import half_precision
from training.spark.run import Run
from training.spark.world import HEIGHT, WIDTH, Scene, render

# (share of the steps, height, width, frames, windows in a batch)
WINDOWS = (
    (0.55, 64, 64, 9, 12),
    (0.2, 96, 96, 9, 6),
    (0.13, 96, 96, 17, 4),
    (0.12, HEIGHT, WIDTH, 9, 2),
)
SHARE = 0.1  # of each head's loss beside that of the pixels
HOLD = 0.2  # of how far latents without the object may move
SMALL, STAR = 0.35, 0.2  # scenes that are made small, or stars, whatever the world drew


class Windows:
    """A batch of windows: films [B, 3, T, h, w] in -1..1, masks [B, 1, T, h, w] in 0..1."""

    def __init__(
        self, rng: np.random.Generator, height: int, width: int, frames: int, count: int
    ) -> None:
        films, masks = [], []
        self.scenes, self.tracks = [], []
        for _ in range(count):
            scene = hard_scene(rng)
            film, mask = render(scene, frames)
            x, y = vae_module.corner(rng, mask, height, width)
            cut = np.s_[:, y : y + height, x : x + width]
            films.append(vae_module.to_tensor(np.ascontiguousarray(film[cut])))
            masks.append(torch.from_numpy(np.ascontiguousarray(mask[cut])).float()[None] / 255)
            self.scenes.append(scene)
            # Of the whole object, for the window may cut it.
            self.tracks.append(track_of(mask) - torch.tensor([x, y, x, y, 0, 0]).float())
        self.films, self.masks = torch.stack(films), torch.stack(masks)

    def truth(self, latents: torch.Tensor) -> Truth:
        """What heads should say of the latents [B, C, F, h, w] of these windows."""
        empty = torch.zeros(0)
        return Truth(
            [
                Sample(scene, z, empty, empty, track)
                for scene, z, track in zip(self.scenes, latents, self.tracks, strict=True)
            ],
            str(latents.device),
        )

    def without_object(self) -> torch.Tensor:
        """1 for the cells that the object does not touch [B, 1, F, h, w]."""
        lead = self.masks[:, :, :1].expand(-1, -1, SPAN - 1, -1, -1)
        touched = F.max_pool3d(torch.cat([lead, self.masks], 2), (SPAN, CELL, CELL))
        return (touched < 0.5).float()


def hard_scene(rng: np.random.Generator) -> Scene:
    """A scene of the world, small and a star more often than the world has it."""
    scene = Scene.draw(rng)
    if rng.random() < SMALL:
        scene = replace(scene, size="small")
    if rng.random() < STAR:
        scene = replace(scene, shape="star")
    return scene


class Heads(torch.nn.Module):
    """One head on the latents, one on the decoder's widest features."""

    def __init__(self, width: int) -> None:
        super().__init__()
        # A cell alone does not show the shape of what lies across several.
        self.around = torch.nn.Conv3d(vae_module.LATENT_CHANNELS, width, 3, padding=1)
        self.on_latents, self.on_features = Landmarks(width), Landmarks(width)

    def loss(
        self, latents: torch.Tensor, features: torch.Tensor, truth: Truth
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The losses on latents [B, C, F, h, w] and on the features that were decoded of them."""
        near = F.silu(self.around(latents))
        return (
            truth.loss(*self.on_latents(_tokens(near))),
            truth.loss(*self.on_features(_tokens(features))),
        )


def _tokens(grid: torch.Tensor) -> torch.Tensor:
    """[B, C, F, h, w] to [B, F*h*w, C]."""
    return grid.flatten(2).transpose(1, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=60, help="training time in all")
    parser.add_argument("--out", type=Path, default=Path("training/spark/out"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--batch-scale", type=int, default=1, help="batch size times this (8 and more on a GPU)"
    )
    parser.add_argument("--lr", type=float, default=4e-3)
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    vae = vae_module.load(args.out, trained_on=False).to(device)
    before = copy.deepcopy(vae.encoder).eval().requires_grad_(False)
    spread = vae.latents_std.view(1, -1, 1, 1, 1).clone()
    heads = Heads(vae.decoder.conv_in.conv.out_channels).to(device)
    modules: dict[str, torch.nn.Module] = {"vae": vae, "heads": heads}
    named = [(n, p) for m in modules.values() for n, p in m.named_parameters()]
    run = Run(args.out, "outlines", modules, Muon(named, args.lr, args.lr / 3), args.minutes)
    heard: list[torch.Tensor] = []
    vae.decoder.mid_block.register_forward_hook(lambda _m, _i, output: heard.append(output))
    shares = [share for share, *_ in WINDOWS]
    sums: list[list[float]] = []
    while run.progress < 1:
        rng = np.random.default_rng((args.seed, 3, run.steps))
        _, height, width, frames, count = WINDOWS[int(rng.choice(len(WINDOWS), p=shares))]
        windows = Windows(rng, height, width, frames, count * args.batch_scale)
        film, mask = windows.films.to(device), windows.masks.to(device)
        with half_precision(device):
            encoded = vae.encoder(film)
            posterior = DiagonalGaussianDistribution(encoded)
            latents = posterior.sample()
            back = vae.decode(latents).sample.float()
            truth = windows.truth(posterior.mean)
            at_latents, at_features = heads.loss(latents, heard.pop(), truth)
            with torch.no_grad():
                held = DiagonalGaussianDistribution(before(film)).mean
        moved = ((posterior.mean - held) / spread).square().mean(1, keepdim=True)
        moved = (moved * windows.without_object().to(device)).mean()
        pixels = vae_module.picture_loss(back, film, mask)
        divergence = posterior.kl().mean() / posterior.mean[0].numel()
        run.step(
            pixels
            + vae_module.DIVERGENCE * divergence
            + SHARE * (at_latents + at_features)
            + HOLD * moved
        )
        with torch.no_grad():
            inside = (back - film).square()[mask.expand_as(back) > 0.5].mean() / 4
        sums.append([x.item() for x in (pixels, inside, at_latents, at_features, moved)])
        if run.steps % 50 == 0:
            means = np.nanmean(sums, 0)
            run.log(
                f"loss {means[0]:.4f}  object {-10 * np.log10(means[1]):.2f} dB"
                f"  landmarks {means[2]:.3f} {means[3]:.3f}  moved {means[4]:.4f}"
            )
            sums.clear()
    run.save()
    run.log("done: psnr {:.2f} dB, object {:.2f} dB".format(*vae_module.psnr(run.averages["vae"])))


if __name__ == "__main__":
    main()
