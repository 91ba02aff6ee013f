"""Where does a ComfyUI tree keep its models?

ComfyUI's own folder ``models`` counts, and every section of its ``extra_model_paths.yaml``: keys
are kinds of model, values one or several folders, relative to the section's ``base_path``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from kinoloom.errors import InvalidRequest, Problem

FILE_NAME = "extra_model_paths.yaml"
MAX_BYTES = 256 * 1024
_MAX_FOLDERS = 500
_MAX_ENTRIES = 50_000  # looked at in one search for a file
# ComfyUI renamed these; the old words still stand in people's files.
_RENAMED = {"unet": "diffusion_models", "clip": "text_encoders"}
_KINDS = (
    "checkpoints",
    "diffusion_models",
    "unet",
    "text_encoders",
    "clip",
    "clip_vision",
    "vae",
    "loras",
    "diffusers",
    "ipadapter",
    "animatediff_models",
    "animatediff_motion_lora",
)
# Names that every model uses say nothing about which one it is.
_ANYBODYS = frozenset({"diffusion_pytorch_model.safetensors", "model.safetensors"})


@dataclass(frozen=True)
class Comfy:
    """The folders of a ComfyUI tree, by kind of model, in the order in which they are searched."""

    folders: dict[str, list[Path]] = field(default_factory=dict)

    def find(self, name: str, *kinds: str) -> Path | None:
        """The file of that name (or path) among these kinds, or anywhere; None if there is none."""
        wanted = [_RENAMED.get(k, k) for k in kinds] or list(self.folders)
        if name in _ANYBODYS:
            return None
        places = [f for kind in wanted for f in self.folders.get(kind, [])]
        for folder in places:
            if (folder / name).is_file():
                return folder / name
        for folder in places:
            for file in _files(folder):
                if file.name == name:
                    return file
        return None


def read(place: Path | None) -> Comfy:
    """The tree at a ComfyUI folder or at an ``extra_model_paths.yaml``; empty for None.

    Raises InvalidRequest when nothing is there or the file is not what it should be.
    """
    if place is None:
        return Comfy()
    found: dict[str, list[Path]] = {}
    if place.is_dir():
        for kind in _KINDS:
            _add(found, kind, place / "models" / kind)
        file = place / FILE_NAME
        if not file.is_file():
            return Comfy(found)
    else:
        file = place
    for section in _sections(file):
        base = section.pop("base_path", None)
        first = section.pop("is_default", False) is True
        base = file.parent / _expanded(base) if isinstance(base, str) else file.parent
        for kind, value in section.items():
            for line in reversed(_lines(value)) if first else _lines(value):
                _add(found, str(kind), base / _expanded(line), first=first)
    return Comfy(found)


def _add(found: dict[str, list[Path]], kind: str, folder: Path, *, first: bool = False) -> None:
    known = found.setdefault(_RENAMED.get(kind, kind), [])
    if folder not in known and sum(map(len, found.values())) < _MAX_FOLDERS:
        known.insert(0 if first else len(known), folder)


def _lines(value: Any) -> list[str]:
    return [v.strip() for v in value.splitlines() if v.strip()] if isinstance(value, str) else []


def _sections(file: Path) -> list[dict[Any, Any]]:
    try:
        with file.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise _unusable(file, error.strerror or str(error)) from error
    if len(raw) > MAX_BYTES:
        raise _unusable(file, f"larger than {MAX_BYTES // 1024} kB")
    if b"&" in raw and any(isinstance(e, yaml.AliasEvent) for e in _events(file, raw)):
        raise _unusable(file, "it uses aliases (*name), which can grow without bound")
    try:
        data = yaml.safe_load(raw)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unusable(file, "not YAML") from error
    if data is None:
        return []
    if not isinstance(data, dict):
        raise _unusable(file, "no sections")
    return [s for s in data.values() if isinstance(s, dict)]


def _events(file: Path, raw: bytes) -> Iterator[yaml.Event]:
    try:
        yield from yaml.parse(raw, Loader=yaml.SafeLoader)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise _unusable(file, "not YAML") from error


def _files(folder: Path) -> Iterator[Path]:
    seen = 0
    for place, _, names in os.walk(folder):
        for name in sorted(names):
            seen += 1
            if seen > _MAX_ENTRIES:
                return
            yield Path(place, name)


def _expanded(text: str) -> Path:
    text = os.path.expandvars(text)
    return Path(text).expanduser() if "\0" not in text else Path("\N{SYMBOL FOR NULL}")


def _unusable(file: Path, reason: str) -> InvalidRequest:
    return InvalidRequest(
        [Problem("comfyui", str(file), f"a ComfyUI folder or its {FILE_NAME} ({reason})")],
        message=f"The setting `comfyui` cannot be used: {file}.",
        hints=["Correct or remove `comfyui` in kinoloom.yaml (or KINOLOOM_COMFYUI)."],
    )
