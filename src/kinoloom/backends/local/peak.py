"""How much memory did a render need at its peak?"""

from __future__ import annotations

from pathlib import Path

import torch

_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")
_RESET_PEAK = "5"  # proc(5), clear_refs: reset the peak resident set size to the current one


def reset(device: torch.device) -> None:
    """Start counting anew."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    elif device.type == "cpu":
        try:
            _REFS.write_text(_RESET_PEAK)
        except OSError:
            return  # not Linux: `read` gives None there too


def read(device: torch.device) -> int | None:
    """Bytes at the peak since `reset`: of the GPU, or of this process; None where unknown."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if device.type == "cpu":
        try:
            for line in _STATUS.read_text().splitlines():
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) * 1024
        except (OSError, ValueError, IndexError):
            return None
    return None
