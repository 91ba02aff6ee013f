"""Which embeddings of a prompt are there already, so that no text encoder need be loaded?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import metadata
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load as tensors_of
from safetensors.torch import save as bytes_of

from kinoloom.config import Settings
from kinoloom.store.cache.bytes import ByteCache

_VERSION = 1  # of what a key is made of
# Another version of these may round differently or cut a prompt elsewhere.
_LIBRARIES = ("diffusers", "tokenizers", "torch", "transformers")


class EmbeddingCache:
    """Named tensors by what they were made from, in a `ByteCache`: exact values, dtype and shape.

    Values are safetensors; nothing that is read from the cache can run code.
    """

    def __init__(self, cache: ByteCache) -> None:
        self.cache = cache
        self._libraries = {name: metadata.version(name) for name in _LIBRARIES}

    @classmethod
    def open(cls, settings: Settings) -> Self:
        """The cache that the settings describe. Raises MissingPackage (see `ByteCache.open`)."""
        return cls(ByteCache.open(settings))

    def key(
        self,
        encoder_identity: str,
        prompt: str,
        negative: str,
        guided: bool,
        extra: Mapping[str, Any],
    ) -> str:
        """The key of a prompt's embeddings.

        `encoder_identity` names the weights (repository and revision, or the content's digest) and
        the dtype; `extra` is what else the family's encoding depends on, as JSON has it or a torch
        dtype or device. Without guidance nobody encodes the negative prompt, so it does not count.
        """
        parts = {
            "version": _VERSION,
            "libraries": self._libraries,
            "encoder": encoder_identity,
            "prompt": prompt,
            "negative": negative if guided else "",
            "guided": guided,
            "extra": dict(extra),
        }
        text = json.dumps(
            parts, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_named
        )
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def load(self, key: str, device: torch.device | str) -> dict[str, torch.Tensor] | None:
        """The tensors that were saved under `key`, on `device`; None when there are none."""
        data = self.cache.get(key)
        if data is None:
            return None
        try:
            tensors = tensors_of(data)
        except (SafetensorError, KeyError, TypeError, ValueError):
            return None  # written by a program that means something else by this key
        return {name: tensor.to(device) for name, tensor in tensors.items()}

    def save(self, key: str, tensors: Mapping[str, torch.Tensor]) -> None:
        """Keep `tensors` under `key`. Raises TypeError when one is none."""
        kept = {}
        for name, tensor in tensors.items():
            if not isinstance(tensor, torch.Tensor):
                raise TypeError(f"{name} is no tensor but {type(tensor).__name__}")
            # Cloned, since safetensors takes no views of one memory, as expanded prompts are.
            kept[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        self.cache.put(key, bytes_of(kept))


def _named(value: object) -> str:
    if isinstance(value, torch.dtype | torch.device):
        return str(value)
    raise TypeError(f"{type(value).__name__} cannot be part of a key")
