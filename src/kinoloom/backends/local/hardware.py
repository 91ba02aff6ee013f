"""What can this machine render on, as far as can be told without importing torch?

The planner asks here, so that a plan costs milliseconds; the render checks with torch itself.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from functools import lru_cache
from importlib import metadata, util


def torch_version() -> str | None:
    """The installed torch, e.g. ``2.13.0+cpu``, or None."""
    return metadata.version("torch") if util.find_spec("torch") else None


@lru_cache(maxsize=1)
def gpu_name() -> str | None:
    """The first NVIDIA GPU's name when the driver answers and this torch can use it."""
    version, tool = torch_version(), shutil.which("nvidia-smi")
    if version is None or version.endswith("+cpu") or tool is None:
        return None
    query = [tool, "--query-gpu=name", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    names = answer.stdout.strip().splitlines()
    return names[0].strip() if names else None


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
