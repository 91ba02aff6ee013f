"""What do the messages of a server say about a prompt: how far it is, what it looks like?

Messages are ComfyUI's: JSON ``{type, data}``, and binary ones that begin with a big-endian 32-bit
kind (1: a picture; 4: a picture with words about it). Any of them may be missed, so they only tell
how a prompt goes on; whether it ended, and how, is asked for.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kinoloom.backends.base import RemoteStatus

HELLO = json.dumps({"type": "feature_flags", "data": {"supports_preview_metadata": True}})
"""What a client says first to be told which prompt a preview belongs to."""

MAX_PREVIEW = 2**20
"""Bytes; ComfyUI's own are at most 512 pixels wide."""
_MAX_NODES = 2000
_MAX_STEPS = 100_000
_JPEG = b"\xff\xd8\xff"


@dataclass
class Watch:
    """What was heard of one prompt.

    `planned` are the steps that each sampler of the graph makes, as far as the graph says it;
    `heard` is when something was heard last, None: nothing since the connection was made. `waits`
    is what was told of its place in the queue, until it begins. `ended` is whether it is said to be
    over, one way or the other.
    """

    planned: Mapping[str, int] = field(default_factory=dict)
    heard: float | None = None
    waits: RemoteStatus | None = None
    ended: bool = False
    node: str = ""
    preview: bytes | None = None
    _told: dict[str, tuple[int, int]] = field(default_factory=dict)
    _done: set[str] = field(default_factory=set)

    @property
    def steps(self) -> tuple[int, int]:
        """The finished steps and all of them, over all samplers; 0 of 0 while nothing is known."""
        nodes = self.planned or {node for node, (_, most) in self._told.items() if most > 1}
        step = total = 0
        for node in nodes:
            value, most = self._told.get(node, (0, 0))
            # Until a node has told its own number it says 1.
            most = most if most > 1 else self.planned.get(node, 1)
            total += most
            step += most if node in self._done else min(value, most)
        return step, total

    def told(self, node: str, value: object, most: object) -> None:
        """A node said that it has made `value` of `most` steps."""
        if len(self._told) < _MAX_NODES or node in self._told:
            self._told[node] = _count(value), _count(most)

    def done(self, node: str) -> None:
        """A node is finished, or needs not run at all."""
        if len(self._done) < _MAX_NODES:
            self._done.add(node)


class Reader:
    """Reads the messages of one connection; `watch` finds who wants to know about a prompt."""

    def __init__(self, watch: Callable[[str], Watch | None], clock: Callable[[], float]) -> None:
        self._watch, self._clock = watch, clock
        self._running = ""

    def read(self, message: str | bytes) -> None:
        """Take a message; one that is not understood says nothing."""
        if isinstance(message, bytes):
            self._picture(message)
            return
        parsed = _parsed(message)
        event, data = parsed.get("type"), parsed.get("data")
        if isinstance(event, str) and isinstance(data, dict):
            self._event(event, data)

    def _event(self, event: str, data: Mapping[str, Any]) -> None:
        prompt = data.get("prompt_id")
        watch = self._watch(prompt) if isinstance(prompt, str) else None
        if watch is None or not isinstance(prompt, str):
            return
        watch.heard, watch.waits, self._running = self._clock(), None, prompt
        node = data.get("node")
        if event == "progress" and isinstance(node, str):
            watch.told(node, data.get("value"), data.get("max"))
        elif event == "progress_state":
            for name, state in _entries(data.get("nodes")):
                watch.told(name, state.get("value"), state.get("max"))
                if state.get("state") == "finished":
                    watch.done(name)
        elif event == "execution_cached":
            nodes = data.get("nodes")
            for name in nodes[:_MAX_NODES] if isinstance(nodes, list) else ():
                watch.done(str(name))
        elif event == "executing" and isinstance(node, str):
            if watch.node != node and watch.node:
                watch.done(watch.node)
            watch.node = node
        elif event == "executing" or event in _ENDS:
            watch.ended, self._running = True, ""

    def _picture(self, message: bytes) -> None:
        """A preview. Only JPEG is kept: it is what ComfyUI sends, and what is passed on."""
        kind = _number(message, 0)
        prompt: object = self._running
        picture = message[8:]
        if kind == 4:
            length = _number(message, 4) or 0
            about = _parsed(message[8 : 8 + length])
            prompt, picture = about.get("prompt_id"), message[8 + length :]
        elif kind != 1:
            return
        watch = self._watch(prompt) if isinstance(prompt, str) else None
        if watch is not None and len(picture) <= MAX_PREVIEW and picture.startswith(_JPEG):
            watch.preview, watch.heard = picture, self._clock()


_ENDS = ("execution_success", "execution_error", "execution_interrupted")


def samplers(graph: Mapping[str, Any]) -> dict[str, int]:
    """The steps of each sampler in a graph, by node.

    A sampler has the word in its class, and either `steps` itself (with a first and a last step
    where it makes only some of them) or `sigmas` from a scheduler that has them.
    """
    found = {}
    for node, entry in graph.items():
        inputs = _inputs(entry)
        if "Sampler" not in str(entry.get("class_type") if isinstance(entry, Mapping) else ""):
            continue
        steps = inputs.get("steps", _steps_behind(graph, inputs.get("sigmas")))
        if not isinstance(steps, int) or not 0 < steps <= _MAX_STEPS:
            continue
        first, last = inputs.get("start_at_step", 0), inputs.get("end_at_step", steps)
        if isinstance(first, int) and isinstance(last, int):
            steps = max(1, min(last, steps) - max(first, 0))
        found[str(node)] = steps
    return found


def _steps_behind(graph: Mapping[str, Any], link: object) -> object:
    """The steps of the scheduler that `sigmas` come from, through what only changes them."""
    for _ in range(10):
        if not isinstance(link, list) or not link:
            return None
        inputs = _inputs(graph.get(str(link[0])))
        if "steps" in inputs:
            return inputs["steps"]
        link = inputs.get("sigmas")
    return None


def _parsed(message: str | bytes) -> dict[str, Any]:
    """The JSON object of a message; empty where it is none."""
    try:
        data = json.loads(message)
    except (ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def _inputs(entry: object) -> Mapping[str, Any]:
    inputs = entry.get("inputs") if isinstance(entry, Mapping) else None
    return inputs if isinstance(inputs, Mapping) else {}


def _entries(data: object) -> list[tuple[str, Mapping[str, Any]]]:
    entries = list(data.items())[:_MAX_NODES] if isinstance(data, dict) else []
    return [(name, state) for name, state in entries if isinstance(state, dict)]


def _count(value: object) -> int:
    fine = isinstance(value, int | float) and math.isfinite(value)
    return min(max(int(value), 0), _MAX_STEPS) if fine else 0  # type: ignore[call-overload]


def _number(message: bytes, at: int) -> int | None:
    return struct.unpack_from(">I", message, at)[0] if len(message) >= at + 8 else None
