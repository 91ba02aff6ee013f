"""Which files does a folder in diffusers' layout need, and which of them are there and whole?

``model_index.json`` names the components; each has a folder with its configuration and, where it
has weights, safetensors: one file, or several that an index lists. Where a folder has its weights
only in half precision, as files of the variant fp16, those count. Nothing is loaded.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from kinoloom.errors import ModelBroken
from kinoloom.weights.files import PICKLES, broken, read_header, read_json

INDEX = "model_index.json"
_STEMS = ("diffusion_pytorch_model", "model")
_VARIANTS = (None, "fp16")  # the first that is there counts
_SMALL = frozenset({".json", ".txt", ".model", ".jinja"})  # configurations and vocabularies
# What these classes know is all in their configuration and vocabulary.
_WITHOUT_WEIGHTS = re.compile(r"Tokenizer|Scheduler|Processor|FeatureExtractor|Guid")
_VOCABULARIES = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model", "tokenizer.model")
_COMPONENT = re.compile(r"[A-Za-z]\w{0,99}")
_SAFE = re.compile(r"(?!\.)[\w.+-]{1,200}")  # one level of a path that stays where it is
_SHARD = r"-\d{5}-of-\d{5}\.safetensors"

State = Literal["found", "missing", "broken"]


@dataclass(frozen=True)
class Need:
    """A file that a model needs: its path, its bytes where they are known, and what it is like."""

    path: str
    state: State
    size: int | None = None
    reason: str = ""


@dataclass(frozen=True)
class Component:
    """A component of a pipeline: its name and its class, or None where nobody says so."""

    name: str
    class_name: str | None

    @property
    def weighs(self) -> bool:
        """Whether it has weights, as far as its class tells."""
        return self.class_name is None or not _WITHOUT_WEIGHTS.search(self.class_name)


def pipeline_class(folder: Path) -> str:
    """The pipeline class that a folder's ``model_index.json`` names; ModelBroken if none."""
    return class_in(folder / INDEX, read_json(folder / INDEX))


def class_in(file: Path, data: dict[str, Any]) -> str:
    """The pipeline class in the content of a ``model_index.json``; ModelBroken if none."""
    found = data.get("_class_name")
    if not isinstance(found, str) or not found.isidentifier():
        raise broken(file, "names no pipeline class")
    return found


def components(file: Path, data: dict[str, Any]) -> list[Component]:
    """The components that the content `data` of a ``model_index.json`` lists.

    Raises ModelBroken where it is no such file, or a name leads out of the folder.
    """
    found = []
    for name, value in data.items():
        if name.startswith("_") or not isinstance(value, list):
            continue  # a setting of the pipeline, such as boundary_ratio
        if len(value) != 2 or not all(v is None or isinstance(v, str) for v in value):
            raise broken(file, f"{name[:40]!r} is no pair of a library and a class")
        if not _COMPONENT.fullmatch(name):
            raise broken(file, f"{name[:40]!r} is no name of a component")
        if value[1] is not None:
            found.append(Component(name, value[1]))
    if not found:
        raise broken(file, "lists no components")
    return found


def pipeline_needs(folder: Path, supplied: Collection[str] = ()) -> Iterator[Need]:
    """What a pipeline's folder needs, without the components that are `supplied` from elsewhere.

    Raises ModelBroken where ``model_index.json`` itself cannot be used.
    """
    listed = components(folder / INDEX, read_json(folder / INDEX))
    yield Need(INDEX, "found", (folder / INDEX).stat().st_size)
    for component in listed:
        if component.name not in supplied:
            yield from component_needs(folder / component.name, component, component.name + "/")


def component_needs(
    folder: Path, component: Component | None = None, prefix: str = ""
) -> Iterator[Need]:
    """What the folder of one component needs; paths begin with `prefix`."""
    names = _file_names(folder)
    if component is None:
        # Nobody says what it is: what has no config.json is a processor or tokenizer.
        alone = "config.json" not in names and any(n.endswith("_config.json") for n in names)
        component = Component(folder.name, "Processor" if alone else None)
    partial = sorted(n for n in names if n.endswith(".incomplete"))
    if partial:
        yield Need(prefix + partial[0], "broken", reason="its download is not finished")
    if not component.weighs:
        yield from _vocabulary(folder, component, names, prefix)
        return
    yield _small(folder, "config.json", names, prefix)
    weights = weight_files(names)
    if weights is not None and weights.is_index:
        yield _small(folder, weights.name, names, prefix)
        yield from _shards(folder, weights.name, prefix)
    elif weights is not None:
        yield _weights(folder / weights.name, prefix)
    else:
        others = sorted(n for n in names if PurePosixPath(n).suffix in PICKLES)
        variants = sorted(n for n in names if n.endswith(".safetensors"))
        if others:
            reason = f"only {others[0]} is there, a pickle, which is never opened"
        elif variants:
            reason = f"only {variants[0]} is there, which is another variant"
        else:
            reason = ""
        yield Need(prefix + "*.safetensors", "missing", reason=reason)


def _file_names(folder: Path) -> set[str]:
    """The names of a folder's files; none where there is no such folder."""
    try:
        with os.scandir(folder) as entries:  # knows without a look at each which ones are files
            return {entry.name for entry in entries if entry.is_file()}
    except (FileNotFoundError, NotADirectoryError):
        return set()


