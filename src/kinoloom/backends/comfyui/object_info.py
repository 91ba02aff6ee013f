"""Which nodes, inputs and model files does a ComfyUI server have, and what does a model lack there?

``GET /object_info`` answers with every class of node. What it says comes from another machine and
from whoever wrote the nodes, so only what has the form that is expected is kept; the rest is left
out as if it were not there. An input is declared as ``[TYPE, {...}]``. One with a list to choose
from is ``[["a", "b"], {...}]`` in the old notation, ``["COMBO", {"options": ["a", "b"]}]`` in the
new one, and ``["COMFY_DYNAMICCOMBO_V3", {"options": [{"key": "a", "inputs": {...}}]}]`` where each
choice brings inputs of its own, which are called ``name.input`` in a graph.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from kinoloom.catalog.card import ModelCard
from kinoloom.errors import ModelNotFound
from kinoloom.request import Task

MAX_NODES = 20_000
MAX_INPUTS = 300
MAX_CHOICES = 50_000
MAX_NAME = 1000
MAX_DEPTH = 4
"""Far above what a server with every known custom node has; more is no honest answer."""

DYNAMIC = "COMFY_DYNAMICCOMBO_V3"


@dataclass(frozen=True)
class Declared:
    """An input of a node as the server declares it.

    `type` is the server's word, ``COMBO`` for every list to choose from. `choices` are the texts
    of that list; `chosen` are the further inputs that a choice brings, by choice. `uploaded` says
    that a file may be named that was uploaded after the server was asked.
    """

    type: str
    required: bool
    choices: tuple[str, ...] = ()
    chosen: Mapping[str, Mapping[str, Declared]] = field(default_factory=dict)
    default: str | int | float | bool | None = None
    minimum: float | None = None
    maximum: float | None = None
    uploaded: bool = False


@dataclass(frozen=True)
class NodeClass:
    """A class of nodes: its inputs by name, the types of its outputs, and whether it saves."""

    inputs: Mapping[str, Declared]
    outputs: tuple[str, ...]
    saves: bool


class ObjectInfo:
    """What a server says of its nodes. Nothing in it is trusted; see `of`."""

    def __init__(self, nodes: Mapping[str, NodeClass]) -> None:
        self._nodes = dict(nodes)

    @classmethod
    def of(cls, data: Mapping[str, Any]) -> ObjectInfo:
        """What an answer of ``/object_info`` says; entries of another form are left out."""
        nodes: dict[str, NodeClass] = {}
        if isinstance(data, Mapping):
            for name, entry in list(data.items())[:MAX_NODES]:
                if _name(name) and isinstance(entry, Mapping):
                    nodes[name] = NodeClass(
                        inputs=_inputs(entry.get("input"), 0),
                        outputs=_outputs(entry.get("output")),
                        saves=entry.get("output_node") is True,
                    )
        return cls(nodes)

    def has(self, node: str) -> bool:
        """Whether the server has a class of nodes."""
        return node in self._nodes

    def node(self, node: str) -> NodeClass | None:
        """What is known of a class of nodes."""
        return self._nodes.get(node)

    def inputs(self, node: str) -> set[str]:
        """The names of a class's inputs; empty for an unknown class."""
        found = self._nodes.get(node)
        return set(found.inputs) if found else set()

    def choices(self, node: str, name: str) -> tuple[str, ...]:
        """The texts that an input lets one choose from; none where it is not such an input."""
        found = self._nodes.get(node)
        declared = found.inputs.get(name) if found else None
        return declared.choices if declared else ()

    def __len__(self) -> int:
        return len(self._nodes)


def _inputs(data: object, depth: int) -> dict[str, Declared]:
    found: dict[str, Declared] = {}
    if not isinstance(data, Mapping) or depth > MAX_DEPTH:
        return found
    for section in ("required", "optional"):
        entries = data.get(section)
        if not isinstance(entries, Mapping):
            continue
        for name, entry in list(entries.items())[:MAX_INPUTS]:
            declared = _declared(entry, section == "required", depth)
            if _name(name) and declared is not None:
                found[name] = declared
    return found


