"""Parts of the tiny image models: CLIP in text and pictures, the VAE, the IP-Adapter, the cards.

A fresh text or image encoder gives nearly the same for everything, and a fresh UNet hardly looks at
it. The weights are scaled so that words and pictures change what comes out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml
from diffusers import AutoencoderKL
from safetensors.torch import save_file
from tokenizers.pre_tokenizers import ByteLevel
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
)

from kinoloom.catalog.loader import Catalog

VISION_SIDE = 32  # pixels that the IP-Adapter's image encoder looks at


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random weights that are the same in every run, and leave torch's generator as it was."""
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        yield


def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer without merges: one token a letter."""
    letters = sorted(ByteLevel.alphabet())
    words = [*letters, *(f"{c}</w>" for c in letters), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(
        vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=77
    )


def text_encoder(width: int, *, projected: bool = False) -> Any:
    """CLIP's text encoder; the projected one gives a pooled vector as SDXL's second does."""
    vocabulary = len(ByteLevel.alphabet()) * 2 + 2
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
    return scaled(model.eval())


def vision_encoder(width: int, side: int = VISION_SIDE) -> CLIPVisionModelWithProjection:
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
    model: CLIPVisionModelWithProjection = scaled(CLIPVisionModelWithProjection(config).eval())
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


def scaled(model: Any) -> Any:
    """The model with every matrix at unit gain and every embedding at unit size."""
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
    vision_encoder(width).save_pretrained(folder / "image_encoder")


def write_card(folder: Path, packaged: str, name: str, **changes: Any) -> None:
    """A user's card ``name``: the packaged one with changes, without its repositories' presets."""
    card = Catalog.load().get(packaged)
    values: dict[str, Any] = card.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    for key in ("presets", "timing", "memory", "notes", "unverified", "suggests"):
        values.pop(key, None)
    merged = _merged(values, {"id": name, "title": name, **changes})
    text = yaml.safe_dump(merged, sort_keys=False)
    folder.joinpath(f"{name}.yaml").write_text(text, encoding="utf-8")


def _merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`; ``source`` is replaced, other mappings are merged."""
    found = dict(base)
    for key, value in changes.items():
        if key != "source" and isinstance(value, dict) and isinstance(found.get(key), dict):
            value = {**found[key], **value}
        found[key] = value
    return found
