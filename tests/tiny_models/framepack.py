"""A tiny random checkpoint of FramePack, in the layout of the real repositories: three of them.

What it draws means nothing, but a prompt and a picture change it visibly.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideoFramepackTransformer3DModel,
    HunyuanVideoPipeline,
    HunyuanVideoTransformer3DModel,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    LlamaConfig,
    LlamaModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tiny_models import parts, shipped, words

ASPECTS = (
    "1. The main content and theme of the video.",
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the",
    "4. background environment, light, style and atmosphere.",
    "5. camera angles, movements, and transitions used in the video:",
)
"""What stands before every prompt. It must be more than the 95 tokens that are cut off, and few
enough for the prompt not to be cut off at the end."""

FEW = {
    "sizes": {
        "multiple_of": 16,
        "minimum": 32,
        "maximum": 64,
        "native": [[32, 32], [48, 32]],
        "default": [32, 32],
    },
    "frames": {"multiple": 36, "offset": 1, "minimum": 37, "maximum": 109, "default": 37},
}


def write_i2v(folder: Path) -> Path:
    """The three repositories as the folders ``base``, ``transformer`` and ``redux`` of `folder`."""
    with parts.seeded(0):
        _base().save_pretrained(folder / "base", safe_serialization=True)
        transformer = HunyuanVideoFramepackTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=10,
            num_layers=1,
            num_single_layers=1,
            num_refiner_layers=1,
            text_embed_dim=16,
            pooled_projection_dim=8,
            rope_axes_dim=(2, 4, 4),
            has_image_proj=True,
            image_proj_dim=12,
            has_clean_x_embedder=True,
        )
        parts.loud(transformer)
        transformer.save_pretrained(folder / "transformer", safe_serialization=True)
        vision = SiglipVisionConfig(
            hidden_size=12,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            image_size=16,
            patch_size=4,
        )
        encoder = SiglipVisionModel(vision)
        parts.loud(encoder)
        encoder.save_pretrained(folder / "redux/image_encoder", safe_serialization=True)
    processor = SiglipImageProcessor(size={"height": 16, "width": 16})
    processor.save_pretrained(folder / "redux/feature_extractor")
    return folder


def cards(folder: Path) -> None:
    """Write the checkpoint and a card of each of the two packaged ones into `folder`."""
    write_i2v(folder / "tiny-framepack")
    source = {
        "path": "tiny-framepack/base",
        "parts": {
            "transformer": {"path": "tiny-framepack/transformer"},
            "image_encoder": {"path": "tiny-framepack/redux", "subfolder": "image_encoder"},
            "feature_extractor": {"path": "tiny-framepack/redux", "subfolder": "feature_extractor"},
        },
    }
    for variant, model in (
        ("framepack", "framepack-i2v"),
        ("framepack-f1", "framepack-f1-i2v"),
    ):
        shipped.write_card(folder, variant, model, FEW | {"source": source})


def _base() -> HunyuanVideoPipeline:
    """HunyuanVideo, of which FramePack takes everything but the transformer."""
    vae = AutoencoderKLHunyuanVideo(
        latent_channels=4,
        block_out_channels=(8, 8, 8, 8),
        layers_per_block=1,
        norm_num_groups=4,
    )
    parts.loud(vae)
    tokenizer, tokenizer_2 = words.llama(ASPECTS), words.clip()
    text_encoder = LlamaModel(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=16,
            intermediate_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            pad_token_id=tokenizer.pad_token_id,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
        )
    )
    text_encoder_2 = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer_2),
            hidden_size=8,
            intermediate_size=16,
            num_hidden_layers=1,
            num_attention_heads=2,
            pad_token_id=tokenizer_2.pad_token_id,
            bos_token_id=tokenizer_2.bos_token_id,
            eos_token_id=tokenizer_2.eos_token_id,
        )
    )
    with torch.no_grad():
        # What comes out of fresh text encoders is nearly nothing.
        text_encoder.embed_tokens.weight.normal_(0.0, 1.0)
        text_encoder_2.get_input_embeddings().weight.normal_(0.0, 1.0)
    unused = HunyuanVideoTransformer3DModel(
        in_channels=4,
        out_channels=4,
        num_attention_heads=2,
        attention_head_dim=10,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=16,
        pooled_projection_dim=8,
        rope_axes_dim=(2, 4, 4),
    )
    return HunyuanVideoPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(shift=7.0),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        text_encoder_2=text_encoder_2.eval(),
        tokenizer_2=tokenizer_2,
        transformer=unused.eval(),
    )
