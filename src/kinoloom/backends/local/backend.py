"""How is a take rendered on this machine?

`LocalBackend` keeps pipelines loaded within the memory budget, so a second clip of a model starts
at once. A pipeline comes in two halves: one that turns words into embeddings, which is only loaded
when the cache has none, and one that renders. What a family needs of its own stands in
``families/``; the card names the module.
"""

from __future__ import annotations

import importlib
import inspect
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata, util
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from kinoloom.backends.base import (
    Frames,
    Inputs,
    Phase,
    Progress,
    Readiness,
    Rendered,
    Take,
    WhatFits,
)
from kinoloom.backends.local import hardware
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.errors import KinoloomError, MissingPackage, ModelBroken
from kinoloom.weights.places import Located, locate

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kinoloom.backends.local.embeddings import EmbeddingCache
    from kinoloom.backends.local.families.base import Family
    from kinoloom.backends.local.parallel import Group
    from kinoloom.backends.local.preview import LatentPreview

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "ftfy")
_INSTALL = 'install the local backend: pip install "kinoloom[local]"'

Report = Callable[[Progress], None]


class LocalBackend:
    """Runs diffusers pipelines in this process, as its share of a render when it is in a group.

    `what_fits` says what to ask for instead where memory runs out; without, hints are general.
    """

    name = "local"
    remote: ClassVar[bool] = False

    def __init__(
        self,
        settings: Settings,
        group: Group | None = None,
        *,
        what_fits: WhatFits | None = None,
    ) -> None:
        self._settings = settings
        self._group = group
        self._what_fits = what_fits
        self._state: _State | None = None

    def cards(self, known: Catalog) -> Sequence[ModelCard]:
        """None beside those that are known: a local model has a card of its own."""
        return ()

    def readiness(self, card: ModelCard) -> Readiness:
        """Whether packages and weights are here; nothing is imported or loaded."""
        if missing := missing_packages():
            return Readiness(False, (f"not installed: {', '.join(missing)}",), (_INSTALL,))
        try:
            locate(card, self._settings)
        except KinoloomError as error:
            return Readiness(False, (error.message,), error.hints)
        return Readiness(True)

    def render(self, take: Take, card: ModelCard, inputs: Inputs, report: Report) -> Rendered:
        """Render `take` with `card`'s pipeline; see `Backend.render`.

        When memory runs out, everything is let go of and the next lower placement is tried once.
        Raises MissingPackage, ModelNotFound, ModelBroken, InsufficientMemory, and whatever
        `report` raises, after which the pipeline is clean for the next render.
        """
        if missing := missing_packages():
            raise MissingPackage(
                "The local backend's packages are not installed.",
                cause=f"not installed: {', '.join(missing)}",
                hints=[_INSTALL],
            )
        report(Progress("load"))
        located = locate(card, self._settings)  # what is not whole is told before torch is loaded
        started = time.perf_counter()
        # OpenMP's threads wait for each other hundreds of times a step. Spinning, as they do by
        # themselves, they keep each other off a core that has something else to do, which made a
        # step 15 times as long beside one busy program. It is read once, when torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        from kinoloom.backends.local.memory_errors import run_with_retry

        if self._state is None:
            self._state = _State.make(self._settings, self._group)
        state = self._state
        reached: Phase = "load"

        def noting(progress: Progress) -> None:
            nonlocal reached
            reached = progress.phase
            report(progress)

        return run_with_retry(
            take,
            lambda t: state.render(t, card, located, inputs, noting, started),
            state.clear,
            phase=lambda: reached,
            retry=self._group is None,  # alone, since the others are at another point by then
            instead=partial(self._instead, card),
        )

    def _instead(self, card: ModelCard, take: Take) -> Sequence[str]:
        """What to ask for instead of `take`, which ran out of memory."""
        if self._what_fits is None:
            return ()
        from kinoloom.backends.local import device as devices

        where = devices.choose_device(take.device.split()[0])
        free = hardware.memory(take.device, ours=True)
        return self._what_fits(
            card,
            take,
            free_bytes=free[0] if free is not None else None,
            budget_bytes=self._settings.memory_budget,
            dtype_bytes=devices.choose_dtype(self._settings.dtype, where).itemsize,
        )

    @property
    def held(self) -> int:
        """Bytes of the weights that are loaded, which a render of another model would free."""
        return self._state.held if self._state is not None else 0

    def unload(self) -> None:
        """Give the held pipelines' memory back."""
        if self._state is not None:
            self._state.clear()


@dataclass
class _Loaded:
    """A pipeline in memory and what was done to it."""

    pipe: Any
    scheduler: Any
    preview: LatentPreview | None = None
    placed: tuple[Any, ...] | None = None
    notes: tuple[str, ...] = ()

    @property
    def components(self) -> dict[str, Any]:
        """The pipeline's components, by name."""
        found: dict[str, Any] = self.pipe.components
        return found


