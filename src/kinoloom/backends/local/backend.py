"""How is a take rendered on this machine?

`LocalBackend` keeps the last pipeline it loaded, so a second clip of the same model starts at once.
What a family needs of its own stands in ``families/``; the card names the module.
"""

from __future__ import annotations

import gc
import importlib
import inspect
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata, util
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from kinoloom.backends.base import Frame, Frames, Inputs, Progress, Readiness, Rendered, Take
from kinoloom.catalog.card import ModelCard
from kinoloom.errors import InsufficientMemory, MissingPackage, ModelBroken

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "safetensors", "ftfy")
_INSTALL = 'install the local backend: pip install "kinoloom[local]"'
_PREVIEWS = 8  # rough pictures in a render, spread over its steps

Report = Callable[[Progress], None]


class LocalBackend:
    """Runs diffusers pipelines in this process."""

    name = "local"

    def __init__(self, dtype: str = "auto") -> None:
        self._dtype = dtype
        self._loaded: tuple[tuple[str, ...], Any] | None = None
        self._previews: dict[int, Any] = {}

    def readiness(self, card: ModelCard) -> Readiness:
        """Whether packages and weights are here; nothing is imported or loaded."""
        if missing := _missing_packages():
            return Readiness(False, (f"not installed: {', '.join(missing)}",), (_INSTALL,))
        folder = card.source.folder
        if folder is not None and not (folder / "model_index.json").is_file():
            return Readiness(
                False,
                (f"no model_index.json in {folder}",),
                ("reinstall kinoloom" if card.source.package else "check the path in the card",),
            )
        return Readiness(True)

    def render(self, take: Take, card: ModelCard, inputs: Inputs, report: Report) -> Rendered:
        """Render `take` with `card`'s pipeline; see `Backend.render`.

        Raises MissingPackage, ModelNotFound, ModelBroken, InsufficientMemory, and whatever
        `report` raises, after which the pipeline is clean for the next render.
        """
        if missing := _missing_packages():
            raise MissingPackage(
                "The local backend's packages are not installed.",
                cause=f"not installed: {', '.join(missing)}",
                hints=[_INSTALL],
            )
        report(Progress("load"))
        started = time.perf_counter()
        # OpenMP's threads wait for each other hundreds of times a step. Spinning, as they do by
        # themselves, they keep each other off a core that has something else to do, which made a
        # step 15 times as long beside one busy program. It is read once, when torch is loaded.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        import torch

        from kinoloom.backends.local import device as devices

        where = devices.choose_device(take.device.split()[0])
        dtype = devices.choose_dtype(self._dtype, where)
        family = _family(card)
        pipe = self._pipeline(take, card, where, dtype)
        loaded = time.perf_counter()
        report(Progress("encode"))
        if where.type == "cuda":
            torch.cuda.reset_peak_memory_stats(where)
        watch = _Watch(pipe, take, family, self._preview_of(pipe), report)
        # Some schedulers and noise injections draw from the global generator.
        torch.manual_seed(take.seed)
        with _memory_errors(card, take), torch.inference_mode():
            try:
                output = pipe(
                    **_arguments(pipe, take, card, family, inputs),
                    generator=torch.Generator("cpu").manual_seed(take.seed),
                    callback_on_step_end=watch,
                    output_type="np",
                ).frames[0]
            except BaseException:
                # Cached states of a stopped run would leak into the next one.
                pipe.maybe_free_model_hooks()
                raise
        done = time.perf_counter()
        return Rendered(
            frames=_to_uint8(output, card),
            seconds={"load": loaded - started} | watch.seconds(loaded, done),
            device=take.device,
            dtype=str(dtype).removeprefix("torch."),
            versions={name: metadata.version(name) for name in PACKAGES[:3]},
            peak_bytes=torch.cuda.max_memory_allocated(where) if where.type == "cuda" else None,
        )

    def _pipeline(self, take: Take, card: ModelCard, where: Any, dtype: Any) -> Any:
        """The pipeline of the take's task, loaded unless it is the one that is held already."""
        from kinoloom.backends.local import loader

        recipe = card.pipelines[take.task]
        key = (card.source.model_dump_json(), recipe.class_name, str(where), str(dtype))
        if self._loaded is None or self._loaded[0] != key:
            self.unload()
            self._loaded = (key, loader.load(card, recipe, where, dtype))
        return self._loaded[1]

    def _preview_of(self, pipe: Any) -> Any:
        from kinoloom.backends.local.preview import LatentPreview

        if id(pipe) not in self._previews:
            self._previews = {id(pipe): LatentPreview(pipe.vae)}
        return self._previews[id(pipe)]

    def unload(self) -> None:
        """Give the held pipeline's memory back."""
        self._loaded = None
        self._previews = {}
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


