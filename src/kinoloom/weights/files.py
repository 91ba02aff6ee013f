"""What does a file of a model say, without loading it? Everything in it is doubted first."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kinoloom.errors import ModelBroken

MAX_JSON_BYTES = 16_000_000
"""A configuration is kilobytes; the list of a large model's shards a megabyte or two."""
MAX_HEADER_BYTES = 100_000_000
"""The safetensors library's own limit."""
PICKLES = frozenset({".bin", ".ckpt", ".pt", ".pth", ".pkl", ".pickle"})
"""Suffixes of checkpoints that can run code when they are opened."""


@dataclass(frozen=True)
class Header:
    """The tensors of a safetensors file: each one's shape by its name."""

    shapes: dict[str, tuple[int, ...]]


def read_json(file: Path) -> dict[str, Any]:
    """The mapping in a JSON file. Raises ModelBroken for anything else, however large."""
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_JSON_BYTES + 1)
    except OSError as error:
        raise broken(file, f"cannot be read: {error.strerror or error}") from error
    if len(raw) > MAX_JSON_BYTES:
        raise broken(file, f"larger than the {MAX_JSON_BYTES // 1_000_000} MB it may have")
    return parse_json(file, raw)


def parse_json(file: Path, raw: bytes) -> dict[str, Any]:
    """The mapping that the bytes of `file` spell out; ModelBroken for anything else."""
    try:
        data = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise broken(file, "not JSON") from error
    if not isinstance(data, dict):
        raise broken(file, "no mapping of names to values")
    return data


def read_header(file: Path) -> Header:
    """The header of a safetensors file, with the file's length checked against it.

    Raises ModelBroken for a file that is cut off, too long, or no safetensors file at all.
    """
    try:
        stat = file.stat()
        return _header(file, stat.st_size, stat.st_mtime_ns)
    except OSError as error:
        raise broken(file, f"cannot be read: {error.strerror or error}") from error


@lru_cache(maxsize=256)
def _header(file: Path, size: int, _modified: int) -> Header:
    """`read_header`, remembered until the file's size or time of change is another."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > min(size - 8, MAX_HEADER_BYTES):
            raise broken(file, "cut off, or no safetensors file")
        data = parse_json(file, stream.read(length))
    shapes: dict[str, tuple[int, ...]] = {}
    end = 0
    for name, tensor in data.items():
        if name == "__metadata__":
            continue
        try:
            shape, (start, stop) = tuple(tensor["shape"]), tensor["data_offsets"]
        except (TypeError, KeyError, ValueError):
            raise broken(file, "its header describes no tensors") from None
        numbers = (*shape, start, stop)
        if any(type(n) is not int or n < 0 for n in numbers):
            raise broken(file, "its header describes no tensors")
        shapes[name], end = shape, max(end, stop)
    if size != 8 + length + end:
        missing = 8 + length + end - size
        reason = f"{missing} bytes are missing" if missing > 0 else f"{-missing} bytes too long"
        raise broken(file, f"cut off or damaged: {reason}")
    return Header(shapes)


def broken(file: Path, reason: str) -> ModelBroken:
    """The error for a file that cannot be used."""
    return ModelBroken(
        f"{file} cannot be used.",
        cause=f"{file.name}: {reason}",
        hints=["Download or copy the model anew; `kinoloom models check ID` looks at every file."],
    )


def pickle(file: Path) -> ModelBroken:
    """The error for a checkpoint that could run code."""
    return ModelBroken(
        f"{file} is not opened.",
        cause=f"{file.suffix} files are pickles, which can run any code when they are opened",
        hints=["Use the model's .safetensors file, or convert it where you trust its origin."],
    )
