"""What a ComfyUI server does with a prompt: it runs it, tells its client, and remembers it.

The order of things is that of ComfyUI's ``execution.py`` and ``main.py``: success is told, then the
history has the prompt, then no node is executing.
"""

from __future__ import annotations

import contextlib
import json
import struct
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from fakes.clip import small_mp4

JPEG = b"\xff\xd8\xff\xe0 a picture \xff\xd9"


@dataclass
class Prompt:
    """A prompt as the queue holds it."""

    number: float
    id: str
    graph: dict[str, Any]
    extra: dict[str, Any]
    outputs: list[str]
    messages: list[list[Any]] = field(default_factory=list)
    interrupted: bool = False

    @property
    def item(self) -> list[Any]:
        return [self.number, self.id, self.graph, self.extra, self.outputs]

    @property
    def client(self) -> str | None:
        return self.extra.get("client_id")

    def node(self, *classes: str) -> str:
        """The first node of one of these classes."""
        return next(n for n, x in self.graph.items() if x["class_type"] in classes)

    @property
    def samplers(self) -> list[str]:
        return [n for n, x in self.graph.items() if "KSampler" in x["class_type"]]


class Engine:
    """The queue, what runs, the history, and the sockets of the clients; all on one event loop."""

    def __init__(self, new: bool, previews: bool) -> None:
        self.new, self.previews = new, previews
        self.pending: list[Prompt] = []
        self.running: Prompt | None = None
        self.history: dict[str, dict[str, Any]] = {}
        self.files: dict[tuple[str, str, str], bytes] = {}
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.flags: dict[str, dict[str, Any]] = {}
        self._last_node: str | None = None

    async def _begin(self, cached: tuple[str, ...] = ()) -> Prompt:
        self.pending.sort(key=lambda p: p.number)
        prompt = self.running = self.pending.pop(0)
        await self._tell("execution_start", {"prompt_id": prompt.id}, keep=True)
        nodes = {"nodes": list(cached), "prompt_id": prompt.id}
        await self._tell("execution_cached", nodes, keep=True)
        for node in prompt.graph:
            if node not in cached and node not in prompt.samplers:
                await self._executing(node)
            if node in prompt.samplers:
                break
        return prompt

    async def _executing(self, node: str) -> None:
        prompt = self._now()
        if node == self._last_node:
            return
        self._last_node = node
        data = {"node": node, "display_node": node, "prompt_id": prompt.id}
        await self._tell(
            "executing", data if self.new else {k: data[k] for k in ("node", "prompt_id")}
        )

    async def _step(self, node: str, value: int, most: int, preview: bytes | None) -> None:
        prompt = self._now()
        await self._executing(node)
        data = {"value": value, "max": most, "prompt_id": prompt.id, "node": node}
        await self._tell("progress", data)
        if self.new:
            state = {
                "value": float(value),
                "max": float(most),
                "state": "finished" if value == most else "running",
                "node_id": node,
                "prompt_id": prompt.id,
                "display_node_id": node,
                "parent_node_id": None,
                "real_node_id": node,
            }
            await self._tell("progress_state", {"prompt_id": prompt.id, "nodes": {node: state}})
        if self.previews and preview is not None:
            await self._preview(node, preview)

    async def _preview(self, node: str, picture: bytes) -> None:
        prompt = self._now()
        kind = 1 if picture.startswith(b"\xff\xd8") else 2
        flags = self.flags.get(prompt.client or "", {})
        if self.new and flags.get("supports_preview_metadata") is True:
            about = {"node_id": node, "prompt_id": prompt.id, "display_node_id": node}
            words = json.dumps(about | {"image_type": "image/jpeg"}).encode()
            await self._tell_bytes(struct.pack(">II", 4, len(words)) + words + picture)
        else:
            await self._tell_bytes(struct.pack(">II", 1, kind) + picture)

    async def _finish(self, outputs: dict[str, Any] | None) -> None:
        prompt = self._now()
        shown = self._saved(prompt) if outputs is None else outputs
        for node, ui in shown.items():
            data = {"node": node, "display_node": node, "output": ui, "prompt_id": prompt.id}
            await self._tell("executed", data)
        if self.new:
            await self._tell("execution_success", {"prompt_id": prompt.id}, keep=True)
        await self._over("success", shown)

    async def _fail(self, exception: str, message: str, node_type: str) -> None:
        prompt = self._now()
        data = {
            "prompt_id": prompt.id,
            "node_id": next(
                (n for n, x in prompt.graph.items() if x["class_type"] == node_type), "3"
            ),
            "node_type": node_type,
            "executed": [],
            "exception_message": message,
            "exception_type": exception,
            "traceback": ["  File ..."],
            "current_inputs": {},
            "current_outputs": {},
        }
        await self._tell("execution_error", data, keep=True)
        await self._over("error", {})

    async def _obey(self) -> None:
        prompt = self.running
        if prompt is not None and prompt.interrupted:
            data = {"prompt_id": prompt.id, "node_id": "3", "node_type": "KSampler", "executed": []}
            await self._tell("execution_interrupted", data, keep=True)
            await self._over("error", {})

    async def _over(self, status: str, outputs: dict[str, Any]) -> None:
        """The history has it before the client hears that no node is executing."""
        prompt, self.running, self._last_node = self._now(), None, None
        self.history[prompt.id] = {
            "prompt": prompt.item,
            "outputs": outputs,
            "status": {
                "status_str": status,
                "completed": status == "success",
                "messages": prompt.messages,
            },
            "meta": {},
        }
        last = {"node": None, "prompt_id": prompt.id}
        await self._send_to(prompt.client, json.dumps({"type": "executing", "data": last}))

    def _saved(self, prompt: Prompt) -> dict[str, Any]:
        """What the node that saves shows, and its file."""
        for node, entry in prompt.graph.items():
            kind, inputs = entry["class_type"], entry["inputs"]
            if kind not in ("SaveVideo", "VHS_VideoCombine", "SaveWEBM"):
                continue
            folder, _, name = str(inputs["filename_prefix"]).rpartition("/")
            file = f"{name}_00001_.mp4"
            self.files["output", folder, file] = small_mp4()
            told = {"filename": file, "subfolder": folder, "type": "output"}
            if kind == "VHS_VideoCombine":
                return {node: {"gifs": [told | {"format": "video/h264-mp4", "frame_rate": 8.0}]}}
            return {node: {"images": [told], "animated": [True]}}
        return {}

    async def _run(self) -> None:
        """All that waits, at once."""
        while self.pending and self.running is None:
            prompt = await self._begin()
            for node in prompt.samplers:
                await self._step(node, 1, 1, JPEG)
            await self._finish(None)

    def _now(self) -> Prompt:
        assert self.running is not None, "nothing runs"
        return self.running

    # --- telling ------------------------------------------------------------------------------

    async def _tell(self, event: str, data: dict[str, Any], *, keep: bool = False) -> None:
        prompt = self._now()
        if keep:
            data = data | {"timestamp": 1}
            prompt.messages.append([event, data])
        await self._send_to(prompt.client, json.dumps({"type": event, "data": data}))

    async def _tell_bytes(self, message: bytes) -> None:
        await self._send_to(self._now().client, message)

    async def _send_raw(self, message: str | bytes) -> None:
        for client in list(self.sockets):
            await self._send_to(client, message)

    async def _send_to(self, client: str | None, message: str | bytes) -> None:
        socket = self.sockets.get(client or "")
        if socket is None:
            return
        with contextlib.suppress(ConnectionError):
            if isinstance(message, bytes):
                await socket.send_bytes(message)
            else:
                await socket.send_str(message)