class _State:
    """What lives as long as the process: the loaded pipelines and the cached embeddings."""

    def __init__(self, settings: Settings, embeddings: EmbeddingCache, group: Group | None) -> None:
        from kinoloom.backends.local.residency import Residency
        from kinoloom.backends.local.sharing import Shared

        self._settings = settings
        self._embeddings = embeddings
        self._group = group
        self._resident = Residency(settings.memory_budget)
        self._shared = Shared()
        self._placed: Callable[[], _Loaded | None] = lambda: None  # it must not keep it loaded

    @classmethod
    def make(cls, settings: Settings, group: Group | None) -> _State:
        from kinoloom.backends.local.embeddings import EmbeddingCache

        return cls(settings, EmbeddingCache.open(settings), group)

    @property
    def held(self) -> int:
        return self._resident.bytes

    def clear(self) -> None:
        self._resident.clear()

    def render(
        self,
        take: Take,
        card: ModelCard,
        located: Located,
        inputs: Inputs,
        report: Report,
        started: float,
    ) -> Rendered:
        """One attempt at the take, with its placement."""
        import torch

        from kinoloom.backends.local import device as devices
        from kinoloom.backends.local import peak, speed
        from kinoloom.backends.local.scheduling import scheduler_for
        from kinoloom.backends.local.watch import Watch, watched

        where = devices.choose_device(take.device.split()[0])
        dtype = devices.choose_dtype(self._settings.dtype, where)
        family = family_of(card)
        peak.reset(where)
        loaded = self._load(take, card, family, located, dtype)
        pipe = loaded.pipe
        ready = time.perf_counter()
        report(Progress("encode"))
        encode = partial(self._encode, pipe, take, card, family, located, where, dtype)
        with torch.inference_mode():
            words, found = encode() if self._group is None else self._group.words(encode, where)
        encoded = time.perf_counter()
        notes = self._place(loaded, take, where, dtype)
        pipe.scheduler = scheduler_for(loaded.scheduler, take)
        family.prepare(pipe, take, inputs)
        speed.apply_speed(pipe, take.speed, take.steps)
        if self._group is not None:
            self._group.split(pipe, where)
        watch = Watch(pipe, take, family, self._preview(loaded), report)
        # Some schedulers and noise injections draw from the global generator.
        torch.manual_seed(take.seed)
        try:
            with torch.inference_mode(), watched(pipe, watch, family) as watching:
                arguments = arguments_of(pipe, take, card, family, inputs)
                arguments |= words | watching
                arguments["generator"] = torch.Generator("cpu").manual_seed(take.seed)
                output = family.call(pipe, arguments | {"output_type": "np"})
        except BaseException:
            # Cached states of a stopped run would leak into the next one.
            speed.remove_speed(pipe)
            pipe.maybe_free_model_hooks()
            raise
        done = time.perf_counter()
        seconds = watch.seconds(encoded, done)
        seconds["encode"] += encoded - ready
        return Rendered(
            frames=to_uint8(family.frames(output), card),
            seconds={"load": ready - started} | seconds,
            device=take.device,
            dtype=str(dtype).removeprefix("torch."),
            versions={name: metadata.version(name) for name in PACKAGES[:3]},
            peak_bytes=peak.read(where),
            audio=family.audio(pipe, output),
            placement=take.placement,
            tiling=take.tiling,
            notes=notes,
            embeddings=found,
        )

    def _load(
        self, take: Take, card: ModelCard, family: Family, located: Located, dtype: Any
    ) -> _Loaded:
        """The rendering half of the pipeline of the take's task."""
        from kinoloom.backends.local import loader
        from kinoloom.backends.local.sharing import Shared

        recipe = card.pipelines[take.task]
        key = _key(card, recipe.class_name, located, dtype)
        shared = self._shared
        if take.placement == "fp8":  # weights stored in 8 bits do not come back: they are its own
            key += f" fp8 {take.loras}"
            shared = Shared()
        if key not in self._resident.held and card.memory is not None:
            needed = card.memory.total
            self._resident.make_room(lambda: _free(take.device), needed)

        def load() -> _Loaded:
            without = family.text_components
            pipe = loader.load(card, recipe, located, dtype, shared, without=without)
            return _Loaded(pipe, pipe.scheduler)

        found: _Loaded = self._resident.get(key, load)
        return found

    def _encode(
        self,
        pipe: Any,
        take: Take,
        card: ModelCard,
        family: Family,
        located: Located,
        where: Any,
        dtype: Any,
    ) -> tuple[dict[str, Any], Literal["hit", "miss"] | None]:
        """The prompt's embeddings as arguments on the device, and whether they were cached."""
        if not family.text_components:
            return {}, None
        from kinoloom.backends.local import loader, offload
        from kinoloom.backends.local.sharing import identity

        recipe = card.pipelines[take.task]
        fixed = recipe.arguments
        extra = family.encode_key(pipe, take, fixed)
        key = None
        if extra is not None:
            places = [_component(located, name) for name in family.text_components]
            encoder = " ".join(identity(p) for p in places if p is not None)
            guided = take.guidance > 1
            key = self._embeddings.key(
                f"{encoder} {recipe.class_name} {dtype}", take.prompt, take.negative, guided, extra
            )
            cached = self._embeddings.load(key, where)
            if cached is not None:
                return cached, "hit"
        half = f"words {_key(card, recipe.class_name, located, dtype)} {where}"

        def load() -> _Loaded:
            names = (*family.text_components, *family.encoding_needs)
            text = loader.load(card, recipe, located, dtype, self._shared, only=names)
            # An encoder may be larger than the device; one that is to go again may fill it.
            layered = take.placement in ("group_offload", "sequential")
            offload.apply(text, take.placement if layered else "resident", False, where, dtype)
            return _Loaded(text, None)

        text: _Loaded = self._resident.get(half, load)
        words = family.encode(text.pipe, take, fixed)
        if take.placement != "resident":
            del text
            self._resident.drop(half)  # its room is needed, and its hooks are for this placement
        if key is not None:
            self._embeddings.save(key, words)
        return words, "miss" if key is not None else None

    def _place(self, loaded: _Loaded, take: Take, where: Any, dtype: Any) -> tuple[str, ...]:
        """Put the take's LoRAs on, and the weights where its placement wants them."""
        from kinoloom.backends.local import offload
        from kinoloom.backends.local.lora import apply_loras

        wanted = (take.placement, take.tiling, str(where), take.loras)
        if loaded.placed == wanted and self._placed() is loaded:
            return loaded.notes
        # Another pipeline may have the same modules, and leave them as its take wanted them.
        self._placed = weakref.ref(loaded)
        if loaded.preview is None and take.placement != "resident":
            self._preview(loaded)  # while the VAE is whole and in one place
        if loaded.placed is not None and loaded.placed[-1] != take.loras:
            offload.remove(loaded.pipe)  # they go on bare layers
        loaded.placed = None
        apply_loras(loaded.pipe, take.loras)
        loaded.notes = tuple(offload.apply(loaded.pipe, take.placement, take.tiling, where, dtype))
        loaded.placed = wanted
        return loaded.notes

    def _preview(self, loaded: _Loaded) -> LatentPreview | None:
        from kinoloom.backends.local.preview import LatentPreview

        if loaded.preview is None:
            loaded.preview = LatentPreview(loaded.pipe.vae)
        return loaded.preview


