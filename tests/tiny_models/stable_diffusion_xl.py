"""Stable Diffusion XL with random weights, and an IP-Adapter for it."""

from __future__ import annotations

from pathlib import Path

from diffusers import EulerDiscreteScheduler, StableDiffusionXLPipeline, UNet2DConditionModel

from tiny_models import parts, shipped, words

_WIDTH = 16

ADAPTER = "ip-adapter_sdxl.safetensors"


def write_stable_diffusion_xl(folder: Path) -> None:
    """The model in `folder`, and beside it the IP-Adapter in ``-references``."""
    with parts.seeded(0):
        unet = UNet2DConditionModel(
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=2 * _WIDTH,
            attention_head_dim=(2, 4),
            use_linear_projection=True,
            transformer_layers_per_block=(1, 1),
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=_WIDTH + 6 * 8,
            norm_num_groups=4,
            sample_size=8,
        )
        StableDiffusionXLPipeline(
            vae=parts.vae(scaling_factor=0.13025),
            text_encoder=parts.clip(_WIDTH),
            text_encoder_2=parts.clip(_WIDTH, projected=True),
            tokenizer=words.clip(),
            tokenizer_2=words.clip(),
            unet=parts.loud(unet.eval()),
            scheduler=EulerDiscreteScheduler(
                beta_start=0.00085,
                beta_end=0.012,
                beta_schedule="scaled_linear",
                timestep_spacing="leading",
                steps_offset=1,
            ),
            add_watermarker=False,
        ).save_pretrained(folder, safe_serialization=True)
        parts.write_adapter(references_folder(folder), ADAPTER, unet, _WIDTH)


def references_folder(folder: Path) -> Path:
    """Where the IP-Adapter of the model in `folder` is, in a repository's subfolder."""
    return folder.with_name(f"{folder.name}-references") / "sdxl_models"


def cards(folder: Path) -> None:
    """The card ``tiny-sdxl`` in `folder`, and its weights."""
    weights = folder / "tiny-sdxl"
    write_stable_diffusion_xl(weights)
    repository = str(references_folder(weights).parent)
    shipped.write_card(
        folder,
        "sdxl",
        "sdxl",
        {
            "source": {
                "path": weights.name,
                "parts": {
                    "ip_adapter": {"path": repository, "subfolder": "sdxl_models", "file": ADAPTER},
                    "ip_encoder": {"path": repository, "subfolder": "sdxl_models/image_encoder"},
                },
            },
            "sizes": {"minimum": 64, "maximum": 96, "native": [[64, 64]], "default": [64, 64]},
        },
    )
