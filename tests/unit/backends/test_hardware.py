from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kinoloom.backends.local import hardware


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    hardware.gpu_name.cache_clear()
    yield
    hardware.gpu_name.cache_clear()


def driver(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """A machine with a CUDA build of torch and an ``nvidia-smi`` that is this shell script."""
    tool = folder / "nvidia-smi"
    tool.write_text(f"#!/bin/sh\n{script}\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setattr(hardware, "torch_version", lambda: "2.13.0+cu130")


def test_the_label_of_a_cpu_counts_the_cores_that_may_be_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 3, 5}, raising=False)
    assert hardware.device_label("cpu") == "cpu x3"


def test_a_gpu_has_its_name_in_the_label(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    driver(tmp_path, monkeypatch, "echo 'NVIDIA H200'; echo 'NVIDIA T4'")
    assert hardware.gpu_name() == "NVIDIA H200"
    assert hardware.device_label() == "cuda NVIDIA H200"
    assert hardware.device_label("cuda:1").startswith("cuda:1 ")
    assert hardware.device_label("cpu").startswith("cpu x")


@pytest.mark.parametrize("script", ["exit 9", "true", "echo; exit 0"])
def test_a_driver_that_does_not_answer_is_no_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    driver(tmp_path, monkeypatch, script)
    assert not hardware.gpu_name()
    assert hardware.device_label() == f"cpu x{hardware.cores()}"


def test_a_torch_for_the_cpu_cannot_use_a_gpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path, monkeypatch, "echo 'NVIDIA H200'")
    monkeypatch.setattr(hardware, "torch_version", lambda: "2.13.0+cpu")
    assert hardware.gpu_name() is None


def test_a_mac_with_its_own_chip(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpu_name", lambda: None)
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(hardware.platform, "machine", lambda: "arm64")
    assert hardware.device_label() == "mps"


def test_telling_the_device_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from kinoloom.backends.local.hardware import device_label, torch_version\n"
        "print(device_label(), torch_version())\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip()
