from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import diffusers
import pytest
import torch

from benchmarks import gpu
from kinoloom.catalog.loader import Catalog

ROOT = Path(__file__).parents[3]


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""} | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_every_architecture_is_timed_bare_lossless_and_balanced(tmp_path: Path) -> None:
    out = tmp_path / "gpu.md"
    done = run("--tiny", "--out", str(out))

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


def test_without_a_gpu_it_says_so() -> None:
    done = run("--models", "wan-2.1-t2v-1.3b")
    assert done.returncode == 1
    assert "needs a CUDA GPU" in done.stderr
    assert not done.stdout


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


def test_the_difference_is_judged_over_the_range_of_the_bare_latents() -> None:
    bare = torch.tensor([0.0, 10.0])
    farthest, psnr = gpu.difference(bare + 1, bare)
    assert farthest == 1
    assert psnr == pytest.approx(20)
