from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch

from benchmarks import gpu
from kinoloom.backends.base import Speed
from kinoloom.catalog.loader import Catalog

ROOT = Path(__file__).parents[3]


def test_every_architecture_is_timed_bare_lossless_and_balanced(tmp_path: Path) -> None:
    out = tmp_path / "gpu.md"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--tiny", "--out", str(out)],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    text = out.read_text(encoding="utf-8")
    assert text.strip() == done.stdout.strip()
    catalog = Catalog.load()
    for name in gpu.architectures():
        _, _, table = text.partition(f"### {catalog.get(name).title}:")
        lines = [line for line in table.splitlines() if line.startswith("| ")][1:4]
        bare, lossless, balanced = ([cell.strip() for cell in x.split("|")[1:-1]] for x in lines)
        assert [bare[0], lossless[0], balanced[0]] == ["bare diffusers", "lossless", "balanced"]
        assert float(bare[2]) > 0
        assert lossless[6] == "same"  # on a processor there is nothing but the plain way
        assert "cache" in balanced[1]


def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main(["--models", "wan-2.1-t2v-1.3b"]) == 1
    said = capsys.readouterr()
    assert "needs a CUDA GPU" in said.err
    assert not said.out


@pytest.mark.parametrize("name", gpu.architectures())
def test_the_sizes_are_those_of_the_cards(name: str) -> None:
    part = gpu.architectures()[name]["components"]["transformer"]
    memory = Catalog.load().get(name).memory
    assert memory is not None
    with torch.device("meta"):
        built = getattr(diffusers, part["class"])(**part["config"])
    width = 4 if "transformer" in memory.float32 else 2
    count = sum(p.numel() for p in built.parameters())
    assert count == pytest.approx(memory.components["transformer"] / width, rel=0.001)


def test_a_level_that_fails_says_why_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = gpu.apply_speed

    def failing(pipe: Any, speed: Speed, steps: int) -> None:
        if speed.cache is None:
            raise torch.OutOfMemoryError("no room | here")
        plain(pipe, speed, steps)

    monkeypatch.setattr(gpu, "apply_speed", failing)
    name = "ltx-video-2b-0.9.5"
    card, small = Catalog.load().get(name), gpu.shrunk(gpu.architectures()[name])
    work = gpu.Work(card, small, (64, 32), 9, 8)
    _, lossless, balanced = gpu.rows(work, torch.device("cpu"), torch.float32)
    assert "failed, OutOfMemoryError: no room / here" in lossless.used
    assert lossless.seconds == float("inf")
    assert 0 < balanced.seconds < float("inf")


def test_the_difference_is_judged_over_the_range_of_the_bare_latents() -> None:
    bare = torch.tensor([0.0, 10.0])
    farthest, psnr = gpu.difference(bare + 1, bare)
    assert farthest == 1
    assert psnr == pytest.approx(20)