def _declared(entry: object, required: bool, depth: int) -> Declared | None:
    if not isinstance(entry, list | tuple) or not entry:
        return None
    kind = entry[0]
    more = entry[1] if len(entry) > 1 and isinstance(entry[1], Mapping) else {}
    chosen: dict[str, Mapping[str, Declared]] = {}
    choices: tuple[str, ...] = ()
    if isinstance(kind, list | tuple):
        choices, kind = _texts(kind), "COMBO"
    elif not _name(kind):
        return None
    elif kind == "COMBO":
        choices = _texts(more.get("options"))
    elif kind == DYNAMIC:
        chosen = _chosen(more.get("options"), depth)
        choices, kind = tuple(chosen), "COMBO"
    default = more.get("default")
    return Declared(
        type=kind,
        required=required,
        choices=choices,
        chosen=chosen,
        default=default if isinstance(default, str | int | float) else None,
        minimum=_number(more.get("min")),
        maximum=_number(more.get("max")),
        uploaded=any(more.get(key) is True for key in _UPLOADS),
    )


_UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload")


def _chosen(options: object, depth: int) -> dict[str, Mapping[str, Declared]]:
    found: dict[str, Mapping[str, Declared]] = {}
    for option in options[:MAX_INPUTS] if isinstance(options, list) else ():
        if isinstance(option, Mapping) and _name(option.get("key")):
            found[option["key"]] = _inputs(option.get("inputs"), depth + 1)
    return found


def _outputs(data: object) -> tuple[str, ...]:
    # An output may be a list to choose from, as an input may.
    return tuple(
        kind if isinstance(kind, str) else "COMBO"
        for kind in (data[:MAX_INPUTS] if isinstance(data, list | tuple) else ())
    )


def _texts(data: object) -> tuple[str, ...]:
    entries = data[:MAX_CHOICES] if isinstance(data, list | tuple) else ()
    return tuple(entry for entry in entries if _name(entry))


def _name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME


def _number(value: object) -> float | None:
    fine = isinstance(value, int | float) and not isinstance(value, bool)
    return value if fine else None  # type: ignore[return-value]


@dataclass(frozen=True)
class Role:
    """What a file is for: the node and the input that load it, and its folder below ``models``."""

    node: str
    input: str
    folder: str = ""


ROLES: Mapping[str, Role] = {
    "checkpoint": Role("CheckpointLoaderSimple", "ckpt_name", "checkpoints"),
    "image_checkpoint": Role("ImageOnlyCheckpointLoader", "ckpt_name", "checkpoints"),
    "motion_model": Role("ADE_LoadAnimateDiffModel", "model_name", "animatediff_models"),
    "motion_lora": Role("ADE_AnimateDiffLoRALoader", "name", "animatediff_motion_lora"),
    "diffusion_model": Role("UNETLoader", "unet_name", "diffusion_models"),
    "high_noise": Role("UNETLoader", "unet_name", "diffusion_models"),
    "low_noise": Role("UNETLoader", "unet_name", "diffusion_models"),
    "high_noise_lora": Role("LoraLoaderModelOnly", "lora_name", "loras"),
    "low_noise_lora": Role("LoraLoaderModelOnly", "lora_name", "loras"),
    "text_encoder": Role("CLIPLoader", "clip_name", "text_encoders"),
    "text_encoder_1": Role("DualCLIPLoader", "clip_name1", "text_encoders"),
    "text_encoder_2": Role("DualCLIPLoader", "clip_name2", "text_encoders"),
    "vae": Role("VAELoader", "vae_name", "vae"),
    "clip_vision": Role("CLIPVisionLoader", "clip_name", "clip_vision"),
}
"""What a card's `remote.files` may name. A user's own workflow says the place instead: the id of
the node, its class and the input, as in ``37 UNETLoader.unet_name``."""

_FOLDERS = {(role.node, role.input): role.folder for role in ROLES.values()}
_PLACE = re.compile(r"\S+ (?P<node>[^.]+)\.(?P<input>.+)")


def role_of(name: str) -> Role | None:
    """The role of a name in `remote.files`; None for one that means nothing here."""
    place = _PLACE.fullmatch(name)
    if name in ROLES or place is None:
        return ROLES.get(name)
    node, given = place["node"], place["input"]
    return Role(node, given, _FOLDERS.get((node, given), ""))