def file_need(file: Path) -> Need:
    """What is to be said of a single safetensors file."""
    if file.suffix in PICKLES:
        return Need(file.name, "broken", reason="a pickle, which is never opened")
    return _weights(file, "")


@dataclass(frozen=True)
class WeightFiles:
    """The weights in a folder: the index of their shards or their single file, and the variant.

    `shards` is what the names of the shards match.
    """

    name: str
    is_index: bool
    variant: str | None
    shards: re.Pattern[str]


def weight_files(names: Collection[str]) -> WeightFiles | None:
    """Of a folder's files those of its weights, in full precision where there are such."""
    for variant in _VARIANTS:
        dotted = f".{variant}" if variant else ""
        for is_index in (True, False):
            for stem in _STEMS:
                end = f".safetensors.index{dotted}.json" if is_index else f"{dotted}.safetensors"
                if stem + end in names:
                    shards = re.compile(re.escape(stem + dotted) + _SHARD)
                    return WeightFiles(stem + end, is_index, variant, shards)
    return None


def variant_in(folder: Path) -> str | None:
    """The variant of the weights in a component's folder, by its name at diffusers; mostly none."""
    found = weight_files({f.name for f in folder.iterdir()}) if folder.is_dir() else None
    return found.variant if found is not None else None


def select(
    names: Iterable[str], subfolder: str = "", wanted: Collection[Component] | None = None
) -> list[str]:
    """Of a repository's files, those that diffusers needs of a pipeline or of one component.

    `wanted` are the components of the pipeline whose index lies in `subfolder`; None selects the
    files of the component in `subfolder` itself. Small files come first.
    """
    files = [n for n in names if all(_SAFE.fullmatch(p) for p in n.split("/"))]
    if wanted is None:
        found = _of_folder(files, subfolder, weighs=True)
    else:
        found = [f for f in files if f == str(PurePosixPath(subfolder, INDEX))]
        for component in wanted:
            inside = str(PurePosixPath(subfolder, component.name))
            found += _of_folder(files, inside, component.weighs)
    return sorted(found, key=lambda name: name.endswith(".safetensors"))


def _of_folder(files: Iterable[str], folder: str, weighs: bool) -> list[str]:
    prefix = f"{folder}/" if folder not in ("", ".") else ""
    names = [f[len(prefix) :] for f in files if f.startswith(prefix)]
    names = [n for n in names if "/" not in n]
    small = [n for n in names if PurePosixPath(n).suffix in _SMALL and ".index." not in n]
    chosen: list[str] = []
    if weighs:
        weights = weight_files(names)
        if weights is not None:
            chosen = [weights.name]
        if weights is not None and weights.is_index:
            chosen += [n for n in names if weights.shards.fullmatch(n)]
    return [prefix + n for n in (*small, *chosen) if n != INDEX]


def _small(folder: Path, name: str, names: Collection[str], prefix: str) -> Need:
    if name not in names:
        return Need(prefix + name, "missing")
    try:
        read_json(folder / name)
    except ModelBroken as error:
        return Need(prefix + name, "broken", reason=error.cause)
    return Need(prefix + name, "found", (folder / name).stat().st_size)


def _vocabulary(
    folder: Path, component: Component, names: Collection[str], prefix: str
) -> Iterator[Need]:
    """A tokenizer, scheduler, processor or guider: configuration and vocabulary."""
    settings = sorted(n for n in names if n.endswith(".json"))
    if not settings:
        yield Need(prefix + "*.json", "missing")
        return
    for name in settings:
        yield Need(prefix + name, "found", (folder / name).stat().st_size)
    kind = component.class_name or ""
    if "Tokenizer" in kind and "tokenizer_config.json" not in names:
        yield Need(prefix + "tokenizer_config.json", "missing")
    # ByT5 reads bytes and so has no vocabulary.
    if "Tokenizer" in kind and "ByT5" not in kind and not set(_VOCABULARIES) & set(names):
        yield Need(prefix + _VOCABULARIES[0], "missing")


def _shards(folder: Path, index: str, prefix: str) -> Iterator[Need]:
    try:
        listed = read_json(folder / index).get("weight_map")
    except ModelBroken:
        return  # `_small` has said so
    names = list(listed.values()) if isinstance(listed, dict) else []
    shards = {n for n in names if isinstance(n, str)}
    if not shards or len(shards) != len(set(map(str, names))):
        yield Need(prefix + index, "broken", reason="it lists no files with weights")
    for name in sorted(shards):
        if not _SAFE.fullmatch(name) or not name.endswith(".safetensors"):
            reason = f"it lists {name[:60]!r}, which is no shard"
            yield Need(prefix + index, "broken", reason=reason)
        else:
            yield _weights(folder / name, prefix)


def _weights(file: Path, prefix: str) -> Need:
    if not file.is_file():
        return Need(prefix + file.name, "missing")
    try:
        read_header(file)
    except ModelBroken as error:
        return Need(prefix + file.name, "broken", reason=error.cause)
    return Need(prefix + file.name, "found", file.stat().st_size)
