"""How does a workflow of the user's own become a model?

In the folder of the settings, ``NAME.json`` is a graph as ComfyUI exports it in API format, and
``NAME.yaml`` beside it says which inputs of its nodes carry what a request asks for::

    title: My look
    inputs:
      prompt: 6.text
      seed: [3.seed, 12.noise_seed]
      width: 5.width
      height: 5.height
      frames: 5.length
    sizes: {multiple_of: 16, minimum: 256, maximum: 1280, native: [[832, 480]], default: [832, 480]}
    frames: {multiple: 4, offset: 1, minimum: 17, maximum: 81, default: 81}
    fps: 16

What is not bound stays as it is in the graph and cannot be asked for. A rule (sizes, frames, fps,
steps, guidance) is written as in a model card, or as one value that is fixed; without one the
value in the graph holds. A graph is not trusted: it is bounded, it names no file outside the
server's own folders, and a file that it loads must be in the list that the server offers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from kinoloom.backends.base import Order
from kinoloom.backends.comfyui.object_info import Declared, ObjectInfo, chosen_files, find_file
from kinoloom.backends.comfyui.workflow_file import Graph, is_link, read_graph, target
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.reading import CatalogProblems, read_mapping
from kinoloom.errors import InvalidMedia, InvalidRequest, Problem, nearest_names
from kinoloom.request import Task
from kinoloom.request_checks import MAX_STEPS

CLASS = "workflow"
"""The class of the pipelines of such cards."""

TEXTS = ("prompt", "negative")
PICTURES = ("image", "last_image")
NUMBERS = ("seed", "width", "height", "frames", "fps", "steps", "guidance")
NAMES = (*TEXTS, *PICTURES, *NUMBERS)
"""What an input of a node may be bound to."""

_FIELDS = (
    "id", "title", "family", "summary", "licence", "price", "standing", "same_as", "notes",
    "suggests",
)  # fmt: skip
_RULES = ("sizes", "frames", "fps", "steps", "guidance")
_SETTINGS = ("output", "vram_gib")
"""The node whose file is the video, and the memory that the workflow wants, in GiB."""
_RATES = {"CreateVideo": "fps", "VHS_VideoCombine": "frame_rate", "SaveWEBM": "fps"}
_WEIGHTS = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".gguf", ".onnx")


def prefix(order: Order) -> str:
    """How the names of the files begin that an order's graph saves."""
    return f"kinoloom/{order.key}"


def cards(folder: Path) -> list[ModelCard]:
    """The workflows in a folder as models, by name; those with mistakes are left out."""
    return [found for found in _all(folder) if isinstance(found, ModelCard)]


def problems(folder: Path) -> list[InvalidRequest]:
    """What is wrong with the workflows that `cards` leaves out, an error for each file."""
    return [found for found in _all(folder) if isinstance(found, InvalidRequest)]


def fill(
    order: Order, card: ModelCard, info: ObjectInfo, uploads: Mapping[str, str]
) -> dict[str, Any]:
    """A workflow's graph with an order's values in it, for a server that answered `info`.

    Raises InvalidRequest when the file has changed so that the card no longer fits, when it names
    a file or a choice that the server does not offer, and when it saves nothing.
    """
    settings = card.remote.settings if card.remote else {}
    path = Path(str(settings.get("workflow", "")))
    graph, mistakes = read_graph(path)
    if mistakes:
        raise _broken(path, mistakes)
    for role, file in chosen_files(card, info).items():
        node, _, rest = role.partition(" ")
        name = rest.partition(".")[2]
        if name in graph.get(node, {}).get("inputs", {}):
            graph[node]["inputs"][name] = file
    values = _values(order, uploads)
    for name in NAMES:
        bound = settings.get(f"input.{name}", [])
        for place in bound if isinstance(bound, list) else [bound]:
            node, given = target(str(place))
            if node not in graph or given not in graph[node]["inputs"]:
                problem = Problem(f"inputs.{name}", place, f"an input of a node in {path.name}")
                raise _broken(path, [problem])
            declared = info.node(graph[node]["class_type"])
            entry = declared.inputs.get(given) if declared else None
            graph[node]["inputs"][given] = _fitting(name, values[name], entry)
    _check(path, graph, info, set(uploads.values()))
    _save_as(path, graph, info, prefix(order))
    return dict(graph)


