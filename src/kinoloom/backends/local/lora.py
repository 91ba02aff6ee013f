"""How are a take's LoRAs put on a pipeline, and taken off without a trace?

A LoRA is brought to diffusers' names and strength here (see `kinoloom.weights.loras`) and handed to
the denoiser itself: the pipelines' own loaders differ by family, and some skip what they do not
know with a mere warning. The model's own weights are never touched, so without its LoRAs it gives
the frames that it gave before.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import safetensors
import torch

from kinoloom.backends.base import Lora
from kinoloom.backends.local.speed import denoisers, remove_speed
from kinoloom.errors import MissingPackage, ModelBroken
from kinoloom.weights.loras import Change, match

_METADATA = "lora_adapter_metadata"


def apply_loras(pipe: Any, loras: Sequence[Lora]) -> None:
    """Make these the pipeline's only LoRAs; none takes all of them off.

    One that is on it already stays, so that a take with the same LoRAs begins at once. Where
    something changes, what `apply_speed` did is undone, since its hooks lie over the layers that
    are changed; placing the weights comes after it too. Raises InvalidRequest for a LoRA of another
    model, ModelBroken for a file or a component that is not there, MissingPackage.
    """
    parts = dict(denoisers(pipe))
    wanted: dict[str, dict[str, tuple[Lora, float]]] = {name: {} for name in parts}
    for lora in loras:
        name = _component(lora, list(parts))
        adapter = _adapter(lora)
        before = wanted[name].get(adapter, (lora, 0.0))[1]
        wanted[name][adapter] = (lora, before + lora.weight)
    if loras and find_spec("peft") is None:
        raise MissingPackage(
            "LoRAs need a package that is not installed.",
            cause="not installed: peft",
            hints=['install the local backend: pip install "kinoloom[local]"'],
        )
    for name, module in parts.items():
        _put(pipe, module, wanted[name])


def _put(pipe: Any, module: Any, wanted: Mapping[str, tuple[Lora, float]]) -> None:
    """Make `wanted`, files and weights by adapter name, the only LoRAs of a denoiser."""
    there = set(getattr(module, "peft_config", {}))
    if there != wanted.keys():
        remove_speed(pipe)
    if not wanted:
        if there:
            module.unload_lora()
        return
    if stale := there - wanted.keys():
        module.delete_adapters(sorted(stale))
    for adapter, (lora, _) in wanted.items():
        if adapter not in there:
            module.load_lora_adapter(
                _state(lora, module), prefix=None, adapter_name=adapter, _pipeline=pipe
            )
    module.set_adapters(list(wanted), [weight for _, weight in wanted.values()])


def _component(lora: Lora, parts: list[str]) -> str:
    if lora.component in parts:
        return lora.component
    if lora.component == "transformer" and parts:  # a UNet is what such a model has in its place
        return parts[0]
    raise ModelBroken(
        f"The LoRA {lora.name} is for {lora.component}, which this model does not have.",
        hints=["correct `component` in the preset of the model's card"],
    )


def _adapter(lora: Lora) -> str:
    """A name for the file's content as far as its date and size tell it, without dots."""
    try:
        stat = lora.path.stat()
    except OSError as error:
        raise ModelBroken(
            f"The LoRA {lora.name} cannot be read.",
            cause=f"{lora.path}: {error.strerror or error}",
            hints=["check its path"],
        ) from error
    said = f"{lora.path.absolute()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    return "lora" + hashlib.sha256(said.encode()).hexdigest()[:16]


def _state(lora: Lora, module: Any) -> dict[str, torch.Tensor]:
    """The LoRA's tensors by the names of the denoiser's own modules, at full strength."""
    modules = {
        name.removesuffix(".weight").removesuffix(".base_layer"): tuple(weight.shape)
        for name, weight in module.state_dict().items()
        if name.endswith(".weight") and weight.ndim > 1 and ".lora_" not in name
    }
    tensors, metadata = _read(lora.path)
    found = match(lora.path.name, {name: tuple(t.shape) for name, t in tensors.items()}, modules)
    state: dict[str, torch.Tensor] = {}
    for change in found.changes:
        down, up = tensors[change.down], tensors[change.up]
        down = down * _strength(change, down.shape[0], tensors, metadata)
        sizes = [modules[target][0] for target in change.targets]
        for target, rows in zip(change.targets, torch.split(up, sizes), strict=True):
            state[f"{target}.lora_A.weight"] = down
            state[f"{target}.lora_B.weight"] = rows.contiguous()
        if change.bias is not None:
            biases = torch.split(tensors[change.bias], sizes)
            for target, bias in zip(change.targets, biases, strict=True):
                state[f"{target}.lora_B.bias"] = bias.contiguous()
    return state


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The tensors of a LoRA's file, and what diffusers noted of how it was trained."""
    try:
        with safetensors.safe_open(str(path), framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            noted = json.loads((opened.metadata() or {}).get(_METADATA, "{}"))
    except (OSError, ValueError, safetensors.SafetensorError) as error:
        raise ModelBroken(
            f"{path.name} cannot be read.",
            cause=f"{type(error).__name__}: {error}"[:300],
            hints=["download or copy the LoRA anew"],
        ) from error
    return tensors, noted if isinstance(noted, dict) else {}


def _strength(
    change: Change, rank: int, tensors: Mapping[str, torch.Tensor], noted: Mapping[str, Any]
) -> float:
    """What the product of the two matrices is to be multiplied with: alpha over rank, usually."""
    if change.alpha is not None:
        return float(tensors[change.alpha]) / rank
    keys = (key for key in noted if not key.startswith("text_encoder"))
    prefix = next((k.removesuffix("lora_alpha") for k in keys if k.endswith("lora_alpha")), "")
    alpha = noted.get(prefix + "lora_alpha")
    special = noted.get(prefix + "alpha_pattern")
    for name, value in special.items() if isinstance(special, dict) else ():
        if f".{change.targets[0]}".endswith(f".{name.removeprefix('^')}"):
            alpha = value
    if not isinstance(alpha, int | float):
        return 1.0
    return alpha / (math.sqrt(rank) if noted.get(prefix + "use_rslora") else rank)
