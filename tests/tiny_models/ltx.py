"""A tiny random checkpoint of LTX-Video, in the layout of the real repository.

What it draws means nothing, but a prompt and a picture change it visibly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel
from transformers import T5Config, T5EncoderModel

from tiny_models import shipped, words

FEW: dict[str, Any] = {
    "sizes": {
        "multiple_of": 32,
        "minimum": 64,
        "maximum": 128,
        "native": [[64, 64], [96, 64]],
        "default": [64, 64],
    },
    "frames": {"multiple": 8, "offset": 1, "minimum": 1, "maximum": 33, "default": 9},
    "extend": {"context_frames": 9},
    "steps": {
        "default": 2,
        "minimum": 1,
        "maximum": 8,
        "preview": 2,
        "standard": 2,
        "premium": 3,
    },
}


def write_ltx(folder: Path) -> Path:
    """LTX-Video with a VAE that wants a timestep, as those since 0.9.1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKLLTXVideo(
            latent_channels=8,
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("LTXVideo095DownBlock3D",) * 3,
            decoder_block_out_channels=(8, 8, 8),
            layers_per_block=(0, 1, 1, 1),
            decoder_layers_per_block=(0, 1, 1, 1),
            spatio_temporal_scaling=(True, True, True),
            decoder_spatio_temporal_scaling=(True, True, True),
            decoder_inject_noise=(False,) * 4,
            downsample_type=("spatiotemporal",) * 3,
            upsample_residual=(True,) * 3,
            upsample_factor=(1, 1, 1),
            patch_size=4,
            timestep_conditioning=True,
            spatial_compression_ratio=32,
            temporal_compression_ratio=8,
        )
        transformer = LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            num_layers=2,
            caption_channels=16,
        )
        tokenizer = words.t5()
        text_encoder = T5EncoderModel(
            T5Config(
                vocab_size=len(tokenizer),
                d_model=16,
                d_kv=8,
                num_heads=2,
                d_ff=16,
                num_layers=1,
                feed_forward_proj="gated-gelu",
                pad_token_id=0,
                eos_token_id=1,
            )
        )
        for module in (vae, transformer):
            shipped.loud(module)
        with torch.no_grad():
            # What comes out of a fresh text encoder is nearly nothing.
            text_encoder.shared.weight.normal_(0.0, 1.0)
    pipe = LTXConditionPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        transformer=transformer.eval(),
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def write_upsampler(folder: Path) -> Path:
    """The upsampler of latents to twice the size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        upsampler = LTXLatentUpsamplerModel(in_channels=8, mid_channels=32, num_blocks_per_stage=1)
        shipped.loud(upsampler)
    upsampler.save_pretrained(folder, safe_serialization=True)
    return folder


def cards(folder: Path) -> None:
    """Write the checkpoint, and a card for one stage and one for two, into `folder`."""
    write_ltx(folder / "tiny-ltx")
    write_upsampler(folder / "tiny-ltx-upsampler")
    shipped.write_card(folder, "ltx", "ltx-video", "ltx-video-13b-0.9.7", FEW)
    two = {
        "source": {
            "path": "tiny-ltx",
            "parts": {"latent_upsampler": {"path": "tiny-ltx-upsampler"}},
        },
        "sizes": FEW["sizes"]
        | {"multiple_of": 64, "native": [[128, 128], [128, 64]], "default": [128, 64]},
    }
    model = "ltx-video-13b-0.9.7-two-stage"
    shipped.write_card(folder, "ltx-two-stage", "ltx-video", model, FEW | two)
