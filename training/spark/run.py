"""What do the training scripts share? Time budget, learning rate, averaged weights, checkpoints.

A schedule is written against a budget of seconds that the run has spent training, so the same
script trains for twenty minutes on a GPU or for hours on two cores, and a run that was stopped goes
on where it was: the spent time, the weights, their average and the optimizer are in the checkpoint.
"""

from __future__ import annotations

import copy
import time
from pathlib import Path
from typing import Any

import torch


class Run:
    """A resumable training run of `modules`, kept in `folder`/`name`.pt."""

    def __init__(
        self,
        folder: Path,
        name: str,
        modules: dict[str, torch.nn.Module],
        optimizer: Any,
        minutes: float,
        ema: float = 0.995,
        save_every: float = 120.0,
    ) -> None:
        self.path = folder / f"{name}.pt"
        self.log_path = folder / f"{name}.log"
        folder.mkdir(parents=True, exist_ok=True)
        self.modules, self.optimizer, self.decay = modules, optimizer, ema
        self.averages = {
            k: copy.deepcopy(m).eval().requires_grad_(False) for k, m in modules.items()
        }
        self.budget, self.spent, self.steps = minutes * 60, 0.0, 0
        self.save_every = save_every
        if self.path.exists():
            state = torch.load(self.path, map_location="cpu", weights_only=True)
            for key, module in modules.items():
                module.load_state_dict(state["modules"][key])
                self.averages[key].load_state_dict(state["averages"][key])
            peaks = [group["peak"] for group in optimizer.param_groups]
            optimizer.load_state_dict(state["optimizer"])
            for group, peak in zip(optimizer.param_groups, peaks, strict=True):
                group["peak"] = peak  # a rate that was changed between two runs counts
            self.spent, self.steps = state["spent"], state["steps"]
            print(
                f"resumed at step {self.steps}, {self.spent / 60:.1f} of {minutes:g} minutes spent"
            )
        self._last = time.monotonic()
        self._saved = self.spent

    @property
    def progress(self) -> float:
        """Share of the budget that is spent, 0 to 1."""
        return min(1.0, self.spent / self.budget)

    def factor(self, warm: float = 0.01, cool: float = 0.5) -> float:
        """Learning-rate factor: a linear rise, a plateau, a linear fall over the last `cool`."""
        p = self.progress
        return min(1.0, (p + 1e-4) / warm) * min(1.0, max(0.02, (1 - p) / cool))

    def step(self, loss: torch.Tensor, clip: float = 1.0) -> None:
        """Backward, clip, update, average, account for the time; save now and then."""
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        for module in self.modules.values():
            torch.nn.utils.clip_grad_norm_(module.parameters(), clip)
        self.optimizer.set_factor(self.factor())
        self.optimizer.step()
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        with torch.no_grad():
            for key, module in self.modules.items():
                for a, p in zip(self.averages[key].parameters(), module.parameters(), strict=True):
                    a.lerp_(p, 1 - decay)
        now = time.monotonic()
        self.spent += now - self._last
        self._last = now
        if self.spent - self._saved > self.save_every:
            self.save()

    def save(self) -> None:
        """Write the checkpoint so that a kill in between leaves the previous one whole."""
        state = {
            "modules": {k: m.state_dict() for k, m in self.modules.items()},
            "averages": {k: m.state_dict() for k, m in self.averages.items()},
            "optimizer": self.optimizer.state_dict(),
            "spent": self.spent,
            "steps": self.steps,
        }
        partial = self.path.with_suffix(".part")
        torch.save(state, partial)
        partial.replace(self.path)
        self._saved = self.spent

    def log(self, text: str) -> None:
        """One line to the terminal and to the run's log."""
        line = f"{self.spent / 60:7.2f} min  step {self.steps:6d}  {text}"
        print(line, flush=True)
        with self.log_path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
