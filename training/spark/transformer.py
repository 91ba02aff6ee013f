"""How are spark's transformer and text encoder trained?

    python -m training.spark.transformer --minutes 120

Rectified flow (Liu et al. 2022, arXiv:2209.03003) on the latents of the trained VAE: the model sees
x = (1 - sigma) z + sigma noise and predicts noise - z. The same weights learn text-to-video, images
as first frame, a given beginning (extension) and a given last frame, in the very token layout and
with the very coordinates that diffusers' LTXConditionPipeline uses at inference: a beginning
replaces latent frames whose timestep is 0, a last frame is one more latent frame of tokens, in
front of the others. A head beside the transformer reads the object's place and shape off its
hidden states while it trains (``landmarks.py``).
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKLLTXVideo, LTXVideoTransformer3DModel
from transformers import T5Config, T5EncoderModel

from training.spark import tokenizer as words
from training.spark import vae as vae_module
from training.spark.bank import CELL, SMALL, SPAN, WHOLE, Bank, Sample, batch_size, draw_length
from training.spark.landmarks import SHARE, Landmarks, Truth, listening
from training.spark.muon import Muon
from training.spark.precision import half_precision
from training.spark.run import Run
from training.spark.world import FPS

TEXT_DIM = 128


def build() -> tuple[LTXVideoTransformer3DModel, T5EncoderModel]:
    """Transformer and text encoder with fresh weights."""
    transformer = LTXVideoTransformer3DModel(
        in_channels=vae_module.LATENT_CHANNELS,
        out_channels=vae_module.LATENT_CHANNELS,
        num_attention_heads=4,
        attention_head_dim=48,
        cross_attention_dim=192,
        num_layers=8,
        caption_channels=TEXT_DIM,
    )
    with torch.no_grad():
        for layer in (transformer.time_embed.linear, transformer.proj_out):
            layer.weight.zero_()
            layer.bias.zero_()
    text_encoder = T5EncoderModel(
        T5Config(
            vocab_size=words.VOCABULARY_SIZE,
            d_model=TEXT_DIM,
            d_kv=32,
            num_heads=4,
            d_ff=256,
            num_layers=2,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    return transformer, text_encoder


def start(folder: Path | None) -> tuple[LTXVideoTransformer3DModel, T5EncoderModel]:
    """Fresh weights, or those of the exported model in `folder`."""
    if folder is None:
        return build()
    return (
        LTXVideoTransformer3DModel.from_pretrained(folder / "transformer", dtype=torch.float32),
        T5EncoderModel.from_pretrained(folder / "text_encoder", dtype=torch.float32),
    )


@torch.no_grad()
def measure_latents(vae: AutoencoderKLLTXVideo, clips: int = 48) -> None:
    """Set latents_mean and latents_std from held-out clips: the flow runs at unit scale."""
    rng = np.random.default_rng(2 * 10**6)
    device = next(vae.parameters()).device
    seen = []
    for _ in range(clips):
        film, _ = vae_module.batch(rng, vae_module.HEIGHT, vae_module.WIDTH, 25, 1)
        with half_precision(device.type):
            seen.append(vae.encode(film.to(device)).latent_dist.mode().float())
    z = torch.cat(seen).transpose(0, 1).flatten(1)
    vae.latents_mean.copy_(z.mean(1))
    vae.latents_std.copy_(z.std(1))


def coordinates(frames: int, height: int, width: int, last: bool) -> torch.Tensor:
    """Coordinates [3, tokens] in seconds and pixels, as the condition pipeline lays them out."""

    def grid(latent_frames: int, start: float) -> torch.Tensor:
        t = (torch.arange(latent_frames) * float(SPAN) - (SPAN - 1)).clamp(min=0) + start
        axes = (t / FPS, torch.arange(height) * float(CELL), torch.arange(width) * float(CELL))
        return torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)

    clip = grid(frames, 0.0)
    return torch.cat([grid(1, (frames - 1) * float(SPAN)), clip], 1) if last else clip


def pack(latents: torch.Tensor) -> torch.Tensor:
    """[B, C, F, h, w] to tokens [B, F*h*w, C]."""
    return latents.flatten(2).transpose(1, 2)


def draw_sigma(rng: np.random.Generator, count: int) -> torch.Tensor:
    """Noise levels: mostly logit-normal (Esser et al. 2024, arXiv:2403.03206), some uniform."""
    normal = 1 / (1 + np.exp(-rng.normal(0.3, 1.0, count)))
    return torch.from_numpy(
        np.where(rng.random(count) < 0.25, rng.random(count), normal).astype(np.float32)
    )


class Batch:
    """Samples turned into the transformer's inputs and the target of its output."""

    def __init__(
        self,
        samples: list[Sample],
        rng: np.random.Generator,
        generator: torch.Generator,
        device: str,
    ) -> None:
        z = torch.stack([s.latents for s in samples]).float()
        count, _, frames, height, width = z.shape
        per_frame = height * width
        sigma = draw_sigma(rng, count)
        clean = torch.zeros(count, frames, dtype=torch.bool)
        if frames > 1:
            kind = rng.random(count)
            clean[:, 0] = torch.from_numpy(kind < 0.45)
            clean[:, 1] = torch.from_numpy(kind < 0.12)
            if frames > 3:
                clean[:, 2] = torch.from_numpy(kind < 0.05)
        last = frames > 1 and rng.random() < 0.2
        tokens = pack(z)
        noise = torch.randn(tokens.shape, generator=generator)
        level = sigma[:, None].expand(count, tokens.shape[1]).clone()
        level[clean.repeat_interleave(per_frame, 1)] = 0.0
        cover = torch.stack([s.cover for s in samples]).float().flatten(1)
        weight = (1 + 8 * cover.sqrt()) * (level > 0)
        if last:
            extra = pack(torch.stack([s.last for s in samples]).float())
            tokens = torch.cat([extra, tokens], 1)
            noise = torch.cat([torch.randn(extra.shape, generator=generator), noise], 1)
            level = torch.cat([torch.zeros(count, per_frame), level], 1)
            weight = torch.cat([torch.zeros(count, per_frame), weight], 1)
        # A given frame that is slightly noisy teaches tolerance to real pictures.
        given = (level == 0).float() * torch.from_numpy(
            (rng.random((count, 1)) < 0.3) * rng.random((count, 1)) * 0.1
        ).float()
        mixed = torch.maximum(level, given)[..., None]
        self.noisy = ((1 - mixed) * tokens + mixed * noise).to(device)
        self.target = (noise - tokens).to(device)
        self.timestep = (level * 1000).to(device)
        self.weight = (weight / weight.mean()).to(device)
        self.coordinates = (
            coordinates(frames, height, width, last)[None].expand(count, -1, -1).to(device)
        )
        self.prompts = [_prompt(s, rng) for s in samples]
        self.truth = Truth(samples, device)


