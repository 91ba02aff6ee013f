"""How is a pipeline made faster for a take, and made its plain self again?

What is done is remembered on the denoiser (a transformer, two of them, or a UNet), because
pipelines may share one. Asking for the same again changes nothing but forgets what the caches
keep, so every render begins as the first one did, also after one that was stopped.

The hooks are left in place between renders of one kind: taking them off and on would make
compiled blocks compile anew each time.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from diffusers import (
    FirstBlockCacheConfig,
    MagCacheConfig,
    PyramidAttentionBroadcastConfig,
    TaylorSeerCacheConfig,
    apply_pyramid_attention_broadcast,
)
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.hooks.hooks import CacheContext, HookRegistry, StateManager
from diffusers.hooks.pyramid_attention_broadcast import _PYRAMID_ATTENTION_BROADCAST_HOOK
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

from kinoloom.backends.base import Speed
from kinoloom.catalog.speed import StepCache
from kinoloom.errors import ModelBroken

DENOISERS = ("transformer", "transformer_2", "unet")
"""The names that pipelines give to what runs in every step."""

_UNREGISTERED: dict[str, tuple[str, dict[str, Any]]] = {
    "transformer_hunyuan_video15": (
        "HunyuanVideo15TransformerBlock",
        {"return_hidden_states_index": 0, "return_encoder_hidden_states_index": 1},
    ),
    "transformer_skyreels_v2": ("SkyReelsV2TransformerBlock", {"return_hidden_states_index": 0}),
}
"""Blocks that diffusers' caches could handle but do not know: by module the class, and at which
place it returns what."""

_MARK = "_kinoloom_speed"


@dataclass(frozen=True)
class _Applied:
    """What was done to a denoiser: for which speed and steps, and who watches its passes."""

    speed: Speed
    steps: int
    watch: _Watch | None = None
    handle: Any = None


def denoisers(pipe: Any) -> Iterator[tuple[str, torch.nn.Module]]:
    """The parts of a pipeline that run in every step, by name."""
    for name in DENOISERS:
        module = getattr(pipe, name, None)
        if isinstance(module, torch.nn.Module):
            yield name, module


def apply_speed(pipe: Any, speed: Speed, steps: int) -> None:
    """Make the pipeline run as `speed` says, in runs of `steps` steps; nothing else stays on.

    To be called before every render, after LoRAs and placement; it forgets what an earlier run
    left in the caches. Raises ModelBroken when the card's settings do not fit this diffusers.
    """
    for _, module in denoisers(pipe):
        applied: _Applied | None = getattr(module, _MARK, None)
        if applied is None or (applied.speed, applied.steps) != (speed, steps):
            _remove(module)
            _apply(module, speed, steps)
        elif applied.watch is not None:
            applied.watch.forget()


def remove_speed(pipe: Any) -> None:
    """Make the pipeline its plain self again: its frames are those of one never made faster."""
    for _, module in denoisers(pipe):
        _remove(module)


class _Watch:
    """Called before each pass of a denoiser: notes the timestep and keeps the caches sound.

    Timesteps fall within a run, so a rising one begins a new run, or the next window of a long
    clip (FramePack), and what is cached belongs to another picture. A pipeline that does not name
    its passes, although caches need a name, runs only one a step.
    """

    def __init__(self, module: Any) -> None:
        self.timestep = 0.0
        self._module = module
        self._managers: list[StateManager] | None = None

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        timestep = kwargs["timestep"] if "timestep" in kwargs else args[1]
        now = float(torch.as_tensor(timestep).max())
        managers = self._found()
        context = managers[0]._context if managers else None
        if now > self.timestep:
            self.forget()
        self.timestep = now
        for manager in managers:  # forgetting also cleared the name of the pass that just began
            manager.set_context(context or CacheContext("cond"))

    def forget(self) -> None:
        """Forget everything cached, as if the denoiser had never run."""
        self.timestep = 0.0
        HookRegistry.check_if_exists_or_initialize(self._module).reset_stateful_hooks()

    def _found(self) -> list[StateManager]:
        """The holders of cached states, which the hooks of one denoiser may share."""
        if self._managers is None:
            found = {
                id(value): value
                for module in self._module.modules()
                for hook in getattr(getattr(module, "_diffusers_hook", None), "hooks", {}).values()
                for value in vars(hook).values()
                if isinstance(value, StateManager)
            }
            self._managers = list(found.values())
        return self._managers


def _apply(module: Any, speed: Speed, steps: int) -> None:
    watch = handle = None
    try:
        if speed.attention is not None:
            _set_attention(module, speed.attention)
        if speed.cache is not None:
            watch = _Watch(module)
            _enable(module, _config(speed.cache, steps, watch))
            handle = module.register_forward_pre_hook(watch, with_kwargs=True)
        if speed.compile:
            module.compile_repeated_blocks()
    except (AttributeError, TypeError, ValueError, RuntimeError) as error:
        setattr(module, _MARK, _Applied(speed, steps, watch, handle))
        _remove(module)
        raise ModelBroken(
            f"{type(module).__name__} cannot be made faster as its card says.",
            cause=f"{type(error).__name__}: {error}"[:300],
            hints=["ask for acceleration lossless", "correct `acceleration` in the model's card"],
        ) from error
    setattr(module, _MARK, _Applied(speed, steps, watch, handle))


def _remove(module: Any) -> None:
    applied: _Applied | None = getattr(module, _MARK, None)
    if applied is None:
        return
    if applied.handle is not None:
        applied.handle.remove()
    if applied.watch is not None:
        _disable(module)
    if applied.speed.attention is not None:
        module.reset_attention_backend()
    if applied.speed.compile:
        for part in module.modules():
            # What Module.compile set; a part without it is called as it was written.
            part._compiled_call_impl = None
    delattr(module, _MARK)


def _set_attention(module: Any, name: str) -> None:
    # diffusers makes the backend that of the whole process too, where it would also serve the
    # other models that are held.
    before, _ = _AttentionBackendRegistry.get_active_backend()
    try:
        module.set_attention_backend(name)
    finally:
        _AttentionBackendRegistry.set_active_backend(before)


def _config(cache: StepCache, steps: int, watch: _Watch) -> Any:
    """diffusers' configuration of a step cache."""
    settings: dict[str, Any] = dict(cache.settings)
    match cache.kind:
        case "first_block":
            return FirstBlockCacheConfig(**settings)
        case "mag":
            return MagCacheConfig(**settings, num_inference_steps=steps)
        case "taylor_seer":
            if name := settings.pop("taylor_factors_dtype", None):
                settings["taylor_factors_dtype"] = getattr(torch, name)
            return TaylorSeerCacheConfig(**settings)
        case "pyramid":
            return PyramidAttentionBroadcastConfig(
                **settings, current_timestep_callback=lambda: watch.timestep
            )


def _enable(module: Any, config: Any) -> None:
    if not hasattr(module, "enable_cache"):  # UNets have only this one, as a function
        apply_pyramid_attention_broadcast(module, config)
        return
    if isinstance(config, FirstBlockCacheConfig | MagCacheConfig):
        _register_blocks()
    module.enable_cache(config)


def _disable(module: Any) -> None:
    if not hasattr(module, "enable_cache"):
        registry = HookRegistry.check_if_exists_or_initialize(module)
        registry.remove_hook(_PYRAMID_ATTENTION_BROADCAST_HOOK, recurse=True)
    elif module.is_cache_enabled:
        module.disable_cache()


def _register_blocks() -> None:
    for name, (block, places) in _UNREGISTERED.items():
        module = importlib.import_module(f"diffusers.models.transformers.{name}")
        metadata = TransformerBlockMetadata(**places)
        TransformerBlockRegistry.register(getattr(module, block), metadata)
