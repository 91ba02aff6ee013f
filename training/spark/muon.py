"""How are matrices trained faster than with AdamW on two CPU cores?

Muon orthogonalises the momentum of every weight matrix with a Newton-Schulz iteration
(K. Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024). torch.optim
has one for 2-D weights only; convolutions need theirs flattened to [out, in * kernel], hence this.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch

from training.spark.precision import fast_bfloat16

_QUINTIC = (3.4445, -4.7750, 2.0315)  # coefficients of the iteration, from the paper above


def orthogonalise(gradient: torch.Tensor, steps: int = 5) -> torch.Tensor:
    """The nearest semi-orthogonal matrix of a 2-D gradient, approximately."""
    a, b, c = _QUINTIC
    x = gradient.bfloat16() if fast_bfloat16(gradient.device.type) else gradient.float()
    tall = x.size(0) > x.size(1)
    if tall:
        x = x.T
    x = x / (x.norm() + 1e-7)
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return (x.T if tall else x).to(gradient.dtype)


class Muon(torch.optim.Optimizer):
    """Muon for weights of two and more dimensions, AdamW for the rest, in one optimizer.

    `lr` is the step of the matrices, `scalar_lr` that of biases, norms and embeddings.
    """

    def __init__(
        self,
        named: Iterable[tuple[str, torch.nn.Parameter]],
        lr: float,
        scalar_lr: float,
        weight_decay: float = 0.0,
    ) -> None:
        matrices, scalars = [], []
        for name, p in named:
            is_table = "shared" in name or "embed_tokens" in name or "scale_shift" in name
            (scalars if p.ndim < 2 or is_table else matrices).append(p)
        groups = [
            {"params": matrices, "lr": lr, "peak": lr, "muon": True},
            {"params": scalars, "lr": scalar_lr, "peak": scalar_lr, "muon": False},
        ]
        super().__init__(groups, {"weight_decay": weight_decay})

    def set_factor(self, factor: float) -> None:
        """Set every learning rate to `factor` times its peak."""
        for group in self.param_groups:
            group["lr"] = group["peak"] * factor

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["t"] = 0
                    state["m"] = torch.zeros_like(p)
                    if not group["muon"]:
                        state["v"] = torch.zeros_like(p)
                state["t"] += 1
                p.mul_(1 - group["lr"] * group["weight_decay"])
                if group["muon"]:
                    state["m"].mul_(0.95).add_(p.grad, alpha=0.05)
                    nesterov = p.grad.lerp(state["m"], 0.95).flatten(1)
                    update = orthogonalise(nesterov)
                    scale = max(1.0, update.size(0) / update.size(1)) ** 0.5
                    p.add_(update.view_as(p), alpha=-group["lr"] * scale)
                else:
                    state["m"].mul_(0.9).add_(p.grad, alpha=0.1)
                    state["v"].mul_(0.98).addcmul_(p.grad, p.grad, value=0.02)
                    m = state["m"] / (1 - 0.9 ** state["t"])
                    v = state["v"] / (1 - 0.98 ** state["t"])
                    p.addcdiv_(m, v.sqrt_().add_(1e-8), value=-group["lr"])
