"""What will the clip look like, before it is finished?

Decoding the half-done latents would cost as much as many steps. A linear map from latent channels
to RGB, fitted once to the model's own VAE, gives a rough picture for milliseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler

from kinoloom.backends.base import Frame

_CHART = 256  # pixels a side of the picture that the map is fitted on
_STRAIGHT: tuple[Any, ...] = (EulerDiscreteScheduler, FlowMatchEulerDiscreteScheduler)
"""Solvers whose latents, x0 and noise times sigma, are on a line to what the model believes."""


class LatentPreview:
    """Least-squares projection of a VAE's latent channels onto the mean RGB of each cell.

    The VAE may be one of images or of video.
    """

    def __init__(self, vae: Any) -> None:
        """Fit the map: encode a colour chart and solve for the colours of its cells."""
        cells = _CHART // _cell(vae)
        rng = np.random.default_rng(0)
        # Large patches of every colour, smooth enough that a cell has one colour.
        coarse = torch.from_numpy(rng.uniform(-1, 1, (1, 3, cells // 2, cells // 2))).float()
        chart = torch.nn.functional.interpolate(coarse, (_CHART, _CHART), mode="bilinear")
        encoded = _encode(vae, chart)
        latents = encoded.flatten(1).T.numpy()
        height, width = encoded.shape[-2:]
        colours = torch.nn.functional.adaptive_avg_pool2d(chart, (height, width))
        target = colours[0].flatten(1).T.numpy()
        with_bias = np.concatenate([latents, np.ones((len(latents), 1), np.float32)], 1)
        # A little ridge: a VAE may have nearly as many channels as the chart has cells.
        gram = with_bias.T @ with_bias + 1e-2 * np.eye(with_bias.shape[1], dtype=np.float32)
        self._map = np.linalg.solve(gram, with_bias.T @ target)

    def picture(self, latents: torch.Tensor) -> Frame:
        """The middle frame of raw latents [C, F, h, w] as uint8 RGB [h, w, 3], one pixel a cell."""
        middle = latents[:, latents.shape[1] // 2].float().cpu().numpy()
        height, width = middle.shape[1:]
        flat = np.concatenate([middle.reshape(len(middle), -1).T, np.ones((height * width, 1))], 1)
        rgb = (flat @ self._map).reshape(height, width, 3)
        # A model that went wrong is refused by its frames, not by a warning about its preview.
        return np.clip(np.nan_to_num((rgb + 1) * 127.5), 0, 255).astype(np.uint8)


def _cell(vae: Any) -> int:
    """Pixels a side of one latent cell; image VAEs halve the picture between their blocks."""
    ratio = getattr(vae, "spatial_compression_ratio", None)
    return ratio or int(2 ** (len(vae.config.block_out_channels) - 1))


def _encode(vae: Any, chart: torch.Tensor) -> torch.Tensor:
    """The latents [C, h, w] of a picture [1, 3, H, W]."""
    # An offloaded VAE says where it lies, not where it computes.
    hook = getattr(vae, "_hf_hook", None)
    device = getattr(hook, "execution_device", None) or vae.device
    before = vae.dtype
    # SDXL's VAE overflows in float16 and says so; its pipeline does the same.
    upcast = before == torch.float16 and getattr(vae.config, "force_upcast", False)
    if upcast:
        vae.to(dtype=torch.float32)
    video = any(weight.dim() == 5 for weight in vae.encoder.parameters())
    pixels = chart.to(device, torch.float32 if upcast else before)
    try:
        with torch.no_grad():
            found = vae.encode(pixels[:, :, None] if video else pixels).latent_dist.mode()
    finally:
        if upcast:
            vae.to(dtype=before)
    latents: torch.Tensor = (found[0, :, 0] if video else found[0]).float().cpu()
    return latents


def clean_latents(
    scheduler: Any, index: int, before: torch.Tensor | None, after: torch.Tensor
) -> torch.Tensor:
    """What the model takes the finished latents to be, after step `index` from `before` to `after`.

    `index` counts the steps of the render; a scheduler that counts its own goes before, since a
    second stage begins in the middle of its schedule. Where neither the scheduler nor its solver's
    way from `before` tells, `after` itself.
    """
    outputs = [x for x in getattr(scheduler, "model_outputs", []) if torch.is_tensor(x)]
    if outputs and outputs[-1].shape == after.shape:  # multistep solvers keep their estimates
        return outputs[-1]
    if before is None or before.shape != after.shape:
        return after
    begun = getattr(scheduler, "step_index", None)
    if begun:
        index = begun - 1
    if isinstance(scheduler, _STRAIGHT):
        sigmas = scheduler.sigmas
        return clean_estimate(before, after, float(sigmas[index]), float(sigmas[index + 1]))
    if isinstance(scheduler, DDIMScheduler):
        # Divided by the signal's share, variance-preserving latents lie on a straight line too.
        shares = _signal(scheduler, index)
        scaled = [x / share**0.5 for x, share in zip((before, after), shares, strict=True)]
        levels = [(1 / share - 1) ** 0.5 for share in shares]
        return clean_estimate(scaled[0], scaled[1], levels[0], levels[1])
    return after


def _signal(scheduler: Any, index: int) -> tuple[float, float]:
    """The share of the picture in the variance of DDIM's latents before and after step `index`."""
    shares = scheduler.alphas_cumprod
    t = int(scheduler.timesteps[index])
    following = t - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    after = shares[following] if following >= 0 else scheduler.final_alpha_cumprod
    return float(shares[t]), float(after)


def clean_estimate(
    before: torch.Tensor, after: torch.Tensor, sigma_before: float, sigma_after: float
) -> torch.Tensor:
    """Where two consecutive latents of a straight-line solver point to at sigma 0."""
    if sigma_before - sigma_after < 1e-6:
        return after
    return after - sigma_after * (before - after) / (sigma_before - sigma_after)
