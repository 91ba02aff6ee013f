"""A tiny random checkpoint of LTX-Video, in the layout of the real repository.

What it draws means nothing, but a prompt and a picture change it visibly.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusers import (
    AutoencoderKLLTXVideo,
    FlowMatchEulerDiscreteScheduler,
    LTXConditionPipeline,
    LTXVideoTransformer3DModel,
)
from diffusers.pipelines.ltx.modeling_latent_upsampler import LTXLatentUpsamplerModel

from tiny_models import parts, shipped, words

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
}


def pipeline(tokenizer: Any, *, layers: int, **vae: Any) -> LTXConditionPipeline:
    """LTX-Video with a transformer of `layers`, and `vae` in the configuration of its VAE."""
    with parts.seeded(0):
        autoencoder = AutoencoderKLLTXVideo(
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
            **vae,
        )
        transformer = LTXVideoTransformer3DModel(
            in_channels=8,
            out_channels=8,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            num_layers=layers,
            caption_channels=16,
        )
        text_encoder = parts.t5(16, len(tokenizer))
        return LTXConditionPipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(),
            vae=parts.loud(autoencoder.eval()),
            text_encoder=text_encoder,
            tokenizer=tokenizer,
            transformer=parts.loud(transformer.eval()),
        )


def write_ltx(folder: Path) -> Path:
    """LTX-Video with a VAE that wants a timestep, as those since 0.9.1."""
    pipe = pipeline(
        words.t5(),
        layers=2,
        patch_size=4,
        timestep_conditioning=True,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def write_upsampler(folder: Path) -> Path:
    """The upsampler of latents to twice the size."""
    with parts.seeded(1):
        upsampler = LTXLatentUpsamplerModel(in_channels=8, mid_channels=32, num_blocks_per_stage=1)
        parts.loud(upsampler)
    upsampler.save_pretrained(folder, safe_serialization=True)
    return folder


def cards(folder: Path) -> None:
    """Write the checkpoint, and a card for one stage and one for two, into `folder`."""
    write_ltx(folder / "tiny-ltx")
    write_upsampler(folder / "tiny-ltx-upsampler")
    shipped.write_card(folder, "ltx", "ltx-video-13b-0.9.7", FEW)
    two = {
        "source": {
            "path": "tiny-ltx",
            "parts": {"latent_upsampler": {"path": "tiny-ltx-upsampler"}},
        },
        "sizes": FEW["sizes"]
        | {"multiple_of": 64, "native": [[128, 128], [128, 64]], "default": [128, 64]},
    }
    model = "ltx-video-13b-0.9.7-two-stage"
    shipped.write_card(folder, "ltx-two-stage", model, FEW | two)
