"""What does a LoRA change, and does the model have that? Told from headers, before anything loads.

A LoRA holds a pair of thin matrices for each module that it changes. Trainers name the modules in
their own ways (``lora_names.yaml``); each name is brought to diffusers' and must be one of the
model's, with rows and columns that fit. So a LoRA of another family, or of another size of the same
one, is refused instead of being applied in part or not at all.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Literal

import yaml
from pydantic import BaseModel, ConfigDict

from kinoloom.errors import InvalidRequest, Problem
from kinoloom.weights.files import PICKLES, pickle, read_header

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of tensors by name."""
_Piece = Literal["down", "up", "alpha", "bias"]

_PIECES: tuple[tuple[re.Pattern[str], _Piece], ...] = (
    (re.compile(r"(\.lora_A(\.\w+)?|\.lora_down|[._]lora\.down)\.weight$"), "down"),
    (re.compile(r"(\.lora_B(\.\w+)?|\.lora_up|[._]lora\.up)\.weight$"), "up"),
    (re.compile(r"\.alpha$"), "alpha"),
    (re.compile(r"(\.lora_B(\.\w+)?\.bias|\.diff_b)$"), "bias"),
)
_OTHER_KINDS = re.compile(r"\.(hada_w\d_\w|lokr_w\d\w*|lora_mid\.weight|dora_scale|oft_\w+)$")
_WHOLE = re.compile(r"(\.diff|norm\w*\.diff_b)$")
"""Whole differences, mostly of zeros, that distilled LoRAs carry; diffusers leaves them out too."""


@dataclass(frozen=True)
class Change:
    """One change of a LoRA: the names of its tensors, and the modules of the model it is for.

    `down` [rank, in] and `up` [out, rank]; the rows of `up` belong to several `targets` one after
    the other where the LoRA was trained on a model in which these were one.
    """

    down: str
    up: str
    alpha: str | None
    bias: str | None
    targets: tuple[str, ...]


@dataclass(frozen=True)
class Match:
    """All changes of a LoRA, and the names of the tensors that are left out."""

    changes: tuple[Change, ...]
    ignored: tuple[str, ...]


class _Convention(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    rename: list[tuple[str, str]]
    split: list[list[str]] = []

    def targets(self, name: str) -> list[str]:
        """The modules that `name` may mean; both with underscores for dots."""
        for pattern, replacement in self.rename:
            name = re.sub(pattern, replacement, name)
        for pattern, *templates in self.split:
            if match := re.match(pattern, name):
                return [match.expand(t) for t in templates]
        return [name]


class _Names(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    prefixes: list[str]
    text: str
    conventions: list[_Convention]


def check_lora(path: Path, *places: Path) -> None:
    """Refuse a LoRA that does not belong to a model, whose weights lie in the folders `places`.

    Without places only the file itself is looked at. Raises ModelBroken for a pickle and for a
    damaged file, InvalidRequest for what is no LoRA, one of another kind or of another model.
    """
    if path.suffix.lower() in PICKLES:
        raise pickle(path)
    shapes = read_header(path).shapes
    if places:
        match(path.name, shapes, modules_of(*places))
    else:
        _pieces(path.name, shapes)


def modules_of(*folders: Path) -> dict[str, tuple[int, ...]]:
    """The modules of a model that have a matrix, with its shape [out, in, ...], from its files."""
    found: dict[str, tuple[int, ...]] = {}
    for folder in folders:
        for file in sorted(folder.glob("*.safetensors")):
            for name, shape in read_header(file).shapes.items():
                if name.endswith(".weight") and len(shape) > 1:
                    found[name.removesuffix(".weight")] = shape
    return found


def match(lora: str, shapes: Shapes, modules: Shapes) -> Match:
    """Which of a model's `modules` each change of a LoRA with these `shapes` is for.

    `lora` is the LoRA's name, for the error: InvalidRequest unless everything fits.
    """
    pieces, ignored = _pieces(lora, shapes)
    flat = {name.replace(".", "_"): name for name in modules}
    changes = []
    for stem, piece in pieces.items():
        targets = _targets(stem, flat)
        if targets is None:
            raise _refused(
                lora,
                f"{lora} belongs to another model: it changes {stem!r}, which this one lacks.",
            )
        down, up = shapes[piece["down"]], shapes[piece["up"]]
        wanted = sum(modules[t][0] for t in targets), modules[targets[0]][1]
        if (up[0], down[1]) != wanted or up[1] != down[0]:
            raise _refused(
                lora,
                f"{lora} belongs to another model, perhaps another size of this one: it changes"
                f" {stem!r} as {up[0]}x{down[1]}, which here is {wanted[0]}x{wanted[1]}.",
            )
        changes.append(
            Change(piece["down"], piece["up"], piece.get("alpha"), piece.get("bias"), targets)
        )
    return Match(tuple(changes), ignored)


def _pieces(lora: str, shapes: Shapes) -> tuple[dict[str, dict[_Piece, str]], tuple[str, ...]]:
    """The names of a LoRA's tensors by the name of what they change, and those left out."""
    names = _names()
    pieces: dict[str, dict[_Piece, str]] = {}
    ignored = []
    for name in shapes:
        if other := _OTHER_KINDS.search(name):
            kind = other.group(1).split("_")[0]
            raise _refused(lora, f"{lora} is of a kind that is not supported ({kind}).")
        found = next(((p.search(name), piece) for p, piece in _PIECES if p.search(name)), None)
        if re.match(names.text, name) or _WHOLE.search(name):
            ignored.append(name)
        elif found is None or found[0] is None:
            raise _refused(lora, f"{lora} is no LoRA: it holds {name!r}.")
        else:
            pieces.setdefault(name[: found[0].start()], {})[found[1]] = name
    for stem, piece in list(pieces.items()):
        if not {"down", "up"} & piece.keys():
            ignored += pieces.pop(stem).values()
            continue
        thin = [shapes[piece[p]] for p in ("down", "up") if p in piece]
        if len(thin) < 2 or any(len(shape) < 2 for shape in thin):
            raise _refused(lora, f"{lora} is incomplete: {stem!r} lacks one of its two matrices.")
    if not pieces:
        what = "it only changes a text encoder" if ignored else "it is empty"
        raise _refused(lora, f"{lora} changes nothing of the model: {what}.")
    return pieces, tuple(ignored)


def _targets(stem: str, flat: Mapping[str, str]) -> tuple[str, ...] | None:
    """The model's modules that a LoRA means by `stem`; `flat` are theirs by flattened name."""
    for name in _stripped(stem):
        plain = name.replace(".", "_")
        for candidate in ([plain], *(c.targets(plain) for c in _names().conventions)):
            if all(c in flat for c in candidate):
                return tuple(flat[c] for c in candidate)
    return None


def _stripped(stem: str) -> Iterator[str]:
    """The name, with and without each of the prefixes that stand before it."""
    yield stem
    for prefix in _names().prefixes:
        if stem.startswith(prefix):
            yield from _stripped(stem.removeprefix(prefix))
            return


def _refused(lora: str, message: str, hints: Sequence[str] = ()) -> InvalidRequest:
    return InvalidRequest(
        [Problem("loras", lora, "a LoRA in safetensors that was trained on this model")],
        message=message,
        hints=hints or ["choose a LoRA of this model, or the model that it was trained on"],
    )


@cache
def _names() -> _Names:
    text = (resources.files("kinoloom.weights") / "lora_names.yaml").read_text(encoding="utf-8")
    return _Names.model_validate(yaml.safe_load(text))
