"""Is a file a graph of ComfyUI's nodes in API format, and one that is safe to hand to a server?

It is a mapping of ids to nodes, each with its class and its inputs. Nothing in it is trusted: its
size and depth are bounded, its links lead to nodes that there are, and no text in it is the path of
a file outside the server's own folders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinoloom.errors import Problem

MAX_BYTES = 4 * 1024 * 1024
MAX_NODES = 2000
MAX_VALUES = 300
MAX_DEPTH = 8
"""Far above any workflow that was seen; a file beyond them is something else."""

_API_HINT = "In ComfyUI open the workflow and choose: Workflow > Export (API)."

Graph = dict[str, dict[str, Any]]
"""The nodes of a graph in API format by their ids."""


def read_graph(path: Path) -> tuple[Graph, list[Problem]]:
    """The nodes of a file in API format, and what is wrong with it."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
        if len(raw) > MAX_BYTES:
            return {}, [Problem("size", f"{len(raw)} bytes", f"up to {MAX_BYTES} bytes")]
        data = json.loads(raw)
    except OSError as error:
        return {}, [Problem("file", path.name, f"a file that can be read ({error.strerror})")]
    except (ValueError, RecursionError):
        return {}, [Problem("file", path.name, "JSON")]
    if isinstance(data, dict) and isinstance(data.get("nodes"), list):
        return {}, [Problem("format", "that of ComfyUI's editor", f"API format. {_API_HINT}")]
    if not isinstance(data, dict) or not 0 < len(data) <= MAX_NODES:
        return {}, [Problem("nodes", type(data).__name__, f"1 to {MAX_NODES} nodes by their ids")]
    mistakes = [m for node, entry in data.items() if (m := _node_mistake(node, entry, data))]
    return data, mistakes


def _node_mistake(node: str, entry: object, graph: Mapping[str, Any]) -> Problem | None:
    """What is wrong with a node of a graph, if anything."""
    if not isinstance(entry, dict) or not isinstance(entry.get("class_type"), str):
        return Problem(node, None, f"a node with class_type and inputs. {_API_HINT}")
    inputs = entry.get("inputs")
    if not isinstance(inputs, dict) or len(inputs) > MAX_VALUES:
        return Problem(f"{node}.inputs", None, f"up to {MAX_VALUES} inputs by their names")
    for name, value in inputs.items():
        if is_link(value):
            if value[0] not in graph:
                return Problem(f"{node}.{name}", value, "the id of a node that there is")
        elif not _plain(value, MAX_DEPTH):
            return Problem(f"{node}.{name}", None, f"values nested up to {MAX_DEPTH} deep")
        elif isinstance(value, str) and _escapes(value):
            return Problem(f"{node}.{name}", value, "a name below the server's own folders")
    return None


def is_link(value: object) -> bool:
    """Whether a value is what another node puts out: its id and the slot."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and isinstance(value[1], int)
    )


def _plain(value: object, depth: int) -> bool:
    """Whether a value is nested no deeper than `depth`."""
    if not isinstance(value, dict | list):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_plain(each, depth - 1) for each in inner)


_ABSOLUTE = re.compile(r"([/\\~]|[A-Za-z]:[/\\])\S*")
_UPWARDS = re.compile(r"(^|[/\\])\.\.([/\\]|$)")


def _escapes(text: str) -> bool:
    """Whether a text is the path of a file outside; one with spaces may be anything else."""
    return bool(_ABSOLUTE.fullmatch(text) or (_UPWARDS.search(text) and " " not in text))


def target(place: str) -> tuple[str, str]:
    """Node and input of ``6.text``; the input's own name may have dots."""
    node, _, given = place.partition(".")
    return node, given
