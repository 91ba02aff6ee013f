"""Tiny random checkpoints of Wan 2.1 and 2.2, in the layout of the real repositories.

What they draw means nothing, but a prompt and a picture change it visibly.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLWan,
    DiffusionPipeline,
    UniPCMultistepScheduler,
    WanImageToVideoPipeline,
    WanPipeline,
    WanTransformer3DModel,
    WanVACEPipeline,
    WanVACETransformer3DModel,
)
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    CLIPVisionModelWithProjection,
    UMT5Config,
    UMT5EncoderModel,
)

from tiny_models import parts, shipped, words

TEXT, HEADS, HEAD = 32, 2, 12
IMAGE = 32

SMALL: Mapping[str, Any] = {
    "sizes": {
        "multiple_of": 32,
        "minimum": 32,
        "maximum": 64,
        "native": [[32, 32], [64, 32]],
        "default": [32, 32],
    },
    "frames": {"multiple": 4, "offset": 1, "minimum": 1, "maximum": 17, "default": 5},
}
"""What a tiny model's card says in place of the real one's."""


def seeded(write: Callable[[Path], Path]) -> Callable[[Path], Path]:
    """The same weights every time, and torch's own generator left alone."""

    @wraps(write)
    def writing(folder: Path) -> Path:
        with parts.seeded(0):
            return write(folder)

    return writing


@seeded
def write_t2v(folder: Path) -> Path:
    """Wan 2.1 from words."""
    return save(folder, WanPipeline, transformer=_transformer())


@seeded
def write_i2v(folder: Path) -> Path:
    """Wan 2.1 from a picture, with an image encoder."""
    return save(folder, WanImageToVideoPipeline, transformer=_seeing(), **vision(CLIPVisionModel))


@seeded
def write_flf2v(folder: Path) -> Path:
    """Wan 2.1 from a first and a last picture."""
    # The encoder gives 17 tokens for each of the two.
    transformer = _seeing(pos_embed_seq_len=2 * 17)
    return save(folder, WanImageToVideoPipeline, transformer=transformer, **vision(CLIPVisionModel))


@seeded
def write_vace(folder: Path) -> Path:
    """Wan 2.1 VACE."""
    transformer = build(
        WanVACETransformer3DModel, num_layers=3, vace_layers=[0, 2], vace_in_channels=96
    )
    return save(folder, WanVACEPipeline, transformer=transformer)


@seeded
def write_t2v_22(folder: Path) -> Path:
    """Wan 2.2 from words, with its two experts."""
    experts = {"transformer": _transformer(), "transformer_2": _transformer()}
    return save(folder, WanPipeline, **experts, boundary_ratio=0.875)


@seeded
def write_i2v_22(folder: Path) -> Path:
    """Wan 2.2 from a picture, with its two experts and no image encoder."""
    experts = {
        "transformer": _transformer(in_channels=36),
        "transformer_2": _transformer(in_channels=36),
    }
    return save(folder, WanImageToVideoPipeline, **experts, boundary_ratio=0.9)


@seeded
def write_ti2v_22(folder: Path) -> Path:
    """Wan 2.2 TI2V: one model for words and pictures, with its own VAE."""
    residual = AutoencoderKLWan(
        base_dim=4,
        decoder_base_dim=4,
        z_dim=48,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        is_residual=True,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        scale_factor_spatial=16,
        latents_mean=[0.1] * 48,
        latents_std=[0.9] * 48,
    )
    transformer = _transformer(in_channels=48, out_channels=48)
    return save(folder, WanPipeline, transformer=transformer, vae=residual, expand_timesteps=True)


VARIANTS: Mapping[str, tuple[Callable[[Path], Path], str]] = {
    "wan-2.1-t2v": (write_t2v, "wan-2.1-t2v-1.3b"),
    "wan-2.1-i2v": (write_i2v, "wan-2.1-i2v-14b-480p"),
    "wan-2.1-flf2v": (write_flf2v, "wan-2.1-flf2v-14b"),
    "wan-2.1-vace": (write_vace, "wan-2.1-vace-1.3b"),
    "wan-2.2-t2v": (write_t2v_22, "wan-2.2-t2v-a14b"),
    "wan-2.2-i2v": (write_i2v_22, "wan-2.2-i2v-a14b"),
    "wan-2.2-ti2v": (write_ti2v_22, "wan-2.2-ti2v-5b"),
}
"""By the name of the tiny model: what writes it, and the packaged card that it follows."""


def cards(folder: Path) -> None:
    """Write every variant, and its card ``tiny-<variant>.yaml``, into `folder`."""
    for name, (write, model) in VARIANTS.items():
        write(folder / f"tiny-{name}")
        shipped.write_card(folder, name, model, SMALL)


def vision(kind: type[CLIPVisionModel | CLIPVisionModelWithProjection]) -> dict[str, Any]:
    """An image encoder of 17 tokens a picture, and what prepares pictures for it."""
    config = CLIPVisionConfig(
        hidden_size=IMAGE,
        intermediate_size=IMAGE,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
    )
    size = {"height": 16, "width": 16}
    processor = CLIPImageProcessorPil(size=size, crop_size=size)
    return {"image_encoder": kind(config), "image_processor": processor}


def vae() -> AutoencoderKLWan:
    """A VAE of Wan 2.1's form and three channels."""
    return AutoencoderKLWan(base_dim=3, z_dim=16, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def scheduler(shift: float) -> UniPCMultistepScheduler:
    """The scheduler of the real repositories."""
    return UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift
    )


def build(kind: Any, **changes: Any) -> Any:
    config: dict[str, Any] = {
        "num_attention_heads": HEADS,
        "attention_head_dim": HEAD,
        "in_channels": 16,
        "out_channels": 16,
        "text_dim": TEXT,
        "freq_dim": 32,
        "ffn_dim": 32,
        "num_layers": 2,
        "cross_attn_norm": True,
        "qk_norm": "rms_norm_across_heads",
        "rope_max_seq_len": 32,
    }
    model = kind(**(config | changes))
    parts.loud(model)
    with torch.no_grad():
        # A prompt is a few tokens among 512, and all are attended to.
        model.condition_embedder.text_embedder.linear_2.weight.mul_(6.0)
    return model


_transformer = partial(build, WanTransformer3DModel)
_seeing = partial(_transformer, in_channels=36, image_dim=IMAGE, added_kv_proj_dim=HEADS * HEAD)


def save(folder: Path, kind: type[DiffusionPipeline], **components: Any) -> Path:
    found = {
        "tokenizer": words.t5(),
        "text_encoder": parts.t5(TEXT, len(words.t5()), UMT5EncoderModel, UMT5Config),
        "scheduler": scheduler(3.0),
        "vae": vae(),
    } | components
    parts.loud(found["vae"])
    for part in found.values():
        if isinstance(part, torch.nn.Module):
            part.eval()
    kind(**found).save_pretrained(folder, safe_serialization=True)
    # The real repositories name the classes as they were called when they were made.
    index = folder / "model_index.json"
    text = index.read_text("utf-8").replace('"T5Tokenizer"', '"T5TokenizerFast"')
    index.write_text(text.replace("ProcessorPil", "Processor"), "utf-8")
    return folder