def _prompt(sample: Sample, rng: np.random.Generator) -> str:
    """What is said of a sample: usually all of it, sometimes less, nothing, or with noise words."""
    if rng.random() < 0.1:
        return ""
    scene = sample.scene if rng.random() < 0.7 else sample.scene.partly_said(rng, 0.2)
    text = scene.prompt(rng)
    if rng.random() < 0.1:
        said = text.split()
        said.insert(int(rng.integers(len(said) + 1)), "qqq")
        text = " ".join(said)
    return text


@contextmanager
def float_attention(device: str) -> Iterator[None]:
    """On a CPU, attention in float32 inside a bfloat16 autocast.

    The backward pass of torch's CPU attention is 2.5 to 5 times slower in bfloat16 (torch 2.13,
    32 x 4 heads x 160 tokens x 48).
    """
    original = F.scaled_dot_product_attention

    def attention(
        query: Any, key: Any, value: Any, attn_mask: Any = None, **options: Any
    ) -> torch.Tensor:
        if attn_mask is not None and attn_mask.is_floating_point():
            attn_mask = attn_mask.float()
        with torch.autocast(device, enabled=False):
            out = original(
                query.float(), key.float(), value.float(), attn_mask=attn_mask, **options
            )
        return out.to(value.dtype)

    if device == "cpu":
        F.scaled_dot_product_attention = attention
    try:
        yield
    finally:
        F.scaled_dot_product_attention = original


