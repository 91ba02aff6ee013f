"""Which device renders, and with which numbers?"""

from __future__ import annotations

import torch

from kinoloom.errors import InvalidRequest, Problem

DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}


def available() -> list[str]:
    """Devices of this machine, best first: ``cuda``, ``mps``, ``cpu``."""
    found = ["cuda"] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append("mps")
    return [*found, "cpu"]


def choose_device(wanted: str) -> torch.device:
    """The device for ``auto``, ``cpu``, ``mps``, ``cuda`` or ``cuda:N``.

    Raises InvalidRequest when this machine has it not.
    """
    devices = available()
    if wanted == "auto":
        return torch.device(devices[0])
    kind, _, index = wanted.partition(":")
    numbered = kind == "cuda" and index.isdigit() and int(index) < torch.cuda.device_count()
    if kind in devices and (not index or numbered):
        return torch.device(wanted)
    raise InvalidRequest(
        [Problem("device", wanted, f"auto or one of {', '.join(devices)}", devices[0])]
    )


def choose_dtype(wanted: str, device: torch.device) -> torch.dtype:
    """The number format for ``auto`` or a name in `DTYPES`.

    Auto is bfloat16 where the GPU computes it, float16 on older ones, and float32 on a CPU: there
    the half formats are slower unless the processor has instructions for them, and small models
    lose nothing by the width.
    """
    if wanted == "auto":
        if device.type == "cuda":
            return torch.bfloat16 if torch.cuda.is_bf16_supported(False) else torch.float16
        return torch.float16 if device.type == "mps" else torch.float32
    if wanted not in DTYPES:
        raise InvalidRequest(
            [Problem("dtype", wanted, f"auto or one of {', '.join(DTYPES)}", "float32")]
        )
    return DTYPES[wanted]
