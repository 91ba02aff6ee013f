"""How do reference pictures steer a UNet? By IP-Adapter (Ye et al., arXiv:2308.06721).

The card's part ``ip_adapter`` is the adapter's safetensors file, ``ip_encoder`` the folder of the
CLIP model that looks at the pictures. That one can be larger than the UNet: it is loaded for a new
set of pictures, used, and let go.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from transformers import CLIPImageProcessorPil, CLIPVisionModelWithProjection

from kinoloom.backends.base import Frame
from kinoloom.backends.local.families.base import picture
from kinoloom.errors import ModelBroken

_STRENGTH = 0.6  # the authors' advice where there is a prompt too; 1.0 drowns the words

_ENCODED: WeakKeyDictionary[Any, tuple[str, list[torch.Tensor]]] = WeakKeyDictionary()
"""What each pipeline's last pictures were encoded to, by their content."""


def use_adapter(pipe: Any, references: tuple[Frame, ...]) -> None:
    """Have the adapter in the UNet exactly when there are references.

    A UNet with an adapter in it cannot be called without pictures.
    """
    loaded = pipe.unet.config.encoder_hid_dim_type == "ip_image_proj"
    if loaded and not references:
        pipe.unload_ip_adapter()
    elif references and not loaded:
        file = _part(pipe, "ip_adapter")
        pipe.load_ip_adapter(
            str(file.parent),
            subfolder="",
            weight_name=file.name,
            image_encoder_folder=None,
            local_files_only=True,
        )
        pipe.set_ip_adapter_scale(_STRENGTH)
        _place(pipe)


def reference_arguments(
    pipe: Any, references: tuple[Frame, ...], guided: bool
) -> dict[str, list[torch.Tensor]]:
    """The pictures as the pipeline's call takes them: encoded, without pictures nothing.

    `guided` adds the encoding of no picture in front, [2, pictures, ...].
    """
    if not references:
        return {}
    key = _content(references, guided)
    known = _ENCODED.get(pipe)
    if known is None or known[0] != key:
        known = key, _encode(pipe, references, guided)
        _ENCODED[pipe] = known
    return {"ip_adapter_image_embeds": known[1]}


def _encode(pipe: Any, references: tuple[Frame, ...], guided: bool) -> list[torch.Tensor]:
    folder = _part(pipe, "ip_encoder")
    # Its hints do not know that with `output_loading_info` a pair comes back.
    cls: Any = CLIPVisionModelWithProjection
    encoder, info = cls.from_pretrained(
        str(folder),
        dtype=pipe.unet.dtype,
        use_safetensors=True,
        local_files_only=True,
        output_loading_info=True,
    )
    if missing := sorted(info["missing_keys"]):
        raise ModelBroken(
            f"The image encoder in {folder} is incomplete.",
            cause=f"no weights for {', '.join(missing[:3])}",
            hints=["download or copy the model anew"],
        )
    device = pipe._execution_device
    side = encoder.config.image_size
    before = pipe.image_encoder, pipe.feature_extractor
    pipe.image_encoder = encoder.eval().to(device)
    pipe.feature_extractor = CLIPImageProcessorPil(size=side, crop_size=side)
    try:
        with torch.no_grad():
            found: list[torch.Tensor] = pipe.prepare_ip_adapter_image_embeds(
                [[picture(frame) for frame in references]], None, device, 1, guided
            )
    finally:
        pipe.image_encoder, pipe.feature_extractor = before
    return found


def _place(pipe: Any) -> None:
    """Move what was put into the UNet to where it computes.

    An offloaded UNet lies elsewhere, and its hooks do not know the newcomers.
    """
    device, dtype = pipe._execution_device, pipe.unet.dtype
    pipe.unet.encoder_hid_proj.to(device, dtype)
    for processor in pipe.unet.attn_processors.values():
        if isinstance(processor, torch.nn.Module):
            processor.to(device, dtype)


def _part(pipe: Any, name: str) -> Path:
    place: Path | None = pipe.parts.get(name)
    if place is None:
        raise ModelBroken(
            "The model's card does not say how it takes reference pictures.",
            cause=f"its source has no part {name}",
            hints=["add the part to the card, or leave the references out"],
        )
    return place


def _content(references: tuple[Frame, ...], guided: bool) -> str:
    digest = hashlib.sha256(str(guided).encode())
    for frame in references:
        digest.update(str(frame.shape).encode() + frame.tobytes())
    return digest.hexdigest()
