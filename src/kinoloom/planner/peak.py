"""How much memory does a render need, by what the model's card says?

The components are sorted by what they do: text encoders work before, the denoisers during, the
rest (VAE, image encoder, vocoder) before and after denoising. Text encoders are loaded apart from
the others and stay only where everything is resident.

The numbers that no card gives were measured with diffusers 0.42.1 on the real architectures: live
tensors of one forward pass, on torch's device `meta`.
"""

from __future__ import annotations

import math
from typing import Literal

from kinoloom.backends.base import Placement
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.speed import Memory

Kind = Literal["cuda", "mps", "cpu"]

RESERVED_BYTES: dict[Kind, int] = {"cuda": 1_000_000_000, "mps": 500_000_000, "cpu": 0}
"""Free memory that no tensor gets: a process's CUDA context takes 0.5 to 0.8 GB before the first
one, and blocks of the allocator are never filled wholly."""

PROCESS_BYTES: dict[Kind, int] = {"cuda": 0, "mps": 0, "cpu": 400_000_000}
"""What the process itself holds where a peak is the process's: Python with torch and diffusers
loaded (370 MB measured)."""

_WORKING = 35
"""Bytes for one token and one channel of the denoiser's width, in half precision. Measured: 29 for
Wan 2.1 1.3B, 22 for its 14B, 34 for LTX-Video, 25 for FLUX."""
_LAYERS = 40
"""Layers that the width is guessed with: 12 x layers x width^2 are a transformer's weights."""
_TOKEN_SIDE, _TOKEN_FRAMES = 16, 4
"""Pixels and frames in a token: a VAE of 8x8x4 and patches of 2x2, as in Wan and HunyuanVideo."""
_DECODING = 1800.0
"""Bytes for one pixel of one frame, in half precision. Measured: 1796 for HunyuanVideo 1.5, 1536
for SDXL, 100 for LTX-Video; the highest is taken, as tiles cost little."""
_OUTPUT = 12
"""Bytes for one pixel of one frame that tiles and the clip joined of them hold: twice RGB."""
_FP8_SHARE = 0.7
"""Share of a transformer's weights that may be stored in 8 bits: the linear layers that are not
within a norm. Measured: 0.98 for Wan, 0.73 for FLUX, the lowest."""
_GROUP_SHARE, _LAYER_SHARE = 0.05, 0.02
"""Share of a denoiser's weights that is on the device when its layers come and go with a stream,
and one by one: the largest layer is 0.005 (FLUX) to 0.013 (LTX-Video) of all."""
_EMBEDDING_SHARE = 0.2
"""The same for text encoders, where the table of words is a layer (0.185 of UMT5-XXL), and for
VAEs (0.18 of HunyuanVideo 1.5's)."""


def kind_of(device: str) -> Kind:
    """The kind of a device, by its label."""
    name = device.split(maxsplit=1)[0].partition(":")[0]
    return "cuda" if name == "cuda" else "mps" if name == "mps" else "cpu"


def card_peak(
    card: ModelCard,
    placement: Placement,
    tiling: bool,
    *,
    size: tuple[int, int],
    frames: int,
    dtype_bytes: int,
    media: bool,
) -> int | None:
    """Bytes of the device at the peak; None for a card without the sizes of its components.

    `size` is in pixels, `dtype_bytes` the width of the numbers computed with; `media` is whether
    the VAE has to encode something before.
    """
    memory = card.memory
    if memory is None:
        return None
    texts, denoisers, rest = _sorted(memory, dtype_bytes)
    text, before = sum(texts), sum(rest)
    largest, all_denoisers = max(denoisers, default=0), sum(denoisers)
    work = working_bytes(memory, size, frames, dtype_bytes)
    decode = decoding_bytes(memory, size, frames, dtype_bytes, tiling)
    most = max(work, decode)
    kept = before if media else 0
    if placement == "resident":
        peak = text + all_denoisers + before + most
    elif placement == "fp8":
        stored = all_denoisers * (_FP8_SHARE / dtype_bytes + 1 - _FP8_SHARE)
        # A layer is widened while it computes.
        peak = stored + largest * _LAYER_SHARE + before + max(text, most)
    elif placement == "model_offload":
        peak = max(text, largest + kept + work, before + decode)
    elif placement == "group_offload":
        # What is no transformer stays on the device: it is small, and its calls are few.
        peak = before + max(text * _EMBEDDING_SHARE, largest * _GROUP_SHARE + work, decode)
    else:
        peak = max(
            max(texts, default=0) * _EMBEDDING_SHARE,
            largest * _LAYER_SHARE + work,
            max(rest, default=0) * _EMBEDDING_SHARE + decode,
        )
    return math.ceil(peak)


def host_bytes(card: ModelCard, placement: Placement, dtype_bytes: int) -> int | None:
    """Bytes of main memory for weights that are not on the device; None when they are not known.

    The text encoders are there alone, before the others.
    """
    if card.memory is None:
        return None
    texts, denoisers, rest = _sorted(card.memory, dtype_bytes)
    if placement in ("resident", "fp8"):
        return 0
    staying = 0.0 if placement == "group_offload" else sum(rest)
    return round(max(sum(texts), sum(denoisers) + staying))


def working_bytes(memory: Memory, size: tuple[int, int], frames: int, dtype_bytes: int) -> float:
    """Bytes that denoising needs beside the weights, of which a window has no more than its own."""
    frames = min(frames, memory.window or frames)
    if memory.working is not None:
        return memory.working * size[0] * size[1] * frames * dtype_bytes / 2
    _, denoisers, _ = _sorted(memory, 2)
    width = math.sqrt(max(denoisers, default=0) / 2 / (12 * _LAYERS))
    tokens = size[0] * size[1] / _TOKEN_SIDE**2 * (1 + (frames - 1) / _TOKEN_FRAMES)
    return _WORKING * width * tokens * dtype_bytes / 2


def decoding_bytes(
    memory: Memory, size: tuple[int, int], frames: int, dtype_bytes: int, tiling: bool
) -> float:
    """Bytes that decoding needs beside the weights."""
    area = size[0] * size[1]
    each = memory.decoding if memory.decoding is not None else _DECODING
    whole = each * area * frames * dtype_bytes / 2
    if not tiling:
        return whole
    tiled = whole * min(1.0, memory.tile**2 / area) + _OUTPUT * area * frames * dtype_bytes / 2
    return min(whole, tiled)


def _sorted(
    memory: Memory, dtype_bytes: int
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[float, ...]]:
    """Bytes in memory of the text encoders, the denoisers and the rest, one by one."""
    texts: list[float] = []
    denoisers: list[float] = []
    rest: list[float] = []
    for name, stored in memory.components.items():
        loaded = stored / (4 if name in memory.float32 else 2) * dtype_bytes
        if name.startswith("text_encoder"):
            texts.append(loaded)
        elif name.startswith(("transformer", "unet")):
            denoisers.append(loaded)
        else:
            rest.append(loaded)
    return tuple(texts), tuple(denoisers), tuple(rest)
