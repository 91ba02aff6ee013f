"""What looks like a model to everything that does not load it: files of a few hundred bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny import CARD

INDEX = {
    "_class_name": "LTXConditionPipeline",
    "_diffusers_version": "0.42.1",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "T5Tokenizer"],
    "transformer": ["diffusers", "LTXVideoTransformer3DModel"],
    "vae": ["diffusers", "AutoencoderKLLTXVideo"],
    "boundary": 0.5,
}


def tensors(shapes: dict[str, tuple[int, ...]], fill: bytes = b"\0") -> bytes:
    """A safetensors file of 8-bit tensors."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shapes.items():
        size = 1
        for axis in shape:
            size *= axis
        header[name] = {"dtype": "U8", "shape": list(shape), "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + fill * end


def pipeline_files() -> dict[str, bytes]:
    """A pipeline in diffusers' layout: the transformer in two shards, the others in one file."""
    shards = {
        f"transformer/diffusion_pytorch_model-0000{n}-of-00002.safetensors": tensors(
            {f"block.{n}": (40, 10)}, fill=b"%d" % n
        )
        for n in (1, 2)
    }
    index = {f"block.{n}": name.split("/")[1] for n, name in enumerate(shards, start=1)}
    small = {
        "model_index.json": INDEX,
        "scheduler/scheduler_config.json": {"shift": 3},
        "text_encoder/config.json": {"d_model": 4},
        "tokenizer/tokenizer_config.json": {},
        "tokenizer/tokenizer.json": {},
        "transformer/config.json": {
            "num_attention_heads": 2,
            "attention_head_dim": 4,
            "in_channels": 6,
        },
        "transformer/diffusion_pytorch_model.safetensors.index.json": {"weight_map": index},
        "vae/config.json": {},
    }
    return (
        {name: json.dumps(data).encode() for name, data in small.items()}
        | shards
        | {
            "text_encoder/model.safetensors": tensors({"shared": (30, 4)}),
            "vae/diffusion_pytorch_model.safetensors": tensors({"decoder": (50, 4)}),
        }
    )


def write(folder: Path, files: dict[str, bytes]) -> Path:
    """Write files by their names into a folder."""
    for name, content in files.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return folder


def write_card(cards: Path, source: str, *, name: str = "made", extra: str = "") -> Path:
    """A user's card `name` with a source, such as ``{repo: a/b}``."""
    cards.mkdir(parents=True, exist_ok=True)
    text = CARD.replace("id: tiny", f"id: {name}").replace("{path: tiny}", source)
    file = cards / f"{name}.yaml"
    file.write_text(text + extra, encoding="utf-8")
    return file