# --- reading ----------------------------------------------------------------------------------


def _all(folder: Path) -> Iterator[ModelCard | InvalidRequest]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        problem = Problem("workflows", str(folder), "a folder that can be read")
        yield InvalidRequest(
            [problem], message=f"No workflows can be read in {folder}: {error.strerror}."
        )
        return
    described = {f.stem for f in entries if f.suffix in (".yaml", ".yml")}
    seen: dict[str, Path] = {}
    for file in entries:
        if file.suffix == ".json" and file.stem not in described:
            wanted = f"a file {file.stem}.yaml that says what is bound to what"
            yield _broken(file, [Problem("beside it", None, wanted)])
        elif file.suffix in (".yaml", ".yml"):
            found = _one(file)
            if isinstance(found, ModelCard) and found.id in seen:
                taken = Problem("id", found.id, f"one that {seen[found.id].name} does not have")
                found = _broken(file, [taken])
            elif isinstance(found, ModelCard):
                seen[found.id] = file
            yield found


def _one(file: Path) -> ModelCard | InvalidRequest:
    try:
        fields = read_mapping(file)
    except CatalogProblems as error:
        return InvalidRequest([], message=f"The workflow {file.name} cannot be read: {error.cause}")
    graph, mistakes = read_graph(file.with_suffix(".json"))
    if mistakes:
        return _broken(file.with_suffix(".json"), mistakes)
    bound, mistakes = _bindings(fields.get("inputs"), graph)
    known = ("inputs", *_FIELDS, *_RULES, *_SETTINGS)
    for name in sorted(fields.keys() - set(known), key=str):
        near = nearest_names(str(name), known, count=1)
        mistakes.append(Problem(str(name), fields[name], "no field", near[0] if near else None))
    if str(fields.get("output", next(iter(graph)))) not in graph:
        mistakes.append(Problem("output", fields["output"], "the id of a node in the graph"))
    rules = _rules(fields, bound, graph, mistakes)
    if mistakes:
        return _broken(file, mistakes)
    try:
        return ModelCard.model_validate(_card(file, fields, bound, graph) | rules)
    except ValidationError as error:
        wrong = error.errors(include_url=False, include_input=False, include_context=False)
        return _broken(
            file,
            [Problem(".".join(map(str, e["loc"])) or "card", None, e["msg"]) for e in wrong],
        )


def _bindings(data: object, graph: Graph) -> tuple[dict[str, list[str]], list[Problem]]:
    """The places that each name is bound to."""
    bound: dict[str, list[str]] = {}
    if not isinstance(data, dict) or not data:
        shown = "such as {prompt: 6.text, seed: 3.seed}"
        return bound, [Problem("inputs", None, f"what is bound to which node's input, {shown}")]
    mistakes: list[Problem] = []
    for name, given in data.items():
        if name not in NAMES:
            near = nearest_names(str(name), NAMES, count=1)
            allowed = f"one of {', '.join(NAMES)}"
            mistakes.append(Problem("inputs", name, allowed, near[0] if near else None))
            continue
        places = [str(x) for x in given] if isinstance(given, list) else [str(given)]
        if not places:
            mistakes.append(Problem(f"inputs.{name}", given, "NODE.INPUT, or a list of such"))
            continue
        wrong = [m for place in places if (m := _unbindable(name, place, graph))]
        mistakes += wrong
        bound[name] = places
    if "last_image" in bound and "image" not in bound:
        mistakes.append(Problem("inputs.image", None, "bound where last_image is"))
    if ("width" in bound) != ("height" in bound):
        mistakes.append(Problem("inputs", None, "both width and height, or neither"))
    if not {"prompt", "image"} & bound.keys():
        mistakes.append(Problem("inputs", None, "at least prompt or image"))
    return bound, mistakes


