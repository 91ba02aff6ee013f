"""Which pipelines stay loaded between renders?

As many as the memory budget holds: the least recently used one goes first, and what several of them
share counts once. Before a render the free memory is looked at, so that room is made before an
allocation fails rather than after.
"""

from __future__ import annotations

import gc
from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Any

import torch


class Residency:
    """Loaded pipelines by key, within a budget of bytes (None: as much as there is)."""

    def __init__(self, budget: int | None = None) -> None:
        self.budget = budget
        self._held: OrderedDict[str, Any] = OrderedDict()

    def get(self, key: str, load: Callable[[], Any]) -> Any:
        """The pipeline of that key, loaded now unless it is held; it is the last to go."""
        if key in self._held:
            self._held.move_to_end(key)
        else:
            self._held[key] = load()
            self._shrink()
        return self._held[key]

    def make_room(self, free: Callable[[], int | None], needed: int) -> None:
        """Let go of pipelines, the least recently used first, until `needed` bytes are free."""
        for key in list(self._held):
            available = free()
            if available is None or available >= needed:
                return
            self.drop(key)

    def drop(self, key: str) -> None:
        """Give one pipeline's memory back."""
        if self._held.pop(key, None) is not None:
            release()

    def clear(self) -> None:
        """Give all of it back."""
        self._held.clear()
        release()

    @property
    def held(self) -> tuple[str, ...]:
        """The keys of what is loaded, the least recently used one first."""
        return tuple(self._held)

    @property
    def bytes(self) -> int:
        """Bytes of the weights that are held, what is shared counted once."""
        tensors = {t.data_ptr(): t.nbytes for pipe in self._held.values() for t in _tensors(pipe)}
        return sum(tensors.values())

    def _shrink(self) -> None:
        while self.budget is not None and len(self._held) > 1 and self.bytes > self.budget:
            self.drop(next(iter(self._held)))


def release() -> None:
    """Return what nothing refers to any more to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if torch.backends.mps.is_available():
        torch.mps.empty_cache()


def _tensors(pipe: Any) -> Iterator[torch.Tensor]:
    for module in pipe.components.values():
        if isinstance(module, torch.nn.Module):
            yield from module.parameters()
            yield from module.buffers()
