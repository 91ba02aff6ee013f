"""AnimateDiff with random weights: a tiny image model, motion adapter and IP-Adapter."""

from __future__ import annotations

from pathlib import Path

from diffusers import MotionAdapter, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel

from tiny_models import parts, shipped, words

_CHANNELS = (16, 32)
_WIDTH = 16

ADAPTER = "ip-adapter_sd15.safetensors"


def write_animatediff(folder: Path) -> None:
    """The image model in `folder`, and beside it ``-motion`` and ``-references``."""
    with parts.seeded(0):
        unet = UNet2DConditionModel(
            block_out_channels=_CHANNELS,
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
            cross_attention_dim=_WIDTH,
            attention_head_dim=2,
            norm_num_groups=4,
            sample_size=8,
        )
        # As that of motion-adapter-v1-5-3, which leaves the middle block alone.
        motion = MotionAdapter(
            block_out_channels=_CHANNELS,
            motion_layers_per_block=1,
            motion_num_attention_heads=2,
            motion_norm_num_groups=4,
            motion_max_seq_length=32,
            use_motion_mid_block=False,
        )
        StableDiffusionPipeline(
            vae=parts.vae(),
            text_encoder=parts.clip(_WIDTH),
            tokenizer=words.clip(),
            unet=parts.loud(unet.eval()),
            scheduler=PNDMScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                skip_prk_steps=True,
                steps_offset=1,
            ),
            safety_checker=None,
            feature_extractor=None,
            requires_safety_checker=False,
        ).save_pretrained(folder, safe_serialization=True)
        parts.loud(motion).save_pretrained(motion_folder(folder))
        parts.write_adapter(references_folder(folder), ADAPTER, unet, _WIDTH)


def motion_folder(folder: Path) -> Path:
    """Where the motion adapter of the model in `folder` is."""
    return folder.with_name(f"{folder.name}-motion")


def references_folder(folder: Path) -> Path:
    """Where the IP-Adapter of the model in `folder` is, in a repository's subfolder."""
    return folder.with_name(f"{folder.name}-references") / "models"


def cards(folder: Path) -> None:
    """The card ``tiny-animatediff`` in `folder`, and its weights."""
    weights = folder / "tiny-animatediff"
    write_animatediff(weights)
    repository = str(references_folder(weights).parent)
    shipped.write_card(
        folder,
        "animatediff",
        "animatediff",
        {
            "source": {
                "path": weights.name,
                "parts": {
                    "motion_adapter": {"path": str(motion_folder(weights))},
                    "ip_adapter": {"path": repository, "subfolder": "models", "file": ADAPTER},
                    "ip_encoder": {"path": repository, "subfolder": "models/image_encoder"},
                },
            },
            "sizes": {"minimum": 64, "maximum": 96, "native": [[64, 64]], "default": [64, 64]},
            "frames": {"default": 16, "maximum": 24},
        },
    )
