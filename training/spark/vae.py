"""How is spark's video autoencoder trained?

    python -m training.spark.vae --minutes 30

An LTX VAE of 16x16x8 compression learns to carry the world: on small crops around the object
first, then on larger ones, then on whole frames. Data is rendered as it is needed. It goes on in
``outlines.py``.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLLTXVideo

from training.spark.muon import Muon
from training.spark.precision import half_precision
from training.spark.run import Run
from training.spark.world import HEIGHT, WIDTH, Scene, render

LATENT_CHANNELS = 16
DIVERGENCE = 1e-5  # what the KL divergence counts beside the pixels
SHIPPED = Path("src/kinoloom/catalog/weights/spark")
# (share of the budget at which the stage ends, height, width, frames, batch)
STAGES = ((0.3, 64, 64, 9, 10), (0.62, 96, 96, 17, 4), (1.01, HEIGHT, WIDTH, 17, 1))


def build() -> AutoencoderKLLTXVideo:
    """The autoencoder with the initialisation that lets it learn at all.

    The convolutions that are unfolded into pixels start equal for all sub-pixels (ICNR, Aitken et
    al. 2017, arXiv:1707.02937): with independent ones the training stalls on a checkerboard.
    """
    vae = AutoencoderKLLTXVideo(
        latent_channels=LATENT_CHANNELS,
        block_out_channels=(24, 48, 96, 128),
        down_block_types=("LTXVideo095DownBlock3D",) * 3,
        decoder_block_out_channels=(32, 64, 128),
        layers_per_block=(0, 1, 1, 1),
        decoder_layers_per_block=(0, 2, 1, 2),
        spatio_temporal_scaling=(True, True, True),
        decoder_spatio_temporal_scaling=(True, True, True),
        decoder_inject_noise=(False,) * 4,
        downsample_type=("spatiotemporal",) * 3,
        upsample_residual=(True,) * 3,
        upsample_factor=(1, 2, 2),
        patch_size=2,
        timestep_conditioning=False,
    )
    unfolded = [(vae.decoder.conv_out.conv, vae.config.patch_size**2)]
    unfolded += [(up.conv.conv, 8) for b in vae.decoder.up_blocks for up in b.upsamplers or ()]
    with torch.no_grad():
        # Variance-preserving weights and no biases: torch's defaults shrink the signal at every
        # convolution, until the last norm sees little but biases and every clip decodes alike.
        for module in vae.modules():
            if isinstance(module, torch.nn.Conv3d):
                fan_in = module.weight[0].numel()
                module.weight.normal_(0.0, fan_in**-0.5)
                module.bias.zero_()
        for conv, factor in unfolded:
            first = conv.weight[::factor].clone()
            conv.weight.copy_(first.repeat_interleave(factor, 0))
        # Residual branches start small: the shuffled pixels of the skip paths carry the clip first.
        for name, module in vae.named_modules():
            if name.endswith(("resnets.0", "resnets.1")):
                module.conv2.conv.weight.mul_(0.2)
        # The last channel is the posterior's log variance. At its default of about 0 the noise
        # drowns the latents, and nothing is learnt until they have grown out of it.
        out = vae.encoder.conv_out.conv
        out.weight[-1].zero_()
        out.bias[-1] = -6.0
    return vae


def load(folder: Path, trained_on: bool = True) -> AutoencoderKLLTXVideo:
    """The averaged weights of the last training in `folder`: with `trained_on` those of
    `outlines` if it ran.

    Without any, the shipped ones, from which a later training goes on.
    """
    for name in ("outlines.pt", "vae.pt") if trained_on else ("vae.pt",):
        if (folder / name).exists():
            state = torch.load(folder / name, map_location="cpu", weights_only=True)
            return _with(state["averages"]["vae"])
    shipped = AutoencoderKLLTXVideo.from_pretrained(SHIPPED / "vae", dtype=torch.float32)
    # A loaded one would write into its configuration where it came from.
    return _with(shipped.state_dict())


def _with(weights: dict[str, torch.Tensor]) -> AutoencoderKLLTXVideo:
    """An autoencoder with these weights; layers that they lack do nothing yet."""
    vae = build()
    missing, strange = vae.load_state_dict(weights, strict=False)
    if strange:
        raise SystemExit(f"These weights are of another autoencoder: {strange[0]}.")
    with torch.no_grad():
        for name in missing:
            if ".conv2." in name:
                vae.get_parameter(name).zero_()
    return vae


def to_tensor(film: np.ndarray) -> torch.Tensor:
    """uint8 [T, H, W, 3] to float [3, T, H, W] in -1..1."""
    return torch.from_numpy(film).permute(3, 0, 1, 2).float() / 127.5 - 1


def corner(rng: np.random.Generator, masks: np.ndarray, height: int, width: int) -> tuple[int, int]:
    """Left and top of a window with some of the object of `masks` [T, H, W] inside.

    0, 0 for a window as large as the picture, or where there is no object.
    """
    ys, xs = np.nonzero(masks.max(0))
    if not len(xs):
        return 0, 0
    i = int(rng.integers(len(xs)))
    x = int(xs[i]) - int(rng.integers(width))
    y = int(ys[i]) - int(rng.integers(height))
    return int(np.clip(x, 0, WIDTH - width)), int(np.clip(y, 0, HEIGHT - height))


def batch(
    rng: np.random.Generator, height: int, width: int, frames: int, count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Clips [B, 3, T, h, w] cut around the object, and its masks [B, 1, T, h, w] in 0..1."""
    films, masks = [], []
    for _ in range(count):
        film, mask = render(Scene.draw(rng), frames)
        x, y = corner(rng, mask, height, width)
        cut = np.s_[:, y : y + height, x : x + width]
        film, mask = film[cut], mask[cut]
        films.append(to_tensor(np.ascontiguousarray(film)))
        masks.append(torch.from_numpy(np.ascontiguousarray(mask)).float()[None] / 255)
    return torch.stack(films), torch.stack(masks)


