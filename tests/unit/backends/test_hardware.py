from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

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


GPUS = "0, GPU-aaa, NVIDIA H200, 100, 143771\n1, GPU-bbb, NVIDIA T4, 15000, 15360"


def places(folder: Path, monkeypatch: pytest.MonkeyPatch, files: dict[str, str]) -> None:
    """A Linux machine with these files below /proc and /sys/fs/cgroup."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content)
    monkeypatch.setattr(hardware, "_PROC", folder / "proc")
    monkeypatch.setattr(hardware, "_CGROUPS", folder / "cgroup")
    monkeypatch.setattr(sys, "platform", "linux")


def gpu_memory(
    folder: Path, monkeypatch: pytest.MonkeyPatch, device: str, answer: str = GPUS
) -> tuple[int, int] | None:
    driver(folder, monkeypatch, f"cat <<'END'\n{answer}\nEND")
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    return hardware.memory(device)


def test_every_gpu_is_listed_with_its_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(tmp_path, monkeypatch, f"cat <<'END'\n{GPUS}\n2, GPU-c, A100, [N/A], [N/A]\nEND")
    first, second = hardware.gpus()
    assert (first.name, first.free, first.total) == ("NVIDIA H200", 100 << 20, 143771 << 20)
    assert (second.index, second.uuid) == (1, "GPU-bbb")


@pytest.mark.parametrize(
    ("visible", "device", "free"),
    [
        (None, "cuda NVIDIA H200", 100),
        (None, "cuda:1 NVIDIA T4", 15000),
        (None, "cuda:2", None),
        ("1", "cuda", 15000),
        ("1,0", "cuda:1", 100),
        ("GPU-b", "cuda", 15000),
        ("", "cuda", None),
    ],
)
def test_the_gpus_that_torch_sees(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    visible: str | None,
    device: str,
    free: int | None,
) -> None:
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    found = gpu_memory(tmp_path, monkeypatch, device)
    assert (found and found[0] >> 20) == free


def test_no_driver_knows_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert hardware.gpus() == ()
    assert gpu_memory(tmp_path, monkeypatch, "cuda", "") is None


def test_a_torch_that_is_in_use_knows_what_it_keeps(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: True,
        mem_get_info=lambda index: (10 + index, 100),
        memory_reserved=lambda index: 50,
        memory_allocated=lambda index: 30,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))
    assert hardware.memory("cuda:1 NVIDIA T4") == (11 + 20, 100)
    assert hardware.memory("cuda:1", ours=True) == (11 + 50, 100)


MEMINFO = "MemTotal:   1000 kB\nMemFree:  10 kB\nMemAvailable:  600 kB\nHugePages_Total:  0\n"


def test_main_memory_counts_what_can_be_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status = "Name: python\nVmRSS: 90 kB\nRssAnon:  70 kB\n"
    places(tmp_path, monkeypatch, {"proc/meminfo": MEMINFO, "proc/self/status": status})
    assert hardware.memory("cpu x2") == (600 * 1024, 1000 * 1024)
    assert hardware.memory("cpu x2", ours=True) == (670 * 1024, 1000 * 1024)


@pytest.mark.parametrize(
    ("outer", "inner", "free", "total"),
    [("max", "max", 600, 1000), ("500", "max", 200, 500), ("max", "400", 350, 400),
     ("500", "400", 200, 400), ("5000", "max", 600, 1000)],
)  # fmt: skip
def test_a_container_has_what_its_limits_leave(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    outer: str,
    inner: str,
    free: int,
    total: int,
) -> None:
    def limit(text: str) -> str:
        return f"{text if text == 'max' else int(text) * 1024}\n"

    files = {
        "proc/meminfo": MEMINFO,
        "proc/self/cgroup": "4:memory:/old\n0::/outer/inner\n",
        "cgroup/outer/memory.max": limit(outer),
        "cgroup/outer/memory.current": f"{400 * 1024}\n",
        "cgroup/outer/memory.stat": f"anon 1\ninactive_file {100 * 1024}\n",
        "cgroup/outer/inner/memory.max": limit(inner),
        "cgroup/outer/inner/memory.current": f"{50 * 1024}\n",
    }
    places(tmp_path, monkeypatch, files)
    assert hardware.memory("cpu x2") == (free * 1024, total * 1024)


def test_the_real_machine_tells_its_memory() -> None:
    found = hardware.memory("cpu")
    assert found is not None
    free, total = found
    assert 0 < free <= total


def test_a_mac_shares_its_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pages = (
        "Mach Virtual Memory Statistics: (page size of 16384 bytes)\n"
        "Pages free:      100.\nPages active:   500.\nPages inactive:   20.\n"
        "Pages speculative:  3.\nPages wired down:  7.\nPages purgeable:  1.\n"
    )
    for name, script in {"sysctl": "echo 17179869184", "vm_stat": f"printf '{pages}'"}.items():
        tool = tmp_path / name
        tool.write_text(f"#!/bin/sh\n{script}\n")
        tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(hardware, "_PROC", tmp_path)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert hardware.memory("mps") == (124 * 16384, 16 << 30)
