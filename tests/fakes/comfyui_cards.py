"""A model of ComfyUI servers for tests: two samplers, words or a picture."""

from __future__ import annotations

from typing import Any

from kinoloom.catalog.card import ModelCard

HIGH = "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors"
LOW = "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors"

_CARD: dict[str, Any] = {
    "id": "comfyui-two-experts",
    "title": "Two experts",
    "family": "wan",
    "summary": "For tests.",
    "backend": "comfyui",
    "source": {"service": "two-experts"},
    "pipelines": {
        "t2v": {"class": "wan22_a14b_t2v", "arguments": {"boundary": 0.875}},
        "i2v": {
            "class": "wan22_a14b_i2v",
            "inputs": {"image": "start_image"},
            "arguments": {"boundary": 0.9},
        },
    },
    "sizes": {
        "multiple_of": 16,
        "minimum": 256,
        "maximum": 1280,
        "native": [[832, 480]],
        "default": [832, 480],
    },
    "frames": {"multiple": 4, "offset": 1, "minimum": 5, "maximum": 81, "default": 81},
    "fps": {"default": 16, "minimum": 16, "maximum": 16},
    "steps": {
        "default": 20,
        "minimum": 4,
        "maximum": 50,
        "preview": 10,
        "standard": 20,
        "premium": 30,
    },
    "guidance": {"default": 3.5, "minimum": 1, "maximum": 10},
    "shift": 8.0,
    "negative": True,
    "licence": {"id": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    "price": "free",
}


def two_experts(**changes: Any) -> ModelCard:
    """The card; `settings` and `files` are those of its `remote`."""
    remote = {
        "nodes": ["UNETLoader", "KSamplerAdvanced"],
        "files": {
            "high_noise": [HIGH],
            "low_noise": [LOW],
            "text_encoder": ["umt5_xxl_fp16.safetensors", "umt5_xxl_fp8_e4m3fn_scaled.safetensors"],
            "vae": ["wan_2.1_vae.safetensors"],
        },
        "settings": changes.pop("settings", {}),
    }
    remote["files"] |= changes.pop("files", {})
    return ModelCard.model_validate(_CARD | {"remote": remote} | changes)
