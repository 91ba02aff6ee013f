"""A tiny random checkpoint of LTX-2, in the layout of the real repository.

What it draws and sounds means nothing, but a prompt and a picture change it visibly.
"""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import (
    AutoencoderKLLTX2Audio,
    AutoencoderKLLTX2Video,
    FlowMatchEulerDiscreteScheduler,
    LTX2Pipeline,
    LTX2VideoTransformer3DModel,
)
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from transformers import Gemma3Config, Gemma3ForConditionalGeneration

from tiny_models import parts, shipped, words

RATE = 16000
"""Samples a second of the tiny vocoder."""

FEW = {
    "sizes": {
        "multiple_of": 32,
        "minimum": 32,
        "maximum": 96,
        "native": [[64, 64], [96, 64]],
        "default": [64, 64],
    },
    "frames": {"multiple": 8, "offset": 1, "minimum": 9, "maximum": 17, "default": 9},
}

TEXT = 16


def write_ltx2(folder: Path) -> Path:
    """LTX-2 with its two VAEs, vocoder and connectors."""
    with parts.seeded(0):
        tokenizer = words.gemma()
        text_encoder = _gemma(len(tokenizer))
        transformer = LTX2VideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            num_attention_heads=2,
            attention_head_dim=8,
            cross_attention_dim=16,
            audio_in_channels=4,
            audio_out_channels=4,
            audio_num_attention_heads=2,
            audio_attention_head_dim=4,
            audio_cross_attention_dim=8,
            num_layers=2,
            caption_channels=TEXT,
            rope_double_precision=False,
            rope_type="split",
        )
        connectors = LTX2TextConnectors(
            caption_channels=TEXT,
            text_proj_in_factor=3,
            video_connector_num_attention_heads=2,
            video_connector_attention_head_dim=8,
            video_connector_num_layers=1,
            # A thousand of them would drown the few words of a test.
            video_connector_num_learnable_registers=None,
            audio_connector_num_attention_heads=2,
            audio_connector_attention_head_dim=8,
            audio_connector_num_layers=1,
            audio_connector_num_learnable_registers=None,
            rope_double_precision=False,
            rope_type="split",
        )
        vae = AutoencoderKLLTX2Video(
            latent_channels=4,
            block_out_channels=(8, 8, 8),
            decoder_block_out_channels=(8, 8, 8),
            layers_per_block=(1, 1, 1, 1),
            decoder_layers_per_block=(1, 1, 1, 1),
            down_block_types=("LTX2VideoDownBlock3D",) * 3,
            spatio_temporal_scaling=(True,) * 3,
            decoder_spatio_temporal_scaling=(True,) * 3,
            decoder_inject_noise=(False,) * 4,
            downsample_type=("spatiotemporal",) * 3,
            upsample_residual=(True,) * 3,
            upsample_factor=(1, 1, 1),
            timestep_conditioning=False,
            spatial_compression_ratio=32,
            temporal_compression_ratio=8,
        )
        audio_vae = AutoencoderKLLTX2Audio(
            base_channels=4,
            ch_mult=(1,),
            num_res_blocks=1,
            resolution=32,
            latent_channels=2,
            sample_rate=RATE,
            mel_hop_length=160,
            mel_bins=8,
        )
        vocoder = LTX2Vocoder(
            in_channels=16,
            hidden_channels=32,
            # A sample of sound for each of the mel hops' 160.
            upsample_kernel_sizes=[16, 15, 8],
            upsample_factors=[8, 5, 4],
            resnet_kernel_sizes=[3],
            resnet_dilations=[[1, 3, 5]],
            output_sampling_rate=RATE,
        )
        for module in (vae, transformer, connectors, audio_vae):
            parts.loud(module)
        with torch.no_grad():
            for layer in vocoder.modules():
                if isinstance(layer, torch.nn.Conv1d | torch.nn.ConvTranspose1d):
                    layer.weight.mul_(2.0)
    pipe = LTX2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            base_shift=0.95,
            max_shift=2.05,
            base_image_seq_len=1024,
            shift_terminal=0.1,
        ),
        vae=vae.eval(),
        audio_vae=audio_vae.eval(),
        text_encoder=text_encoder.eval(),
        tokenizer=tokenizer,
        connectors=connectors.eval(),
        transformer=transformer.eval(),
        vocoder=vocoder.eval(),
    )
    pipe.save_pretrained(folder, safe_serialization=True)
    return folder


def cards(folder: Path) -> None:
    """Write the checkpoint and its card into `folder`."""
    write_ltx2(folder / "tiny-ltx-2")
    shipped.write_card(folder, "ltx-2", "ltx-2", FEW)


def _gemma(tokens: int) -> Gemma3ForConditionalGeneration:
    text = {
        "vocab_size": tokens,
        "hidden_size": TEXT,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 16,
        "patch_size": 4,
    }
    model = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4)
    )
    with torch.no_grad():
        # What comes out of a fresh text encoder is nearly nothing.
        model.get_input_embeddings().weight.normal_(0.0, 1.0)
    return model