def _unbindable(name: str, place: str, graph: Graph) -> Problem | None:
    node, given = target(place)
    field = f"inputs.{name}"
    if node not in graph:
        near = nearest_names(node, graph, count=1)
        allowed = "NODE.INPUT with the id of a node in the graph"
        return Problem(field, place, allowed, f"{near[0]}.{given}" if near else None)
    inputs = graph[node]["inputs"]
    if given not in inputs:
        near = nearest_names(given, inputs, count=1)
        allowed = f"{node}. and one of {', '.join(inputs) or 'nothing: it has no inputs'}"
        return Problem(field, place, allowed, f"{node}.{near[0]}" if near else None)
    value = inputs[given]
    if is_link(value):
        return Problem(field, place, f"an input with a value; node {value[0]} gives this one")
    text = name in (*TEXTS, *PICTURES)
    if isinstance(value, bool) or not isinstance(value, str if text else int | float):
        return Problem(field, place, f"an input that is {'a text' if text else 'a number'} there")
    return None


# --- the card ---------------------------------------------------------------------------------


def _card(
    file: Path, fields: Mapping[str, Any], bound: Mapping[str, list[str]], graph: Graph
) -> dict[str, Any]:
    """The fields of a card, but for its rules."""
    stem = re.sub(r"[^a-z0-9._-]+", "-", file.stem.lower()).strip("-._") or "workflow"
    task: Task = "flf2v" if "last_image" in bound else "i2v" if "image" in bound else "t2v"
    inputs = {name: bound[name][0] for name in PICTURES if name in bound}
    given = fields.get("notes") or []
    notes = [*given] if isinstance(given, list) else [given]
    if "seed" not in bound:
        notes.append("No seed is bound, so the same words make the same clip.")
    if "prompt" not in bound:
        notes.append("No prompt is bound, so the words of a request are not used.")
    path = file.with_suffix(".json").absolute()
    defaults: dict[str, Any] = {
        "id": f"comfyui-{stem}",
        "title": file.stem,
        "family": "workflow",
        "summary": f"Your own ComfyUI workflow {path.name}.",
        # Nobody but the user knows which models it loads.
        "licence": {"id": "that of the models in it", "url": "https://docs.comfy.org"},
        "price": "free",
    }
    return (
        defaults
        | {name: fields[name] for name in _FIELDS if name in fields}
        | {
            "backend": "comfyui",
            "source": {"service": path.name},
            "pipelines": {task: {"class": CLASS, "inputs": inputs}},
            "negative": "negative" in bound,
            "notes": notes,
            "remote": {
                "files": _loaded(graph),
                "nodes": list(dict.fromkeys(node["class_type"] for node in graph.values())),
                "settings": {
                    "workflow": str(path),
                    **{f"input.{name}": places for name, places in bound.items()},
                    **{name: fields[name] for name in _SETTINGS if name in fields},
                },
            },
        }
    )


def _loaded(graph: Graph) -> dict[str, list[str]]:
    """The files of weights that a graph names, by node, class and input."""
    return {
        f"{node} {entry['class_type']}.{name}": [value]
        for node, entry in graph.items()
        for name, value in entry["inputs"].items()
        if isinstance(value, str) and value.lower().endswith(_WEIGHTS) and " " not in node
    }


def _rules(
    fields: Mapping[str, Any],
    bound: Mapping[str, list[str]],
    graph: Graph,
    mistakes: list[Problem],
) -> dict[str, Any]:
    """The rules of a card: as written, else what the graph has."""
    rules: dict[str, Any] = {}
    for name in _RULES:
        free = name in bound or (name == "sizes" and "width" in bound)
        written = fields.get(name)
        there = _there(name, bound, graph)
        if isinstance(written, dict):
            rules[name] = written
            if not free:
                mistakes.append(Problem(name, "a rule", f"one value, for {name} is not bound"))
        elif written is not None:
            rules[name] = _fixed(name, written)
        elif there is not None:
            ranged = name in ("steps", "guidance") and free
            rules[name] = _ranged(name, there) if ranged else _fixed(name, there)
        elif name in ("sizes", "frames", "fps"):
            shown = {"sizes": "[832, 480]", "frames": "81", "fps": "16"}[name]
            mistakes.append(Problem(name, None, f"what its clips have, such as {shown}"))
    return rules


