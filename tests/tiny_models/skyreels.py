"""Tiny random checkpoints of SkyReels V2, in the layout of the real repositories."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from diffusers import (
    SkyReelsV2DiffusionForcingPipeline,
    SkyReelsV2ImageToVideoPipeline,
    SkyReelsV2Pipeline,
    SkyReelsV2Transformer3DModel,
)
from transformers import CLIPVisionModelWithProjection

from tiny_models import shipped
from tiny_models.wan import HEAD, HEADS, IMAGE, SMALL, build, save, seeded, vision


@seeded
def write_t2v(folder: Path) -> Path:
    """SkyReels V2 from words."""
    return save(folder, SkyReelsV2Pipeline, transformer=_transformer())


@seeded
def write_i2v(folder: Path) -> Path:
    """SkyReels V2 from a picture, with an image encoder."""
    parts = vision(CLIPVisionModelWithProjection)
    parts["transformer"] = _transformer(
        in_channels=36, image_dim=IMAGE, added_kv_proj_dim=HEADS * HEAD
    )
    return save(folder, SkyReelsV2ImageToVideoPipeline, **parts)


@seeded
def write_df(folder: Path) -> Path:
    """SkyReels V2 with diffusion forcing."""
    transformer = _transformer(inject_sample_info=True)
    return save(folder, SkyReelsV2DiffusionForcingPipeline, transformer=transformer)


LONG: Mapping[str, Any] = {
    "frames": {"multiple": 4, "offset": 1, "minimum": 1, "maximum": 121, "default": 5},
    "extend": {"context_frames": 5},
}
"""What the card of diffusion forcing says: clips of two windows, and a short context."""

VARIANTS: Mapping[str, tuple[Callable[[Path], Path], str, Mapping[str, Any]]] = {
    "skyreels-v2-t2v": (write_t2v, "skyreels-v2-t2v-14b-540p", SMALL),
    "skyreels-v2-i2v": (write_i2v, "skyreels-v2-i2v-1.3b-540p", SMALL),
    "skyreels-v2-df": (write_df, "skyreels-v2-df-1.3b-540p", {**SMALL, **LONG}),
}
"""By the name of the tiny model: what writes it, the packaged card that it follows, and what its
own card says instead."""


def cards(folder: Path) -> None:
    """Write every variant, and its card ``tiny-<variant>.yaml``, into `folder`."""
    for name, (write, model, changes) in VARIANTS.items():
        write(folder / f"tiny-{name}")
        shipped.write_card(folder, name, model, changes)


_transformer = partial(build, SkyReelsV2Transformer3DModel)
