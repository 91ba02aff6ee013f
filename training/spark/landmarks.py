"""How does the transformer learn early on what the object is and where it is?

The loss of a diffusion model teaches that only slowly and in a roundabout way. A small head that is
thrown away after the training reads it directly off the hidden states halfway through the layers:
every token says how far the object's centre is from it at the beginning and at the end of its
latent's frames, how large the object is, and which shape it has, all of which the renderer knows.
What a shape looks like at a place is then little to learn for the layers above. That a diffusion
transformer whose inner states are given a meaning trains many times faster is due to Yu et al. 2024
("Representation Alignment for Generation", arXiv:2410.06940).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from training.spark.bank import CELL, Sample
from training.spark.world import WORLD

LAYER = 3  # counted from 0, of the transformer's 8
SHARE = 0.2  # of this loss beside the flow's
SHAPES = list(WORLD["shapes"])
_UNIT = 32.0  # pixels
_FARTHEST = 3.0  # units: beyond it, "far" is all a token need say
_REACH = 40.0  # pixels around the object within which tokens count most
_ELSEWHERE = 0.05  # what the others count


class Landmarks(nn.Module):
    """Reads offsets, radii and shape off hidden states [B, N, width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, 6 + len(SHAPES)),
        )

    def forward(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Offsets and radii [B, N, 6] in units, and logits of the shapes [B, N, shapes]."""
        said: torch.Tensor = self.read(hidden)
        return said[..., :6], said[..., 6:]


class Truth:
    """What the head should say of the tokens of a batch's clips, in the order of `pack`."""

    def __init__(self, samples: list[Sample], device: str) -> None:
        track = torch.stack([s.track for s in samples])  # [B, F, 6]
        _, _, _, rows, columns = torch.stack([s.latents for s in samples[:1]]).shape
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centre = (torch.stack([x, y], -1).flatten(0, 1) + 0.5) * CELL  # [h*w, 2]
        count, frames, _ = track.shape
        offset = track[:, :, None, :4] - centre.repeat(1, 2)
        radius = track[:, :, None, 4:].expand(-1, -1, rows * columns, -1)
        marks = torch.cat([offset, radius], -1).reshape(count, -1, 6)
        seen = marks.isfinite().all(-1)
        marks = marks.nan_to_num(0.0)
        distance = (marks[..., :2] + marks[..., 2:4]).square().sum(-1) / 4
        weight = (_ELSEWHERE + torch.exp(-distance / (2 * _REACH**2))) * seen
        self.marks = (marks / _UNIT).clamp(-_FARTHEST, _FARTHEST).to(device)
        self.weight = (weight / weight.mean().clamp(min=1e-6)).to(device)
        shapes = torch.tensor([SHAPES.index(s.scene.shape) for s in samples])
        self.shapes = shapes[:, None].expand(-1, frames * rows * columns).to(device)

    def loss(self, marks: torch.Tensor, shapes: torch.Tensor) -> torch.Tensor:
        """Smooth L1 of the marks and cross entropy of the shape, near the object above all."""
        places = F.smooth_l1_loss(marks.float(), self.marks, reduction="none", beta=0.25).mean(-1)
        kinds = F.cross_entropy(
            shapes.float().flatten(0, 1), self.shapes.flatten(), reduction="none"
        ).view_as(places)
        return (self.weight * (places + 0.3 * kinds)).mean()


@contextmanager
def listening(transformer: Any) -> Iterator[list[torch.Tensor]]:
    """The hidden states after the layer, one a call of the transformer, while it lasts."""
    heard: list[torch.Tensor] = []
    handle = transformer.transformer_blocks[LAYER].register_forward_hook(
        lambda _module, _inputs, output: heard.append(output)
    )
    try:
        yield heard
    finally:
        handle.remove()