@dataclass(frozen=True)
class Missing:
    """What a server lacks: the class of a node, or a file for a role.

    `name` is the class or the role; `wanted` are what brings the class, or the names of files that
    will do, the best first; `folder` is where the file belongs.
    """

    what: Literal["node", "file"]
    name: str
    wanted: tuple[str, ...]
    folder: str = ""

    def __str__(self) -> str:
        if self.what == "node":
            return f"the node {self.name}"
        return f"a file for {self.name}: {' or '.join(self.wanted)}"

    @property
    def hint(self) -> str:
        """What to do about it."""
        if self.what == "node":
            return f"For the node {self.name}: {' or '.join(self.wanted)}."
        place = f"models/{self.folder}" if self.folder else "its folder"
        return f"Put {self.wanted[0]} into {place} on the server."


VIDEO_NODES = ("SaveVideo", "VHS_VideoCombine", "SaveWEBM")
"""The nodes that save a video; one of them is enough."""


def missing(card: ModelCard, info: ObjectInfo, task: Task | None = None) -> tuple[Missing, ...]:
    """The nodes and files that a card needs and a server lacks, for one task or for all of them."""
    needed = dict.fromkeys(card.remote.nodes if card.remote else ())
    tasks = card.tasks if task is None else (task,)
    own_graph = any(card.pipelines[t].class_name == "workflow" for t in tasks)
    if not own_graph and any(card.pipelines[t].inputs for t in tasks):
        needed["LoadImage"] = None
    lacks = [Missing("node", node, _brought_by(node)) for node in needed if not info.has(node)]
    if not own_graph and not any(info.has(node) for node in VIDEO_NODES):
        lacks.append(Missing("node", "SaveVideo", _brought_by("SaveVideo")))
    absent = {lack.name for lack in lacks}
    for name, (found, role) in _files(card, info).items():
        if found is None and role is not None and role.node in absent:
            continue  # without the node nobody knows which files there are
        if found is None:
            wanted = tuple(card.remote.files[name]) if card.remote else ()
            lacks.append(Missing("file", name, wanted, role.folder if role else ""))
    return tuple(lacks)


def chosen_files(card: ModelCard, info: ObjectInfo) -> dict[str, str]:
    """The server's names of the card's files by role; a role without one is left out.

    A file counts wherever it lies below its folder, also where the server writes backslashes.
    """
    return {name: found for name, (found, _) in _files(card, info).items() if found is not None}


def find_file(wanted: str, there: Iterable[str]) -> str | None:
    """The server's name of a file, in its folder itself or below it; None where it has none."""
    names = tuple(there)
    if wanted in names:
        return wanted
    return next((name for name in names if file_name(name) == file_name(wanted)), None)


def file_name(path: str) -> str:
    """The last part of a path with slashes or backslashes, in lower case."""
    return path.replace("\\", "/").rpartition("/")[2].lower()


def _files(card: ModelCard, info: ObjectInfo) -> dict[str, tuple[str | None, Role | None]]:
    found: dict[str, tuple[str | None, Role | None]] = {}
    for name, wanted in (card.remote.files if card.remote else {}).items():
        role = role_of(name)
        there = info.choices(role.node, role.input) if role else ()
        names = (find_file(each, there) for each in wanted)
        found[name] = (next((n for n in names if n is not None), None), role)
    return found


def _brought_by(node: str) -> tuple[str, ...]:
    packages = {"ADE_": "ComfyUI-AnimateDiff-Evolved", "VHS_": "ComfyUI-VideoHelperSuite"}
    for prefix, package in packages.items():
        if node.startswith(prefix):
            return (f"install {package}",)
    if node == "SaveVideo":
        return ("update ComfyUI", "install ComfyUI-VideoHelperSuite")
    return ("update ComfyUI", "install the custom nodes that have it")


def lacking(card: ModelCard, lacks: Iterable[Missing]) -> ModelNotFound:
    """The error of a server that has not got all that a card needs."""
    found = tuple(lacks)
    return ModelNotFound(
        f"The ComfyUI server cannot run {card.id}.",
        cause="It lacks " + "; ".join(str(lack) for lack in found) + ".",
        hints=list(dict.fromkeys(lack.hint for lack in found)),
        details={
            "missing": [
                {"what": x.what, "name": x.name, "wanted": list(x.wanted), "folder": x.folder}
                for x in found
            ]
        },
    )
