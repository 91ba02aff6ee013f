"""How is a graph of ComfyUI's nodes put together so that the server will take it?

A graph in API format is a mapping of ids to nodes, each with its class and its inputs; an input is
a value, or ``[id, slot]`` for what another node puts out. `Graph` writes that, and holds every node
against what the server declares: an input that is not there is not sent, one that a newer server
wants beside ours gets the server's own default, and a value that the server would refuse is an
error here, in words. What a node puts out is a `Link` of a kind of its own, so that a checker of
types sees a latent given where a picture belongs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from kinoloom.backends.base import Take
from kinoloom.backends.comfyui.object_info import Declared, NodeClass, ObjectInfo
from kinoloom.catalog.card import ModelCard, Pipeline
from kinoloom.errors import InvalidMedia, InvalidRequest, ModelNotFound, Problem


@dataclass(frozen=True)
class Link:
    """What a node puts out in one of its slots; `type` is ComfyUI's name of it."""

    node: str
    slot: int
    type: ClassVar[str] = "*"


class Model(Link):
    """A model that removes noise, with what was put on top of it."""

    type = "MODEL"


class Clip(Link):
    """A text encoder."""

    type = "CLIP"


class Vae(Link):
    """What turns pictures into latents and back."""

    type = "VAE"


class ClipVision(Link):
    """An encoder of pictures."""

    type = "CLIP_VISION"


class Seen(Link):
    """A picture as an encoder of pictures describes it."""

    type = "CLIP_VISION_OUTPUT"


class Conditioning(Link):
    """What the model is told to show, or not to show."""

    type = "CONDITIONING"


class Latent(Link):
    """The frames as the model works on them."""

    type = "LATENT"


class Images(Link):
    """Pictures: one, or a clip's frames."""

    type = "IMAGE"


class Video(Link):
    """Frames with a rate."""

    type = "VIDEO"


class MotionModel(Link):
    """AnimateDiff's motion module."""

    type = "MOTION_MODEL_ADE"


class MotionModels(Link):
    """Motion modules as they are applied."""

    type = "M_MODELS"


class MotionLora(Link):
    """LoRAs of a motion module."""

    type = "MOTION_LORA"


class ContextOptions(Link):
    """How a long clip is divided into windows."""

    type = "CONTEXT_OPTIONS"


Input = str | int | float | bool | Link | None
"""What a node is given; None is left out."""

_L = TypeVar("_L", bound=Link)


class Node:
    """A node of a graph."""

    def __init__(self, name: str, class_type: str, declared: NodeClass) -> None:
        self._name, self._class, self._declared = name, class_type, declared

    def out(self, kind: type[_L], slot: int = 0) -> _L:
        """What it puts out in a slot. Raises ModelNotFound when the server's node differs."""
        outputs = self._declared.outputs
        if slot >= len(outputs) or outputs[slot] not in (kind.type, "*"):
            raise _unlike(self._class, f"Its output {slot} is no {kind.type}.")
        return kind(self._name, slot)


class Graph:
    """A graph for one server, in which nodes are numbered as they come."""

    def __init__(self, info: ObjectInfo) -> None:
        self.info = info
        self._nodes: dict[str, dict[str, Any]] = {}

    def node(self, class_type: str, /, **inputs: Input) -> Node:
        """Add a node. What is None is left out.

        Raises ModelNotFound when the server has no such node, or one of that name with other
        inputs; InvalidRequest for a number that it does not allow.
        """
        declared = self.info.node(class_type)
        if declared is None:
            raise ModelNotFound(
                f"The ComfyUI server has no node {class_type}.",
                hints=["Update ComfyUI and its custom nodes."],
            )
        given = {name: value for name, value in inputs.items() if value is not None}
        known = dict(_open(declared.inputs, given))
        foreign = sorted(given.keys() - known.keys())
        if foreign:
            raise _unlike(class_type, f"It has no input {', '.join(foreign)}.")
        settled: dict[str, Any] = {}
        for name, entry in known.items():
            if name in given:
                settled[name] = _allowed(class_type, name, given[name], entry)
            elif entry.required:
                settled[name] = _default(class_type, name, entry)
        number = str(len(self._nodes) + 1)
        self._nodes[number] = {"class_type": class_type, "inputs": settled}
        return Node(number, class_type, declared)

    def api(self) -> dict[str, Any]:
        """The graph in API format."""
        return {
            number: {"class_type": node["class_type"], "inputs": dict(node["inputs"])}
            for number, node in self._nodes.items()
        }


@dataclass(frozen=True)
class Brief:
    """What a graph is built of: the take, the card, how its task is called, and the server's names
    of the card's files by role and of the uploaded pictures by input."""

    take: Take
    card: ModelCard
    pipeline: Pipeline
    files: Mapping[str, str]
    uploads: Mapping[str, str] = field(default_factory=dict)

    @property
    def shift(self) -> float | None:
        """How far the steps are shifted to much noise; None: as the weights have it."""
        return self.take.shift if self.take.shift is not None else self.card.shift

    def argument(self, name: str, default: float) -> float:
        """A number of the card's, fixed for the task."""
        value = self.pipeline.arguments.get(name, default)
        return value if isinstance(value, int | float) else default

    def setting(self, name: str, default: str) -> str:
        """A word of the card's `remote.settings`."""
        value = self.card.remote.settings.get(name) if self.card.remote else None
        return value if isinstance(value, str) else default

    def picture(self, name: str) -> str:
        """The server's name of an uploaded picture. Raises InvalidMedia without one."""
        if name not in self.uploads:
            raise InvalidMedia(f"{self.card.id} needs the picture {name}, which was not uploaded.")
        return self.uploads[name]


def _open(
    declared: Mapping[str, Declared], given: Mapping[str, Input], prefix: str = ""
) -> Iterator[tuple[str, Declared]]:
    """The inputs that there are when these are given: a choice may bring more."""
    for name, entry in declared.items():
        yield prefix + name, entry
        choice = given.get(prefix + name)
        if isinstance(choice, str) and choice in entry.chosen:
            yield from _open(entry.chosen[choice], given, f"{prefix}{name}.")


def _allowed(class_type: str, name: str, value: Input, entry: Declared) -> object:
    if isinstance(value, Link):
        return [value.node, value.slot]
    if isinstance(value, str) and entry.choices and not entry.uploaded:
        if value not in entry.choices:
            raise _unlike(class_type, f"Its {name} does not offer {value!r}.")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        low = value if entry.minimum is None else entry.minimum
        high = value if entry.maximum is None else entry.maximum
        if not low <= value <= high:
            nearest = min(max(value, low), high)
            raise InvalidRequest(
                [Problem(f"{class_type}.{name}", value, f"{low:g} to {high:g}", nearest)],
                message="The ComfyUI server does not allow a number that is asked for.",
            )
    return value


def _default(class_type: str, name: str, entry: Declared) -> object:
    if entry.default is not None:
        return entry.default
    if entry.choices:
        return entry.choices[0]
    raise _unlike(class_type, f"It also wants {name}.")


def _unlike(class_type: str, how: str) -> ModelNotFound:
    return ModelNotFound(
        f"The ComfyUI server's node {class_type} is not the one that Kinoloom knows.",
        cause=how,
        hints=["Update ComfyUI and its custom nodes, and Kinoloom."],
    )