def _there(name: str, bound: Mapping[str, list[str]], graph: Graph) -> Any:
    """The value in the graph where a name is bound; of fps also where the video is saved."""
    parts = ("width", "height") if name == "sizes" else (name,)
    found: list[Any] = []
    for part in parts:
        if part in bound:
            node, given = target(bound[part][0])
            found.append(graph.get(node, {}).get("inputs", {}).get(given))
    if name == "fps" and not found:
        found = [
            entry["inputs"].get(_RATES[entry["class_type"]])
            for entry in graph.values()
            if entry["class_type"] in _RATES
        ]
    if len(found) < len(parts) or not isinstance(found[0], int | float):
        return None
    return found if name == "sizes" else found[0]


def _fixed(name: str, value: Any) -> Any:
    """The rule that allows one value only. What is no such value is left for the card to refuse."""
    if name == "sizes":
        least, most = (min(value), max(value)) if _is_size(value) else (None, None)
        return {
            "multiple_of": 1,
            "minimum": least,
            "maximum": most,
            "native": [value],
            "default": value,
            "only_native": True,
        }
    ends = {"minimum": value, "maximum": value, "default": value}
    if name == "frames":
        return {"multiple": 1, "offset": 0, **ends}
    if name == "steps":
        return {**ends, "preview": value, "standard": value, "premium": value}
    return ends


def _is_size(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(isinstance(x, int) for x in value)


def _ranged(name: str, value: Any) -> Any:
    """The rule around a value of the graph that may be chosen."""
    if name == "guidance":
        return {"default": value, "minimum": 0, "maximum": max(30, value)}
    steps = min(max(round(value), 1), MAX_STEPS)
    most = min(max(100, steps), MAX_STEPS)
    tiers = {"preview": max(steps // 2, 1), "standard": steps, "premium": min(2 * steps, most)}
    return {"default": steps, "minimum": 1, "maximum": most, **tiers}


def _broken(file: Path, mistakes: list[Problem]) -> InvalidRequest:
    return InvalidRequest(mistakes, message=f"The workflow {file} cannot be used.")


# --- filling ----------------------------------------------------------------------------------


def _values(order: Order, uploads: Mapping[str, str]) -> dict[str, Any]:
    take = order.take
    return {
        "prompt": take.prompt,
        "negative": take.negative,
        "image": uploads.get("image"),
        "last_image": uploads.get("last_image"),
        "seed": take.seed,
        "width": take.width,
        "height": take.height,
        "frames": take.frames,
        "fps": take.fps,
        "steps": take.steps,
        "guidance": take.guidance,
    }


def _fitting(name: str, value: Any, declared: Declared | None) -> Any:
    """A value in the form that an input wants: whole numbers, and seeds within its range."""
    if value is None:
        raise InvalidMedia(f"The workflow needs the picture {name}, which was not uploaded.")
    if name == "seed" and declared is not None and declared.maximum is not None:
        return value % (int(declared.maximum) + 1)
    if declared is not None and declared.type == "INT" and isinstance(value, float):
        return round(value)
    return value


def _check(path: Path, graph: Graph, info: ObjectInfo, uploaded: set[str]) -> None:
    """Hold every choice of a graph against what the server offers.

    A file counts wherever it lies below its folder. A file to be loaded that is neither offered
    nor was uploaded is refused: the server would look for it.
    """
    mistakes = []
    for node, entry in graph.items():
        declared = info.node(entry["class_type"])
        for name, value in entry["inputs"].items():
            known = declared.inputs.get(name) if declared else None
            if known is None or not isinstance(value, str) or value in uploaded:
                continue
            if (known.choices or known.uploaded) and value not in known.choices:
                found = find_file(value, known.choices)
                if found is None:
                    shown = ", ".join(known.choices[:10]) or "nothing"
                    mistakes.append(Problem(f"{node}.{name}", value, f"what there is: {shown}"))
                else:
                    entry["inputs"][name] = found
    if mistakes:
        raise _broken(path, mistakes)


def _save_as(path: Path, graph: Graph, info: ObjectInfo, begins: str) -> None:
    """Have the nodes that save name their files after the order."""
    saving = [
        entry
        for entry in graph.values()
        if (declared := info.node(entry["class_type"])) and declared.saves
    ]
    if not saving:
        problem = Problem("nodes", None, "a node that saves a video, such as SaveVideo")
        raise _broken(path, [problem])
    for entry in saving:
        if isinstance(entry["inputs"].get("filename_prefix"), str):
            entry["inputs"]["filename_prefix"] = begins
