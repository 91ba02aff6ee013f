"""What will the clip look like, before it is finished?

Decoding the half-done latents would cost as much as many steps. A linear map from latent channels
to RGB, fitted once to the model's own VAE, gives a rough picture for milliseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from kinoloom.backends.base import Frame

_CHART = 256  # pixels a side of the picture that the map is fitted on


class LatentPreview:
    """Least-squares projection of a VAE's latent channels onto the mean RGB of each cell."""

    def __init__(self, vae: Any) -> None:
        """Fit the map: encode a colour chart and solve for the colours of its cells."""
        device, dtype = vae.device, vae.dtype
        cells = _CHART // vae.spatial_compression_ratio
        rng = np.random.default_rng(0)
        # Large patches of every colour, smooth enough that a cell has one colour.
        coarse = torch.from_numpy(rng.uniform(-1, 1, (1, 3, cells // 2, cells // 2))).float()
        chart = torch.nn.functional.interpolate(coarse, (_CHART, _CHART), mode="bilinear")
        with torch.no_grad():
            encoded = vae.encode(chart[:, :, None].to(device, dtype)).latent_dist.mode()
        latents = encoded[0, :, 0].flatten(1).T.float().cpu().numpy()
        colours = torch.nn.functional.adaptive_avg_pool2d(chart, encoded.shape[-2:])
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


def clean_estimate(
    before: torch.Tensor, after: torch.Tensor, sigma_before: float, sigma_after: float
) -> torch.Tensor:
    """Where two consecutive latents of a flow-matching Euler solver point to at sigma 0."""
    if sigma_before - sigma_after < 1e-6:
        return after
    return after - sigma_after * (before - after) / (sigma_before - sigma_after)
