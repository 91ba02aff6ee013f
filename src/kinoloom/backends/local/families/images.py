"""How are pictures that a model's vision encoder has seen remembered?

Some pipelines do not take a picture's encoding as an argument. `remember_images` puts a small
memory in front of the method that makes it.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image

CAPACITY = 16
"""Encodings kept for a pipeline; one is a few megabytes."""


def remember_images(pipe: Any) -> None:
    """Encode a picture only once in the life of `pipe`; calling it again changes nothing."""
    if not isinstance(pipe.encode_image, _Remembered):
        pipe.encode_image = _Remembered(pipe.encode_image)


class _Remembered:
    """A pipeline's ``encode_image`` with the last results, by the picture's content."""

    def __init__(self, encode: Callable[..., torch.Tensor]) -> None:
        self._encode = encode
        self._known: OrderedDict[tuple[str, str], torch.Tensor] = OrderedDict()

    def __call__(
        self, image: Image.Image | torch.Tensor, *args: Any, **kwargs: Any
    ) -> torch.Tensor:
        # What else is passed (device, dtype, batch size) decides the result too.
        key = _digest(image), repr((args, sorted(kwargs.items())))
        if key not in self._known:
            self._known[key] = self._encode(image, *args, **kwargs)
            if len(self._known) > CAPACITY:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        return self._known[key].clone()


def _digest(image: Image.Image | torch.Tensor) -> str:
    """SHA-256 of a picture's pixels and form."""
    if isinstance(image, Image.Image):
        form, data = f"{image.mode}{image.size}", image.tobytes()
    else:
        form = f"{image.dtype}{tuple(image.shape)}"
        data = image.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    return hashlib.sha256(form.encode() + b"\0" + data).hexdigest()
