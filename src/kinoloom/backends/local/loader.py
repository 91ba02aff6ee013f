"""How does a card become a loaded diffusers pipeline?

The card names the weights and the pipeline class of the task; `weights.places` finds them on this
disk. Weights are read from safetensors only, nothing is downloaded, no code of the repository is
run, and a folder whose files do not fill the model is refused instead of being rendered with random
numbers. Modules that another loaded pipeline has already are shared with it.
"""

from __future__ import annotations

import inspect
import json
import logging
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import diffusers
import torch
import transformers
from diffusers import DiffusionPipeline

from kinoloom.backends.local.sharing import Shared
from kinoloom.catalog.card import ModelCard, Pipeline
from kinoloom.errors import InsufficientMemory, ModelBroken
from kinoloom.weights.layout import variant_in
from kinoloom.weights.places import Located

_CAUSE_LENGTH = 300
_IMAGE_PROCESSORS = ("ImageProcessor", "ImageProcessorFast", "FeatureExtractor")


def pipeline_class(card: ModelCard, pipeline: Pipeline) -> type[Any]:
    """The diffusers class that the card names; ModelBroken when this diffusers has none."""
    found = getattr(diffusers, pipeline.class_name, None)
    if not isinstance(found, type) or not issubclass(found, DiffusionPipeline):
        raise ModelBroken(
            f"The card of {card.id} names {pipeline.class_name}, which is no pipeline of"
            f" diffusers {diffusers.__version__}.",
            hints=["correct the class in the card, or upgrade diffusers"],
        )
    return found


def load(
    card: ModelCard,
    pipeline: Pipeline,
    located: Located,
    dtype: torch.dtype,
    shared: Shared,
    *,
    only: Collection[str] | None = None,
    without: Collection[str] = (),
) -> Any:
    """A pipeline in main memory, checked to be whole.

    `only` names the components that are loaded, `without` those that are not; the others are None.
    ``pipe.parts`` says where the card's parts lie. Raises ModelBroken or InsufficientMemory.
    """
    cls = pipeline_class(card, pipeline)
    _quiet()
    with loading_errors(card, located.folder or located.file or Path()):
        names = _component_names(cls)
        left_out = {n for n in names if n in without or (only is not None and n not in only)}
        given: dict[str, Any] = dict.fromkeys(left_out)
        for name, place in located.parts.items():
            if name in names and name not in left_out:
                given[name] = shared.module(place, dtype, partial(_load_part, place, dtype))
        if located.file is not None:
            pipe = cls.from_single_file(
                str(located.file),
                config=str(located.config) if located.config else None,
                dtype=dtype,
                local_files_only=True,
                **given,
            )
        else:
            folder = located.folder or Path()
            index = _index(folder)
            for name, (library, kind) in index.items():
                if name not in given and library in ("diffusers", "transformers"):
                    built = _build(folder / name, library, kind, dtype, shared)
                    if built is not None:
                        given[name] = built
            pipe = cls.from_pretrained(
                str(folder), dtype=dtype, use_safetensors=True, local_files_only=True, **given
            )
    pipe.parts = dict(located.parts)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _component_names(cls: type[Any]) -> set[str]:
    """What the pipeline is made of: the parameters of its constructor."""
    return set(inspect.signature(cls.__init__).parameters) - {"self", "args", "kwargs"}


def _index(folder: Path) -> dict[str, tuple[str, str]]:
    """The components of a pipeline's folder: library and class of each, by name."""
    raw = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    return {
        name: (str(value[0]), str(value[1]))
        for name, value in raw.items()
        if not name.startswith("_") and isinstance(value, list) and len(value) == 2 and value[0]
    }


def _build(folder: Path, library: str, kind: str, dtype: torch.dtype, shared: Shared) -> Any:
    """A component that may be shared, or whose named class needs torchvision; None for others."""
    if library == "transformers" and kind.endswith(_IMAGE_PROCESSORS):
        # The fast processors need torchvision; the plain ones of the same name do the same work.
        plain = kind.removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")
        found = getattr(transformers, plain + "Pil", None) or getattr(transformers, plain)
        return found.from_pretrained(str(folder), local_files_only=True)
    cls = getattr(diffusers if library == "diffusers" else transformers, kind, None)
    if not isinstance(cls, type) or not issubclass(cls, torch.nn.Module):
        return None
    return shared.module(folder, dtype, lambda: _from_pretrained(cls, folder, dtype))


def _from_pretrained(cls: Any, folder: Path, dtype: torch.dtype) -> Any:
    """A module all of whose weights came from its files; ModelBroken otherwise.

    The libraries only warn of a missing weight, and fill it with random numbers.
    """
    module, info = cls.from_pretrained(
        str(folder),
        dtype=dtype,
        use_safetensors=True,
        variant=variant_in(folder),
        local_files_only=True,
        output_loading_info=True,
    )
    missing = sorted(info["missing_keys"])
    if missing:
        raise ModelBroken(
            f"The files in {folder} are incomplete: they lack {len(missing)} weights,"
            f" {missing[0]} for one.",
            hints=["download or copy the model anew", f"its folder is {folder}"],
        )
    return module.eval()


def _load_part(place: Path, dtype: torch.dtype) -> Any:
    """A component that lies on its own: what it is, its own config says."""
    config = place / "config.json"
    if not config.is_file():
        return transformers.AutoImageProcessor.from_pretrained(
            str(place), local_files_only=True, backend="pil"
        )
    says = json.loads(config.read_text(encoding="utf-8"))
    if "_class_name" in says:
        cls = getattr(diffusers, str(says["_class_name"]))
    else:
        cls = getattr(transformers, str(says["architectures"][0]))
    return _from_pretrained(cls, place, dtype)


@contextmanager
def loading_errors(card: ModelCard, place: Path) -> Iterator[None]:
    """A damaged folder surfaces as almost any exception type of five libraries: name it."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InsufficientMemory(
            f"{card.id} does not fit into this machine's memory.",
            hints=["close other programs that use it", "use a smaller model"],
        ) from error
    except ModelBroken:
        raise
    except Exception as error:
        raise ModelBroken(
            f"The files of {card.id} in {place} cannot be loaded.",
            cause=f"{type(error).__name__}: {error}"[:_CAUSE_LENGTH],
            hints=[
                "reinstall kinoloom" if card.source.package else "download or copy the model anew",
                "or use another model: kinoloom models list",
            ],
        ) from error


def _quiet() -> None:
    """Keep the libraries' own chatter out of the user's terminal."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