def loss_of(vae: AutoencoderKLLTXVideo, film: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Reconstruction weighted towards the object and its rim, edges, and a little KL."""
    with half_precision(film.device.type):
        posterior = vae.encode(film).latent_dist
        back = vae.decode(posterior.sample()).sample
    pixels = picture_loss(back.float(), film, mask)
    return pixels + DIVERGENCE * posterior.kl().mean() / posterior.mean[0].numel()


def picture_loss(back: torch.Tensor, film: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Error of decoded clips [B, 3, T, H, W]: pixels and edges, the object's rim above all."""
    wide = F.max_pool3d(mask, (1, 7, 7), 1, (0, 3, 3))
    weight = 1 + 5 * wide
    weight = weight / weight.mean()
    diff = back - film
    pixels = (weight * (diff.abs() + 2 * diff.square())).mean()
    edges = (weight[..., 1:] * (diff[..., 1:] - diff[..., :-1]).abs()).mean() + (
        weight[..., 1:, :] * (diff[..., 1:, :] - diff[..., :-1, :]).abs()
    ).mean()
    return pixels + 0.5 * edges


@torch.no_grad()
def psnr(
    vae: AutoencoderKLLTXVideo, clips: int = 6, frames: int = 25, seed: int = 10**6
) -> tuple[float, float]:
    """PSNR in dB over whole held-out clips, and over the pixels of their objects."""
    rng = np.random.default_rng(seed)
    errors, object_errors = [], []
    for _ in range(clips):
        film, mask = batch(rng, HEIGHT, WIDTH, frames, 1)
        device = next(vae.parameters()).device
        with half_precision(device.type):
            back = vae.decode(vae.encode(film.to(device)).latent_dist.mode()).sample
        square = (back.float().cpu().clamp(-1, 1) - film).square() / 4
        errors.append(square.mean().item())
        inside = mask.expand_as(square) > 0.5
        object_errors.append(square[inside].mean().item())
    return tuple(float(-10 * np.log10(np.mean(e))) for e in (errors, object_errors))  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--minutes", type=float, default=30, help="training time in all, resumed runs counted in"
    )
    parser.add_argument(
        "--out", type=Path, default=Path("training/spark/out"), help="folder of checkpoints"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--batch-scale", type=int, default=1, help="batch size times this (8 and more on a GPU)"
    )
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    vae = build().to(device)
    optimizer = Muon(vae.named_parameters(), lr=4e-3, scalar_lr=2e-3)
    run = Run(args.out, "vae", {"vae": vae}, optimizer, args.minutes)
    while run.progress < 1:
        rng = np.random.default_rng((args.seed, 0, run.steps))
        _, height, width, frames, count = next(s for s in STAGES if run.progress < s[0])
        if height == HEIGHT:
            frames = int(rng.choice([1, 9, 17, 25], p=[0.1, 0.2, 0.4, 0.3]))
            count = {1: 8, 9: 2}.get(frames, 1)
        film, mask = batch(rng, height, width, frames, count * args.batch_scale)
        loss = loss_of(vae, film.to(device), mask.to(device))
        run.step(loss)
        if run.steps % 50 == 0:
            run.log(f"loss {loss.item():.4f}  {height}x{width}x{frames}")
        if run.steps % 500 == 0:
            run.log("psnr {:.2f} dB, object {:.2f} dB".format(*psnr(run.averages["vae"], clips=3)))
    run.save()
    run.log("done: psnr {:.2f} dB, object {:.2f} dB".format(*psnr(run.averages["vae"], clips=12)))


if __name__ == "__main__":
    main()
