"""Would two plans give the same clip?

`plan_key` hashes everything that decides the frames and nothing else: two plans with one key need
rendering only once. What is only written around the frames (format, file name, tier) and what only
describes (estimates, notes) stays out.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from kinoloom.catalog.card import ModelCard, Source
from kinoloom.planner.inputs import Inputs
from kinoloom.request import Task

_VERSION = 1
"""Part of every key: raised when the same plan would be rendered differently than before."""

_WHOLE = 64 * 1024 * 1024
_SLICE = 1024 * 1024
_SLICES = 16


def plan_key(
    card: ModelCard,
    *,
    task: Task,
    prompt: str,
    negative: str,
    size: tuple[int, int],
    frames: int,
    context_frames: int,
    fps: float,
    steps: int,
    guidance: float,
    seed: int,
    inputs: Inputs,
) -> str:
    """SHA-256 (64 hexadecimal digits) over what decides the frames, as canonical JSON."""
    media = (inputs.image, inputs.last_image, inputs.video)
    content: dict[str, Any] = {
        "version": _VERSION,
        "model": card.id,
        "weights": weights_identity(card.source),
        "recipe": {
            "adapter": card.adapter,
            "pipeline": card.pipelines[task].model_dump(mode="json"),
            "schedule": card.schedule.model_dump(mode="json") if card.schedule else None,
        },
        "task": task,
        "prompt": prompt,
        "negative": negative,
        "size": list(size),
        "frames": frames,
        "context_frames": context_frames,
        "fps": float(fps),
        "steps": steps,
        "guidance": float(guidance),
        "seed": seed,
        "inputs": [m.digest if m is not None else None for m in media],
    }
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(text.encode("ascii")).hexdigest()


def weights_identity(source: Source) -> str:
    """Which weights these are: a repository at its revision, or a digest of a folder's files.

    Texts for readers (``*.md``) do not count. Of files above 64 MB only sixteen evenly spread
    megabytes are read: training changes every weight, so they differ wherever two models do. A
    folder that is not there has no identity but its name; that it cannot be loaded is the
    backend's to say.
    """
    folder = source.folder
    if folder is None:
        return f"{source.repo}@{source.revision or 'latest'}"
    if not folder.is_dir():
        return f"missing:{source.package or folder}"
    digest = hashlib.sha256()
    for file in sorted(folder.rglob("*")):
        try:
            if file.is_file() and file.suffix != ".md":
                stat = file.stat()
                content = _content(file, stat.st_size, stat.st_mtime_ns)
                digest.update(f"{file.relative_to(folder).as_posix()}\n{content}\n".encode())
        except OSError:
            digest.update(f"{file.name}\nunreadable\n".encode())
    return "sha256:" + digest.hexdigest()


@lru_cache(maxsize=4096)
def _content(file: Path, size: int, modified: int) -> str:
    """The digest of a file; size and time of change are there for the cache to notice changes."""
    with file.open("rb") as stream:
        if size <= _WHOLE:
            return hashlib.file_digest(stream, "sha256").hexdigest()
        digest = hashlib.sha256(f"{size}".encode())
        for i in range(_SLICES):
            stream.seek((size - _SLICE) * i // (_SLICES - 1))
            digest.update(stream.read(_SLICE))
        return digest.hexdigest()
