"""FLUX.1 with random weights: the fast variant, and the one that is taught its guidance."""

from __future__ import annotations

from pathlib import Path

from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline, FluxTransformer2DModel

from tiny_models import parts, shipped, words

_WIDTH = 16


def write_flux_schnell(folder: Path) -> None:
    """The variant that makes a picture in a few steps, in `folder`."""
    _write(folder, guided=False)


def write_flux_dev(folder: Path) -> None:
    """The variant that takes a guidance scale as an input, in `folder`."""
    _write(folder, guided=True)


def _write(folder: Path, *, guided: bool) -> None:
    with parts.seeded(0):
        transformer = FluxTransformer2DModel(
            in_channels=16,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=8,
            num_attention_heads=2,
            joint_attention_dim=_WIDTH,
            pooled_projection_dim=_WIDTH,
            guidance_embeds=guided,
            axes_dims_rope=(2, 2, 4),
        )
        tokenizer = words.t5()
        vae = parts.vae(
            scaling_factor=0.3611,
            shift_factor=0.1159,
            use_quant_conv=False,
            use_post_quant_conv=False,
        )
        # Without shifting the schnell variant's steps are at even distances.
        scheduler = FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=guided,
            shift=3.0 if guided else 1.0,
            base_image_seq_len=256,
            max_image_seq_len=4096,
            base_shift=0.5,
            max_shift=1.15 if guided else 1.16,
        )
        FluxPipeline(
            scheduler=scheduler,
            vae=vae,
            text_encoder=parts.clip(_WIDTH),
            tokenizer=words.clip(),
            text_encoder_2=parts.t5(_WIDTH, len(tokenizer)),
            tokenizer_2=tokenizer,
            transformer=parts.loud(transformer.eval()),
        ).save_pretrained(folder, safe_serialization=True)


def cards(folder: Path) -> None:
    """The cards ``tiny-flux-schnell`` and ``tiny-flux-dev`` in `folder`, and their weights."""
    for variant, write in (("schnell", write_flux_schnell), ("dev", write_flux_dev)):
        name = f"tiny-flux-{variant}"
        write(folder / name)
        shipped.write_card(
            folder,
            f"flux-{variant}",
            f"flux-{variant}",
            {
                "source": {"path": name},
                "sizes": {"minimum": 64, "maximum": 96, "native": [[64, 64]], "default": [64, 64]},
            },
        )