def loss_of(
    transformer: Any,
    text_encoder: Any,
    landmarks: Landmarks,
    tokenizer: Any,
    batch: Batch,
    device: str,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Weighted squared error of the predicted velocity, and the loss of the landmarks."""
    text = tokenizer(
        batch.prompts,
        padding="max_length",
        max_length=words.MAX_LENGTH,
        truncation=True,
        return_tensors="pt",
    ).to(device)
    with float_attention(device), half_precision(device), listening(transformer) as heard:
        embeds = text_encoder(text.input_ids, attention_mask=text.attention_mask)[0]
        velocity = transformer(
            hidden_states=batch.noisy,
            encoder_hidden_states=embeds,
            timestep=batch.timestep,
            encoder_attention_mask=text.attention_mask,
            video_coords=batch.coordinates,
            return_dict=False,
        )[0]
        clip = heard[0][:, -batch.truth.marks.shape[1] :]  # a last frame's tokens stand before
        said = landmarks(clip)
    flow = (batch.weight[..., None] * (velocity.float() - batch.target).square()).mean()
    return flow, batch.truth.loss(*said)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=120, help="training time in all")
    parser.add_argument("--out", type=Path, default=Path("training/spark/out"))
    parser.add_argument("--name", default="transformer", help="name of the checkpoint")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--fresh", type=int, default=3, help="new clips a step")
    parser.add_argument("--bank", type=int, default=16000, help="clips kept at most")
    parser.add_argument(
        "--batch-scale", type=int, default=1, help="batch size times this (16 on a GPU)"
    )
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument(
        "--small",
        type=float,
        default=0.6,
        help="share of the budget that is spent on small pictures",
    )
    parser.add_argument("--start", type=Path, help="go on from an exported model's weights")
    args = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    vae = vae_module.load(args.out).eval().requires_grad_(False).to(device)
    measure_latents(vae)
    tokenizer = words.build()
    transformer, text_encoder = (m.to(device) for m in start(args.start))
    landmarks = Landmarks(transformer.proj_in.out_features).to(device)
    modules = {
        "transformer": transformer,
        "text_encoder": text_encoder,
        "landmarks": landmarks,
    }
    named = [(n, p) for m in modules.values() for n, p in m.named_parameters()]
    run = Run(
        args.out, args.name, modules, Muon(named, lr=args.lr, scalar_lr=1e-3), args.minutes, 0.998
    )
    bank = Bank(vae, args.bank, SMALL)
    sums: list[tuple[float, float]] = []
    while run.progress < 1:
        size = SMALL if run.progress < args.small else WHOLE
        if size != bank.size:
            bank = Bank(vae, args.bank, size)
        rng = np.random.default_rng((args.seed, 1, run.steps))
        generator = torch.Generator().manual_seed(args.seed + run.steps)
        frames = draw_length(rng)
        count = batch_size(frames, size, args.batch_scale)
        kept = len(bank.samples[frames])
        bank.add(rng, frames, args.fresh * args.batch_scale if kept >= count else count)
        batch = Batch(bank.draw(rng, frames, count), rng, generator, device)
        flow, marks = loss_of(transformer, text_encoder, landmarks, tokenizer, batch, device)
        run.step(flow + SHARE * marks)
        sums.append((flow.item(), marks.item()))
        if run.steps % 25 == 0:
            flow_mean, marks_mean = np.mean(sums, 0)
            kept = sum(map(len, bank.samples.values()))
            run.log(f"loss {flow_mean:.4f}  landmarks {marks_mean:.4f}  bank {kept}")
            sums.clear()
    run.save()
    run.log("done")


if __name__ == "__main__":
    main()
