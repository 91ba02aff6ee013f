"""Does a stopped training run go on where it was?"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from training.spark import run as run_module
from training.spark.muon import Muon
from training.spark.run import Run


class Clock:
    """Time that passes when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(run_module, "time", made)
    return made


def start(folder: Path, seed: int = 0, **options: Any) -> Run:
    """A run of a tiny module whose first weights depend on the seed."""
    torch.manual_seed(seed)
    module = torch.nn.Linear(3, 2)
    optimizer = Muon(module.named_parameters(), lr=0.05, scalar_lr=0.02)
    return Run(folder, "tiny", {"net": module}, optimizer, minutes=1.0, **options)


def train(run: Run, clock: Clock, steps: int, seconds: float = 2.0) -> None:
    """Steps of `seconds` each on inputs that depend on the number of the step."""
    for _ in range(steps):
        generator = torch.Generator().manual_seed(run.steps)
        x = torch.randn(4, 3, generator=generator)
        clock.now += seconds
        run.step((run.modules["net"](x) - 1).square().mean())


def weights(run: Run) -> torch.Tensor:
    """Every weight and every averaged weight in one row."""
    both = (run.modules["net"], run.averages["net"])
    return torch.cat([p.detach().flatten() for m in both for p in m.parameters()])


def test_a_resumed_run_ends_as_one_that_was_never_stopped(tmp_path: Path, clock: Clock) -> None:
    whole = start(tmp_path / "whole")
    train(whole, clock, 12)

    stopped = start(tmp_path / "stopped")
    train(stopped, clock, 7)
    stopped.save()
    clock.now += 500  # the time between the two does not count
    resumed = start(tmp_path / "stopped", seed=9)
    assert (resumed.steps, resumed.spent) == (7, 14.0)
    assert torch.equal(weights(resumed), weights(stopped))
    train(resumed, clock, 5)

    assert resumed.spent == whole.spent
    # Bit for bit, which the optimizer's momentum and step count must have survived for.
    assert torch.equal(weights(resumed), weights(whole))


def test_without_a_checkpoint_a_run_begins(tmp_path: Path, clock: Clock) -> None:
    run = start(tmp_path)
    assert (run.steps, run.spent, run.progress) == (0, 0.0, 0.0)


def test_training_moves_the_weights_and_the_average_follows(tmp_path: Path, clock: Clock) -> None:
    run = start(tmp_path)
    before = weights(run).clone()
    train(run, clock, 10)
    after = weights(run)
    half = len(after) // 2
    net, average = after[:half] - before[:half], after[half:] - before[half:]
    assert net.norm() > 0.1
    assert 0 < average.norm() < net.norm()


def test_progress_is_the_share_of_the_budget_and_ends_at_one(tmp_path: Path, clock: Clock) -> None:
    run = start(tmp_path)
    train(run, clock, 1, seconds=15)
    assert run.progress == 0.25
    train(run, clock, 1, seconds=100)
    assert run.progress == 1.0


def test_the_learning_rate_rises_stays_and_falls(tmp_path: Path, clock: Clock) -> None:
    run = start(tmp_path)

    def at(progress: float) -> float:
        run.spent = progress * run.budget
        return run.factor()

    rise = [at(p) for p in (0.0, 0.002, 0.005, 0.01)]
    assert 0 < rise[0] < 0.05
    assert rise == sorted(rise)
    assert at(0.02) == at(0.3) == at(0.5) == 1.0
    assert at(0.75) == pytest.approx(0.5)
    assert at(1.0) == pytest.approx(0.02)
    assert all(at(p) >= at(p + 0.05) for p in (0.5, 0.6, 0.7, 0.8, 0.9))


def test_the_factor_reaches_the_optimizer(tmp_path: Path, clock: Clock) -> None:
    run = start(tmp_path)
    run.spent = 0.75 * run.budget
    train(run, clock, 1, seconds=0.0)
    assert [g["lr"] for g in run.optimizer.param_groups] == pytest.approx([0.025, 0.01])


def test_a_kill_before_the_renaming_leaves_the_old_checkpoint(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tmp_path)
    train(run, clock, 3)
    run.save()
    kept = weights(run).clone()
    train(run, clock, 2)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)  # Path.replace comes down to it as well
        with pytest.raises(KeyboardInterrupt):
            run.save()
    resumed = start(tmp_path, seed=9)
    assert resumed.steps == 3
    assert torch.equal(weights(resumed), kept)


def test_a_kill_while_writing_leaves_the_old_checkpoint(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = start(tmp_path)
    train(run, clock, 3)
    run.save()
    train(run, clock, 1)

    def half_written(_: object, file: Path) -> None:
        Path(file).write_bytes(b"PK half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(run_module.torch, "save", half_written)
        with pytest.raises(KeyboardInterrupt):
            run.save()
    assert start(tmp_path).steps == 3


def test_checkpoints_are_written_now_and_then(tmp_path: Path, clock: Clock) -> None:
    run = start(tmp_path, save_every=5.0)
    train(run, clock, 2)
    assert not run.path.exists()
    train(run, clock, 1)
    assert start(tmp_path).steps == 3
