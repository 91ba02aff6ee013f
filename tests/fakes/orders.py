"""Orders as the engine would hand them to a backend that works elsewhere."""

from __future__ import annotations

import struct
import uuid
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinoloom.backends.base import Order, Take
from kinoloom.catalog.card import ModelCard

PROMPT = "a red ball rolls to the right"


def order_of(
    card: ModelCard,
    task: str | None = None,
    *,
    inputs: Mapping[str, Path] | None = None,
    audio: bool = False,
    **changes: Any,
) -> Order:
    """An order for the card's defaults and first task, but for what is given."""
    values: dict[str, Any] = {
        "task": task or card.tasks[0],
        "prompt": PROMPT,
        "negative": "",
        "width": card.sizes.default[0],
        "height": card.sizes.default[1],
        "frames": card.frames.default,
        "fps": card.fps.default,
        "steps": card.steps.default,
        "guidance": card.guidance.default,
        "seed": 7,
        "device": "",
    }
    take = Take(**values | changes)
    return Order(str(uuid.uuid4()), take, inputs=inputs or {}, audio=audio)


def png(path: Path, width: int = 64, height: int = 40, *, filler: int = 0) -> Path:
    """A grey picture in a file; `filler` bytes more in a chunk that viewers skip."""

    def chunk(name: bytes, data: bytes) -> bytes:
        checked = name + data
        return struct.pack(">I", len(data)) + checked + struct.pack(">I", zlib.crc32(checked))

    rows = b"".join(b"\0" + b"\x80" * (3 * width) for _ in range(height))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [b"\x89PNG\r\n\x1a\n", chunk(b"IHDR", header)]
    if filler:
        parts.append(chunk(b"fiLl", bytes(filler)))
    parts += [chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")]
    path.write_bytes(b"".join(parts))
    return path
