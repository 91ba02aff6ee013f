"""Which numbers does training compute with on this machine?"""

from __future__ import annotations

import torch


def fast_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16.

    A processor without the instructions emulates them, tens of times slower than float32.
    """
    return device != "cpu" or torch.ops.mkldnn._is_mkldnn_bf16_supported()


def half_precision(device: str) -> torch.autocast:
    """bfloat16 autocast where the device is fast at it; elsewhere float32 throughout."""
    return torch.autocast(device, torch.bfloat16, enabled=fast_bfloat16(device))