class _Watch:
    """The pipeline's callback: reports every step, previews some, and takes the time."""

    def __init__(
        self, pipe: Any, take: Take, family: ModuleType, preview: Any, report: Report
    ) -> None:
        self._take, self._family, self._preview, self._report = take, family, preview, report
        self._every = max(1, take.steps // _PREVIEWS)
        self._before: Any = None
        self._marks: list[float] = []

    def __call__(self, pipe: Any, index: int, _: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        self._marks.append(time.perf_counter())
        step, steps = index + 1, self._take.steps
        picture = None
        if step % self._every == 0 or step == steps:
            picture = self._picture(pipe, index, tensors["latents"])
        if (step + 1) % self._every == 0 or step + 1 == steps:
            self._before = tensors["latents"].clone()
        self._report(Progress("denoise", step, steps, picture))
        if step == steps:
            self._report(Progress("decode", step, steps))
        return tensors

    def _picture(self, pipe: Any, index: int, latents: Any) -> Frame:
        from kinoloom.backends.local.preview import clean_estimate

        if self._before is not None:
            sigmas = pipe.scheduler.sigmas
            pair = float(sigmas[index]), float(sigmas[index + 1])
            latents = clean_estimate(self._before, latents, *pair)
        picture: Frame = self._preview.picture(self._family.unpack(pipe, self._take, latents))
        return picture

    def seconds(self, started: float, done: float) -> dict[str, float]:
        """Seconds of the prompt's encoding, of all steps, of one step, and of the decoding.

        The first step's own time cannot be told from the encoding before it, so it is taken to
        be as long as the median of the others.
        """
        gaps = np.diff(self._marks)
        step = float(np.median(gaps)) if len(gaps) else 0.0
        first, last = (self._marks[0], self._marks[-1]) if self._marks else (started, started)
        return {
            "encode": max(0.0, first - started - step),
            "denoise": last - first + step,
            "step": step or max(0.0, first - started),
            "decode": done - last,
        }


def _missing_packages() -> list[str]:
    return [name for name in PACKAGES if util.find_spec(name) is None]


def _family(card: ModelCard) -> ModuleType:
    """The adapter module that the card names; ModelBroken when there is none."""
    name = f"kinoloom.backends.local.families.{card.adapter}"
    if util.find_spec(name) is None:
        raise ModelBroken(
            f"The card of {card.id} asks for the adapter {card.adapter!r}, which does not exist.",
            hints=["correct `adapter` in the card", "upgrade kinoloom"],
        )
    return importlib.import_module(name)


def _arguments(
    pipe: Any, take: Take, card: ModelCard, family: ModuleType, inputs: Inputs
) -> dict[str, Any]:
    """Everything that the pipeline is called with, besides generator and callback."""
    arguments: dict[str, Any] = {
        "prompt": take.prompt,
        "negative_prompt": take.negative or None,
        "width": take.width,
        "height": take.height,
        "guidance_scale": take.guidance,
        "num_inference_steps": take.steps,
        **family.length_arguments(take),
        **family.media_arguments(take, inputs),
        **card.pipelines[take.task].arguments,
    }
    if card.schedule is not None:
        total = pipe.scheduler.config.num_train_timesteps
        arguments["timesteps"] = [total * s for s in card.schedule.sigmas(take.steps)]
    known = inspect.signature(pipe.__call__).parameters
    foreign = [name for name in arguments if name not in known]
    if foreign:
        raise ModelBroken(
            f"{type(pipe).__name__} does not take {', '.join(foreign)}.",
            hints=[f"correct `arguments` in the card of {card.id}"],
        )
    return arguments


def _to_uint8(output: NDArray[np.floating[Any]], card: ModelCard) -> Frames:
    """Float frames in 0..1 as uint8, refused when the model gave numbers that are none."""
    if not np.isfinite(output).all():
        raise ModelBroken(
            f"{card.id} gave numbers that are not a picture (NaN).",
            hints=["set KINOLOOM_DTYPE=float32"],
        )
    frames: Frames = (np.clip(output, 0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    return frames


@contextmanager
def _memory_errors(card: ModelCard, take: Take) -> Iterator[None]:
    """Turn the several ways in which memory runs out into one error."""
    import torch

    try:
        yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise _no_room(card, take) from error
    except RuntimeError as error:
        if "can't allocate memory" in str(error) or "not enough memory" in str(error):
            raise _no_room(card, take) from error
        raise


def _no_room(card: ModelCard, take: Take) -> InsufficientMemory:
    return InsufficientMemory(
        f"{take.device} has too little memory for {take.frames} frames of"
        f" {take.width}x{take.height} with {card.id}.",
        hints=["ask for fewer frames or a smaller size", "close other programs that use it"],
    )
