"""Stable Video Diffusion with random weights."""

from __future__ import annotations

import json
from pathlib import Path

from diffusers import (
    AutoencoderKLTemporalDecoder,
    EulerDiscreteScheduler,
    StableVideoDiffusionPipeline,
    UNetSpatioTemporalConditionModel,
)
from transformers import CLIPImageProcessor

from tiny_models import parts, shipped

_WIDTH = 16


def write_svd(folder: Path) -> None:
    """The model in `folder`. Its image encoder must be for 224 pixels: the pipeline says so."""
    with parts.seeded(0):
        # Its norms have 32 groups: with one channel a group they would hide the fixed conditions.
        unet = UNetSpatioTemporalConditionModel(
            block_out_channels=(64, 64),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlockSpatioTemporal", "DownBlockSpatioTemporal"),
            up_block_types=("UpBlockSpatioTemporal", "CrossAttnUpBlockSpatioTemporal"),
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24,
            cross_attention_dim=_WIDTH,
            num_attention_heads=(2, 2),
            num_frames=4,
            sample_size=8,
        )
        vae = AutoencoderKLTemporalDecoder(
            block_out_channels=(32, 32, 32, 32),
            down_block_types=("DownEncoderBlock2D",) * 4,
            latent_channels=4,
        )
        StableVideoDiffusionPipeline(
            vae=vae.eval(),
            image_encoder=parts.clip_vision(_WIDTH, side=224),
            unet=parts.loud(unet.eval()),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                prediction_type="v_prediction",
                timestep_spacing="leading",
                timestep_type="continuous",
                use_karras_sigmas=True,
                sigma_min=0.002,
                sigma_max=700.0,
                steps_offset=1,
            ),
            feature_extractor=CLIPImageProcessor(size=224, crop_size=224),
        ).save_pretrained(folder, safe_serialization=True)
    index = folder / "model_index.json"
    said = json.loads(index.read_text(encoding="utf-8"))
    said["feature_extractor"] = ["transformers", "CLIPImageProcessor"]  # as in the repository
    index.write_text(json.dumps(said, indent=2), encoding="utf-8")


def cards(folder: Path) -> None:
    """The card ``tiny-svd`` in `folder`, and its weights."""
    weights = folder / "tiny-svd"
    write_svd(weights)
    shipped.write_card(
        folder,
        "svd",
        "svd",
        {
            "source": {"path": weights.name},
            "sizes": {"minimum": 64, "maximum": 128, "native": [[64, 64]], "default": [64, 64]},
            "frames": {"minimum": 4, "default": 4, "maximum": 4},
        },
    )
