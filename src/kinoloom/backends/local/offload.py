"""How are a pipeline's weights brought to where a placement wants them, and back again?

`apply` wants a pipeline in its plain state: freshly loaded, or after `remove` said so.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from diffusers.hooks.group_offloading import apply_group_offloading
from diffusers.hooks.hooks import HookRegistry

from kinoloom.backends.base import Placement
from kinoloom.backends.local.speed import denoisers
from kinoloom.errors import InvalidRequest, Problem

_GROUP_HOOKS = ("group_offloading", "layer_execution_tracker", "lazy_prefetch_group_offloading")
_CASTING_HOOK = "layerwise_casting"


def apply(
    pipe: Any, placement: Placement, tiling: bool, device: torch.device, dtype: torch.dtype
) -> tuple[str, ...]:
    """Place the weights for renders on `device` that compute in `dtype`; gives what to tell.

    LoRAs must be on the pipeline already. Raises InvalidRequest for a placement that the device
    cannot do, ValueError for a pipeline that has to be loaded anew.
    """
    if not remove(pipe) and placement != "fp8":
        raise ValueError("weights stored in 8 bits do not come back: load the pipeline anew")
    match placement:
        case "resident":
            pipe.to(device)
        case "fp8":
            # Before they are moved, so that the device never holds the wide ones.
            model: Any
            for _, model in denoisers(pipe):
                if not _hooked(model, _CASTING_HOOK):
                    model.enable_layerwise_casting(torch.float8_e4m3fn, dtype)
            pipe.to(device)
        case "model_offload":
            if device.type == "cpu":
                raise InvalidRequest(
                    [Problem("placement", placement, "resident or fp8 on a CPU", "resident")]
                )
            pipe.enable_model_cpu_offload(device=device)
        case "group_offload":
            # What is neither denoiser nor text encoder is small, and a VAE's tiles would spoil the
            # order of layers that a stream is prepared for.
            names = {name for name, _ in denoisers(pipe)}
            names |= {name for name, _ in _modules(pipe) if name.startswith("text_encoder")}
            _by_layers(pipe, names, device, stream=device.type == "cuda")
        case "sequential":
            # Not accelerate's hooks: they fail where two layers share their weights, as the word
            # tables of T5 do.
            _by_layers(pipe, {name for name, _ in _modules(pipe)}, device, stream=False)
    return _tile(pipe, tiling) if hasattr(pipe, "vae") else ()


def remove(pipe: Any) -> bool:
    """Take everything off again that `apply` did; the weights are in main memory then.

    False when it cannot be undone: the pipeline's denoiser keeps weights of 8 bits, and must be
    loaded anew for any other placement.
    """
    pipe.remove_all_hooks()
    plain = True
    for _, module in _modules(pipe):
        if _hooked(module, _GROUP_HOOKS[0]):
            registry = HookRegistry.check_if_exists_or_initialize(module)
            for name in _GROUP_HOOKS:
                registry.remove_hook(name, recurse=True)
            module.to("cpu")
        plain = plain and not _hooked(module, _CASTING_HOOK)
    _tile(pipe, False)
    return plain


def _by_layers(pipe: Any, names: set[str], device: torch.device, *, stream: bool) -> None:
    """Let the layers of these components come to the device and go; the others stay there.

    With a stream the next layer is on its way from pinned memory while one computes (123 s against
    331 s from memory that is not pinned).
    """
    for name, module in _modules(pipe):
        if name in names and getattr(module, "_supports_group_offloading", True):
            apply_group_offloading(
                module,
                onload_device=device,
                offload_device=torch.device("cpu"),
                offload_type="leaf_level",
                use_stream=stream,
                record_stream=stream,
            )
        else:
            module.to(device)


def _tile(pipe: Any, tiling: bool) -> tuple[str, ...]:
    """Let the VAE work in tiles or not; a note where it cannot."""
    vae: Any = getattr(pipe, "vae", None)
    if not tiling:
        # Only where it is on: switched off, a VAE without tiles would claim that it has them.
        if getattr(vae, "use_tiling", False):
            vae.disable_tiling()
        return ()
    try:
        vae.enable_tiling()
    except (AttributeError, NotImplementedError):  # diffusers has VAEs of both kinds
        return (f"{type(vae).__name__} cannot work in tiles: it decodes whole frames.",)
    return ()


def _modules(pipe: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    for name, component in pipe.components.items():
        if isinstance(component, torch.nn.Module):
            yield name, component


def _hooked(module: torch.nn.Module, name: str) -> bool:
    """Whether the module or one within has diffusers' hook of that name."""
    registries = (getattr(part, "_diffusers_hook", None) for part in module.modules())
    return any(r is not None and r.get_hook(name) is not None for r in registries)