def missing_packages() -> list[str]:
    """The packages of the local backend that are not installed."""
    return [name for name in PACKAGES if util.find_spec(name) is None]


def family_of(card: ModelCard) -> Family:
    """The family that the card names; ModelBroken when there is none."""
    name = f"kinoloom.backends.local.families.{card.adapter}"
    if util.find_spec(name) is None:
        raise ModelBroken(
            f"The card of {card.id} asks for the adapter {card.adapter!r}, which does not exist.",
            hints=["correct `adapter` in the card", "upgrade kinoloom"],
        )
    found: Family = importlib.import_module(name).FAMILY
    return found


def arguments_of(
    pipe: Any, take: Take, card: ModelCard, family: Family, inputs: Inputs
) -> dict[str, Any]:
    """Everything that the pipeline is called with, besides words, generator and callback."""
    known = inspect.signature(pipe.__call__).parameters
    arguments = {**family.arguments(pipe, take, inputs), **card.pipelines[take.task].arguments}
    sigmas: list[float] | None = None
    if take.timesteps is not None:
        sigmas = [t / 1000 for t in take.timesteps]
    elif card.schedule is not None:
        sigmas = card.schedule.sigmas(take.steps)
    if sigmas is not None and "timesteps" in known:
        total = pipe.scheduler.config.num_train_timesteps
        arguments["timesteps"] = [total * s for s in sigmas]
    elif sigmas is not None:
        arguments["sigmas"] = sigmas
    # Limits of the prompt were used when it was encoded.
    foreign = [n for n in arguments if n not in known and n != "max_sequence_length"]
    if foreign:
        raise ModelBroken(
            f"{type(pipe).__name__} does not take {', '.join(foreign)}.",
            hints=[f"correct `arguments` in the card of {card.id}"],
        )
    return {name: value for name, value in arguments.items() if name in known}


def to_uint8(output: NDArray[np.floating[Any]], card: ModelCard) -> Frames:
    """Float frames in 0..1 as uint8, refused when the model gave numbers that are none."""
    import numpy as np  # not before: the server asks for readiness, and loads no numpy

    if not np.isfinite(output).all():
        raise ModelBroken(
            f"{card.id} gave numbers that are not a picture (NaN).",
            hints=["set KINOLOOM_DTYPE=float32"],
        )
    frames: Frames = (np.clip(output, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return frames


def _key(card: ModelCard, class_name: str, located: Located, dtype: Any) -> str:
    """Which loaded pipeline serves a task: its class, its dtype, and where its weights lie."""
    parts: Mapping[str, Any] = located.parts
    places = [located.folder, located.file, *(parts[name] for name in sorted(parts))]
    return " ".join([card.adapter, class_name, str(dtype), *map(str, places)])


def _component(located: Located, name: str) -> Any:
    """Where one component's files lie; None when they are within a single file."""
    if name in located.parts:
        return located.parts[name]
    if located.folder is None:
        return located.file
    place = located.folder / name
    return place if place.is_dir() else None


def _free(device: str) -> int | None:
    found = hardware.memory(device)
    return found[0] if found is not None else None
