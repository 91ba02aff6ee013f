"""What can this machine render on, as far as can be told without importing torch?

The planner asks here, so that a plan costs milliseconds; the render checks with torch itself.
"""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module, metadata, util
from pathlib import Path
from typing import Any

_TIMEOUT = 10  # seconds for the tools that are asked; they answer within a tenth
_PROC, _CGROUPS = Path("/proc"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Gpu:
    """An NVIDIA GPU as its driver lists it; `free` and `total` memory in bytes."""

    index: int
    uuid: str
    name: str
    free: int
    total: int


def torch_version() -> str | None:
    """The installed torch, e.g. ``2.13.0+cpu``, or None."""
    return metadata.version("torch") if util.find_spec("torch") else None


@lru_cache(maxsize=1)
def gpu_name() -> str | None:
    """The first NVIDIA GPU's name when the driver answers and this torch can use it."""
    version, tool = torch_version(), shutil.which("nvidia-smi")
    if version is None or version.endswith("+cpu") or tool is None:
        return None
    names = _output(tool, "--query-gpu=name", "--format=csv,noheader").strip().splitlines()
    return names[0].strip() if names else None


def gpus() -> tuple[Gpu, ...]:
    """The NVIDIA GPUs of this machine with their memory, in the driver's order."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ()
    fields = "index,uuid,name,memory.free,memory.total"
    answer = _output(tool, f"--query-gpu={fields}", "--format=csv,noheader,nounits")
    return tuple(_gpus(answer))


def memory(device: str, *, ours: bool = False) -> tuple[int, int] | None:
    """Free and total bytes of a device by its label (its first word counts); None: not known.

    With `ours` what this process holds counts as free: it gives that back before it loads something
    else. What its allocator keeps for later is free either way.
    """
    kind, _, index = device.split(maxsplit=1)[0].partition(":")
    if kind == "cuda":
        return _cuda_memory(int(index or 0), ours)
    found = _mac_memory() if sys.platform == "darwin" else _linux_memory() or _any_memory()
    if found is None or not ours:
        return found
    free, total = found
    return min(free + _held(), total), total


def cores() -> int:
    """Processor cores that this process may use."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def device_label(wanted: str = "auto") -> str:
    """Where a render would run: ``cuda <GPU's name>``, ``mps`` or ``cpu x<cores>``.

    The first word is torch's name of the device; the whole is what timings are remembered under.
    """
    kind = wanted
    if wanted == "auto":
        if gpu_name():
            kind = "cuda"
        elif sys.platform == "darwin" and platform.machine() == "arm64":
            kind = "mps"
        else:
            kind = "cpu"
    if kind == "cpu":
        return f"cpu x{cores()}"
    return f"{kind} {gpu_name() or ''}".strip() if kind.startswith("cuda") else kind


def _output(*command: str) -> str:
    """What a tool prints, nothing when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT, check=True)
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout


def _gpus(answer: str) -> Iterator[Gpu]:
    for line in answer.splitlines():
        parts = [part.strip() for part in line.split(",")]
        try:
            index, uuid, name, free, total = parts
            yield Gpu(int(index), uuid, name, int(free) << 20, int(total) << 20)
        except ValueError:
            continue  # "[N/A]", as for a GPU that is split into several


def _cuda_memory(index: int, ours: bool) -> tuple[int, int] | None:
    """Of the GPU that torch calls by this index."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        # Only torch knows what its own allocator keeps.
        free, total = torch.cuda.mem_get_info(index)
        kept = torch.cuda.memory_reserved(index)
        return free + kept - (0 if ours else torch.cuda.memory_allocated(index)), total
    # The driver lists by the bus, CUDA the fastest first: they differ where the GPUs do.
    found = list(gpus())
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        listed = (_named(name.strip(), found) for name in visible.split(","))
        found = [gpu for gpu in listed if gpu is not None]
    return (found[index].free, found[index].total) if index < len(found) else None


def _named(name: str, found: list[Gpu]) -> Gpu | None:
    """The GPU that an entry of CUDA_VISIBLE_DEVICES names: by index or by the start of its id."""
    for gpu in found:
        if name == str(gpu.index) or (name.startswith("GPU-") and gpu.uuid.startswith(name)):
            return gpu
    return None


def _linux_memory() -> tuple[int, int] | None:
    """Main memory, within the limits of the control groups that this process is in."""
    fields = _fields(_PROC / "meminfo", "MemAvailable", "MemTotal")
    if "MemAvailable" not in fields or "MemTotal" not in fields:
        return None
    free, total = fields["MemAvailable"], fields["MemTotal"]
    for limit, used in _limits():
        free, total = min(free, max(0, limit - used)), min(total, limit)
    return free, total


def _limits() -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of this process's control group (version 2) and those around it."""
    own = next((p for p in _text(_PROC / "self/cgroup").splitlines() if p.startswith("0::")), "")
    folder = _CGROUPS / own.removeprefix("0::").strip("/")
    while True:
        limit = _text(folder / "memory.max").strip()
        used = _text(folder / "memory.current").strip()
        if limit.isdigit() and used.isdigit():
            stat = dict(line.split() for line in _text(folder / "memory.stat").splitlines())
            # Cached files count as used, but go when memory is needed.
            yield int(limit), int(used) - int(stat.get("inactive_file", 0))
        if folder in (_CGROUPS, folder.parent):
            return
        folder = folder.parent


def _held() -> int:
    """Bytes of this process's own data, as opposed to files mapped into it."""
    return _fields(_PROC / "self/status", "RssAnon").get("RssAnon", 0)


def _fields(file: Path, *names: str) -> dict[str, int]:
    """Sizes in a file of /proc, such as ``MemTotal: 16 kB``, in bytes by the names asked for."""
    text = _text(file)
    lines = {name: re.search(rf"^{name}:\s*(\d+) kB$", text, re.MULTILINE) for name in names}
    return {name: int(line[1]) * 1024 for name, line in lines.items() if line is not None}


def _text(file: Path) -> str:
    try:
        with file.open("rb", buffering=0) as stream:  # read_text takes half as long again
            return stream.read().decode(errors="replace")
    except OSError:
        return ""


def _mac_memory() -> tuple[int, int] | None:
    """Main memory of a Mac, which its GPU shares."""
    total = _output("sysctl", "-n", "hw.memsize").strip()
    head, *lines = _output("vm_stat").splitlines() or [""]
    page = next((int(word) for word in head.split() if word.isdigit()), 0)
    if not total.isdigit() or not page:
        return None
    pages = {name: value.strip(" .") for name, _, value in (one.partition(":") for one in lines)}
    able = ("Pages free", "Pages inactive", "Pages speculative", "Pages purgeable")
    counts = [int(pages[name]) for name in able if pages.get(name, "").isdigit()]
    return min(sum(counts) * page, int(total)), int(total)


def _any_memory() -> tuple[int, int] | None:
    """Main memory of another system, where psutil is installed."""
    if util.find_spec("psutil") is None:
        return None
    found: Any = import_module("psutil").virtual_memory()
    return int(found.available), int(found.total)
