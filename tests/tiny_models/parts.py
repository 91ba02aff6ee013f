"""Parts of the tiny models: T5 and CLIP, the VAE of images, the IP-Adapter.

A fresh text or image encoder gives nearly the same for everything, and a fresh UNet hardly looks at
it. The weights are scaled so that words and pictures change what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    T5Config,
    T5EncoderModel,
)

from tiny_models import words

VISION_SIDE = 32  # pixels that the IP-Adapter's image encoder looks at


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random weights that are the same in every run, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        yield


def t5(width: int, tokens: int, kind: Any = T5EncoderModel, config: Any = T5Config) -> Any:
    """T5's encoder of one layer for a vocabulary of `tokens`; `kind` may be one like it."""
    encoder = kind(
        config(
            vocab_size=tokens,
            d_model=width,
            d_kv=8,
            num_heads=2,
            d_ff=width,
            num_layers=1,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
        )
    )
    with torch.no_grad():
        # What comes out of a fresh text encoder is nearly nothing.
        encoder.shared.weight.normal_(0.0, 1.0)
    return encoder.eval()


def clip(width: int, *, projected: bool = False) -> Any:
    """CLIP's text encoder; the projected one gives a pooled vector as SDXL's second does."""
    vocabulary = len(words.clip())
    config = CLIPTextConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=vocabulary - 2,
        eos_token_id=vocabulary - 1,
        pad_token_id=vocabulary - 1,
    )
    model = CLIPTextModelWithProjection(config) if projected else CLIPTextModel(config)
    return loud(model.eval())


def clip_vision(width: int, side: int = VISION_SIDE) -> CLIPVisionModelWithProjection:
    """CLIP's image encoder, which gives [1, width]."""
    config = CLIPVisionConfig(
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=side,
        patch_size=side // 4,
        projection_dim=width,
    )
    model: CLIPVisionModelWithProjection = loud(CLIPVisionModelWithProjection(config).eval())
    return model


def vae(**config: Any) -> AutoencoderKL:
    """A VAE of images with cells of 8x8 pixels and 4 channels."""
    values: dict[str, Any] = {
        "block_out_channels": (8, 8, 8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "norm_num_groups": 4,
        "latent_channels": 4,
    }
    return AutoencoderKL(**(values | config)).eval()


def loud(model: Any) -> Any:
    """The model with every matrix at unit gain and every embedding at unit size.

    What comes out of fresh weights hardly depends on what goes in.
    """
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding):
                module.weight.normal_(0.0, 1.0)
            elif isinstance(module, torch.nn.Linear | torch.nn.Conv2d | torch.nn.Conv3d):
                module.weight.normal_(0.0, module.weight[0].numel() ** -0.5)
    return model


def write_adapter(folder: Path, name: str, unet: Any, width: int) -> None:
    """An IP-Adapter for `unet` as it lies in its repository: ``folder/name`` and its encoder.

    The keys of the attention layers are counted as the original code counts them: every second
    number, in the order in which the UNet lists its layers.
    """
    across = unet.config.cross_attention_dim
    tensors = {
        "image_proj.proj.weight": torch.randn(4 * across, width) * width**-0.5,
        "image_proj.proj.bias": torch.zeros(4 * across),
        "image_proj.norm.weight": torch.ones(across),
        "image_proj.norm.bias": torch.zeros(across),
    }
    layers = [n for n in unet.attn_processors if n.endswith("attn2.processor")]
    for number, layer in enumerate(layers):
        size = unet.get_submodule(layer.removesuffix(".processor")).to_k.weight.shape[0]
        for kind in ("to_k_ip", "to_v_ip"):
            key = f"ip_adapter.{2 * number + 1}.{kind}.weight"
            tensors[key] = torch.randn(size, across) * across**-0.5
    folder.mkdir(parents=True)
    save_file(tensors, folder / name)
    clip_vision(width).save_pretrained(folder / "image_encoder")
