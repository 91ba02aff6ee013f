"""Which modules are loaded already, so that two pipelines need not hold the same one twice?

A text encoder or a VAE that two models have in common is the same files, whatever their folders are
called. Only weak references are kept: a module lives as long as a pipeline holds it.
"""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


class Shared:
    """The loaded modules by what they were loaded from."""

    def __init__(self) -> None:
        self._modules: weakref.WeakValueDictionary[str, Any] = weakref.WeakValueDictionary()

    def module(self, folder: Path, dtype: torch.dtype, load: Callable[[], Any]) -> Any:
        """The module of that folder in that dtype: the one that is there, or a new one."""
        key = f"{identity(folder)} {dtype}"
        found = self._modules.get(key)
        if found is None:
            found = load()
            if isinstance(found, torch.nn.Module):
                self._modules[key] = found
        return found


def identity(folder: Path) -> str:
    """What a component's folder holds: a digest over its files' names and identities.

    A file in the Hugging Face cache is a link to a blob named by its content, so equal files of two
    repositories count as one; elsewhere a file is known by path, size and time of change.
    """
    digest = hashlib.sha256()
    files = sorted(folder.rglob("*")) if folder.is_dir() else [folder]
    for file in files:
        if file.is_dir() or file.suffix == ".md":
            continue
        real = file.resolve()
        if real.parent.name == "blobs":
            said = real.name
        else:
            stat = real.stat()
            said = f"{real} {stat.st_size} {stat.st_mtime_ns}"
        digest.update(
            f"{file.name if file == folder else file.relative_to(folder)} {said}\n".encode()
        )
    return digest.hexdigest()
