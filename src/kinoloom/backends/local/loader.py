"""How does a card become a loaded diffusers pipeline?

The card names the folder or repository and the pipeline class of the task. Weights are read from
safetensors only, nothing is downloaded, no code of the repository is run, and a folder whose files
do not fill the model is refused instead of being rendered with random numbers.
"""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import diffusers
import safetensors
import torch
import transformers
from diffusers import DiffusionPipeline
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError

from kinoloom.catalog.card import ModelCard, Pipeline
from kinoloom.errors import InsufficientMemory, ModelBroken, ModelNotFound

_CAUSE_LENGTH = 300


def find_folder(card: ModelCard) -> Path:
    """The folder of the card's weights on this disk; ModelNotFound when it is not there."""
    folder = card.source.folder
    if folder is None:
        repo = card.source.repo or ""
        try:
            return Path(
                snapshot_download(repo, revision=card.source.revision, local_files_only=True)
            )
        except (LocalEntryNotFoundError, OSError, ValueError) as error:
            raise ModelNotFound(
                f"The weights of {card.id} ({repo}) are not on this machine.",
                hints=[f"download them once with: hf download {repo}", "or use --model spark"],
            ) from error
    if not folder.is_dir():
        raise ModelNotFound(
            f"The weights of {card.id} are not on this machine: there is no folder {folder}.",
            hints=[
                "check the path in the model's card"
                if card.source.path
                else "reinstall kinoloom: the package is incomplete"
            ],
        )
    return folder


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


def load(card: ModelCard, pipeline: Pipeline, device: torch.device, dtype: torch.dtype) -> Any:
    """A pipeline on `device`, checked to be whole.

    Raises ModelNotFound, ModelBroken or InsufficientMemory.
    """
    folder = find_folder(card)
    cls = pipeline_class(card, pipeline)
    _quiet()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pipe = cls.from_pretrained(
                str(folder), dtype=dtype, use_safetensors=True, local_files_only=True
            )
        _check_whole(card, folder, pipe)
        pipe.to(device)
    except (torch.OutOfMemoryError, MemoryError) as error:
        raise InsufficientMemory(
            f"{card.id} does not fit into the memory of {device}.",
            hints=["close other programs that use it", "set KINOLOOM_DEVICE=cpu"],
        ) from error
    except ModelBroken:
        raise
    # A damaged folder surfaces as almost any exception type of five libraries.
    except Exception as error:
        raise ModelBroken(
            f"The files of {card.id} in {folder} cannot be loaded.",
            cause=f"{type(error).__name__}: {error}"[:_CAUSE_LENGTH],
            hints=[
                "reinstall kinoloom" if card.source.package else "download or copy the model anew",
                "or use another model: kinoloom models list",
            ],
        ) from error
    pipe.set_progress_bar_config(disable=True)
    return pipe


def _check_whole(card: ModelCard, folder: Path, pipe: Any) -> None:
    """Every weight of every component must have come from a file.

    from_pretrained only warns of a missing one and fills it with random numbers.
    """
    for name, component in pipe.components.items():
        if not isinstance(component, torch.nn.Module):
            continue
        files = sorted((folder / name).glob("*.safetensors"))
        stored: set[str] = set()
        for file in files:
            with safetensors.safe_open(str(file), framework="pt") as opened:
                stored.update(opened.keys())
        state = component.state_dict()
        # Tied weights are stored once under one of their names.
        filled = {state[key].data_ptr() for key in stored & state.keys()}
        missing = [k for k, v in state.items() if k not in stored and v.data_ptr() not in filled]
        if missing:
            raise ModelBroken(
                f"The files of {card.id} are incomplete: {name} lacks {len(missing)} weights,"
                f" {missing[0]} for one.",
                hints=["download or copy the model anew", f"its folder is {folder}"],
            )


def _quiet() -> None:
    """Keep the libraries' own chatter out of the user's terminal."""
    diffusers.utils.logging.set_verbosity_error()
    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
