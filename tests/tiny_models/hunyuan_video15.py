"""Tiny random checkpoints of HunyuanVideo 1.5, in the layout of the real repositories.

What they draw means nothing, but a prompt and a picture change it visibly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15ImageToVideoPipeline,
    HunyuanVideo15Pipeline,
    HunyuanVideo15Transformer3DModel,
)
from transformers import (
    ByT5Tokenizer,
    Qwen2_5_VLTextConfig,
    Qwen2_5_VLTextModel,
    SiglipImageProcessor,
    SiglipVisionConfig,
    SiglipVisionModel,
)

from tiny_models import parts, shipped, words

SIZES = {
    "multiple_of": 16,
    "minimum": 32,
    "maximum": 128,
    "native": [[64, 64], [80, 48]],
    "default": [64, 64],
}
"""Two of the sizes that the pipeline makes out of a picture's shape when its target is 64."""

ASPECTS = (
    "1. The main content and theme of the video.",
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects.",
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the",
    "4. background environment, light, style and atmosphere.",
    "5. camera angles, movements, and transitions used in the video.",
)
"""What stands before every prompt; as single tokens these do not drown the prompt itself."""

FEW = {
    "sizes": SIZES,
    "frames": {"multiple": 4, "offset": 1, "minimum": 5, "maximum": 13, "default": 5},
}


def write_t2v(folder: Path) -> Path:
    """HunyuanVideo 1.5 from words."""
    pipe = HunyuanVideo15Pipeline(**_parts("t2v"))
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def write_i2v(folder: Path) -> Path:
    """HunyuanVideo 1.5 from a picture; 729 tokens of it are hard-coded, hence 27 x 27 patches."""
    found = _parts("i2v")
    vision = SiglipVisionConfig(
        hidden_size=12,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        image_size=54,
        patch_size=2,
    )
    with parts.seeded(1):
        encoder = SiglipVisionModel(vision)
        parts.loud(encoder)
    processor = SiglipImageProcessor(size={"height": 54, "width": 54})
    pipe = HunyuanVideo15ImageToVideoPipeline(
        **found, image_encoder=encoder.eval(), feature_extractor=processor
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def cards(folder: Path) -> None:
    """Write both, and their cards, into `folder`."""
    for variant, model, write in (
        ("hunyuanvideo-1.5-t2v", "hunyuanvideo-1.5-480p-t2v", write_t2v),
        ("hunyuanvideo-1.5-i2v", "hunyuanvideo-1.5-480p-i2v", write_i2v),
    ):
        write(folder / f"tiny-{variant}")
        shipped.write_card(folder, variant, model, FEW)


def _parts(task: str) -> dict[str, Any]:
    with parts.seeded(0):
        transformer = HunyuanVideo15Transformer3DModel(
            in_channels=9,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            num_layers=2,
            num_refiner_layers=1,
            mlp_ratio=2.0,
            text_embed_dim=16,
            text_embed_2_dim=32,
            image_embed_dim=12,
            rope_axes_dim=(2, 2, 4),
            target_size=64,
            task_type=task,
        )
        vae = AutoencoderKLHunyuanVideo15(
            latent_channels=4,
            block_out_channels=(16, 16, 16, 16, 16),
            layers_per_block=1,
            downsample_match_channel=False,
            upsample_match_channel=False,
        )
        tokenizer = words.qwen2(ASPECTS)
        text_encoder = Qwen2_5_VLTextModel(
            Qwen2_5_VLTextConfig(
                vocab_size=len(tokenizer),
                hidden_size=16,
                intermediate_size=16,
                num_hidden_layers=3,
                num_attention_heads=2,
                num_key_value_heads=2,
                rope_parameters={
                    "rope_type": "default",
                    "rope_theta": 1000000.0,
                    "mrope_section": [1, 1, 2],
                },
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
            )
        )
        text_encoder_2 = parts.t5(32, 384)
        for module in (transformer, vae):
            parts.loud(module)
        with torch.no_grad():
            text_encoder.embed_tokens.weight.normal_(0.0, 1.0)
    return {
        "transformer": transformer.eval(),
        "vae": vae.eval(),
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=5.0),
        "text_encoder": text_encoder.eval(),
        "tokenizer": tokenizer,
        "text_encoder_2": text_encoder_2,
        "tokenizer_2": ByT5Tokenizer(),
        "guider": ClassifierFreeGuidance(guidance_scale=6.0),
    }
