"""A ComfyUI server without models: the wire of an old one (2024) or of a new one (2026).

It is an aiohttp application as the real one is. What it accepts it checks against recorded nodes
(`fakes.comfyui_validation`); what it runs, a test runs by hand (`begin`, `step`, `finish`...), or
it runs at once with ``auto=True``. `new` takes our prompt ids (canonical UUIDs only), has
``/api/jobs``, sends ``progress_state`` and previews with metadata, and stops a prompt by its id;
`old` gives its own ids, stops whatever runs, and ends a prompt with ``executing`` of no node.
"""

from __future__ import annotations

import asyncio
import json
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, Literal, TypeVar
from urllib.parse import urlsplit

from aiohttp import WSMsgType, web

from fakes.comfyui_engine import JPEG, Engine, Prompt
from fakes.comfyui_validation import definitions, validate

DEADLINE = 20.0
T = TypeVar("T")
__all__ = ["JPEG", "FakeComfyUI", "Prompt"]

Fault = Literal["drop before", "drop after", "500 after", "garbage after"]


class FakeComfyUI(Engine):
    """The server. `bill` counts how often each order's key was queued."""

    def __init__(
        self,
        version: Literal["old", "new"] = "new",
        *,
        nodes: dict[str, Any] | None = None,
        auto: bool = False,
        previews: bool = True,
    ) -> None:
        self.nodes = definitions(version) if nodes is None else nodes
        super().__init__(version == "new", previews)
        self.auto = auto
        self.comfyui_version = "0.38.1" if self.new else "0.2.2"
        self.devices: list[dict[str, Any]] = [
            {
                "name": "cuda:0 NVIDIA L40S : cudaMallocAsync",
                "type": "cuda",
                "index": 0,
                "vram_total": 48 * 2**30,
                "vram_free": 40 * 2**30,
                "torch_vram_total": 2**30,
                "torch_vram_free": 2**20,
            }
        ]
        self.bill: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.asked: list[tuple[str, str]] = []
        self.uploads: dict[str, bytes] = {}
        self.sockets_refused = self.uploads_fail = False
        self.view_breaks_after: int | None = None
        self.on_view: Callable[[], None] = lambda: None
        self.connections = 0
        self._number = 0
        self._port = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._runner: web.AppRunner | None = None

    # --- coming and going ---------------------------------------------------------------------

    def __enter__(self) -> FakeComfyUI:
        self._thread.start()
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(DEADLINE)
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def listen(self) -> None:
        """Listen, at the same address as before."""
        self._do(self._listen())

    def close(self) -> None:
        """Listen no more; connections are refused then."""
        self._do(self._close())

    def restart(self) -> None:
        """As when the process ends and starts anew: queue and history are gone."""
        self.close()
        self.pending, self.running, self.history = [], None, {}
        self.listen()

    def drop_sockets(self) -> None:
        """Cut every websocket, without a farewell."""
        self._do(self._drop_sockets())

    def _do(self, work: Coroutine[Any, Any, T]) -> T:
        future: Future[T] = asyncio.run_coroutine_threadsafe(work, self._loop)
        return future.result(DEADLINE)

    async def _listen(self) -> None:
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def _close(self) -> None:
        await self._drop_sockets()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def _drop_sockets(self) -> None:
        for socket in list(self.sockets.values()):
            transport = socket._req.transport if socket._req is not None else None
            if transport is not None:
                transport.abort()
        self.sockets.clear()

    def _app(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=2**26)
        routes: list[tuple[str, str, Any]] = [
            ("GET", "/ws", self._ws),
            ("GET", "/prompt", self._get_prompt),
            ("POST", "/prompt", self._post_prompt),
            ("GET", "/queue", self._get_queue),
            ("POST", "/queue", self._post_queue),
            ("GET", "/history", self._get_history),
            ("GET", "/history/{id}", self._get_history),
            ("POST", "/interrupt", self._interrupt),
            ("POST", "/upload/image", self._upload),
            ("GET", "/view", self._view),
            ("GET", "/object_info", self._object_info),
            ("GET", "/system_stats", self._system_stats),
        ]
        for method, path, handler in routes:
            app.router.add_route(method, path, handler)
            app.router.add_route(method, f"/api{path}", handler)
        if self.new:
            app.router.add_get("/api/jobs", self._jobs)
            app.router.add_get("/api/jobs/{id}", self._job)
            app.router.add_post("/api/jobs/{id}/cancel", self._cancel_job)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            return web.Response(status=403)
        response: web.StreamResponse = await handler(request)
        return response

    # --- running, by hand ---------------------------------------------------------------------

    def begin(self, cached: tuple[str, ...] = ()) -> Prompt:
        """Take the next prompt out of the queue and start it."""
        return self._do(self._begin(cached))

    def step(self, node: str, value: int, most: int, *, preview: bytes | None = None) -> None:
        """A node has made `value` of `most` steps."""
        self._do(self._step(node, value, most, preview))

    def finish(self, outputs: dict[str, Any] | None = None) -> None:
        """End what runs; `outputs` are by node, else a video of the node that saves."""
        self._do(self._finish(outputs))

    def fail(self, exception: str, message: str, node_type: str = "KSampler") -> None:
        """A node of what runs raises."""
        self._do(self._fail(exception, message, node_type))

    def obey(self) -> None:
        """What runs looks whether it was interrupted, as it does before each step."""
        self._do(self._obey())

    def send(self, message: str | bytes) -> None:
        """Send anything to every client."""
        self._do(self._send_raw(message))

    # --- answering ----------------------------------------------------------------------------

    async def _ws(self, request: web.Request) -> web.StreamResponse:
        if self.sockets_refused:
            return web.Response(status=503)
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        sid = request.query.get("clientId") or uuid.uuid4().hex
        self.sockets[sid], self.flags[sid] = socket, {}
        self.connections += 1
        status = {"status": {"exec_info": {"queue_remaining": self._waiting()}}, "sid": sid}
        await self._send_to(sid, json.dumps({"type": "status", "data": status}))
        running = self.running
        if running is not None and running.client == sid and self._last_node is not None:
            node = {"node": self._last_node}
            await self._send_to(sid, json.dumps({"type": "executing", "data": node}))
        first = True
        async for message in socket:
            if message.type == WSMsgType.TEXT and first and self.new:
                said = json.loads(message.data)
                if said.get("type") == "feature_flags":
                    self.flags[sid] = said["data"]
                    answer = {"type": "feature_flags", "data": {"supports_preview_metadata": True}}
                    await self._send_to(sid, json.dumps(answer))
            first = False
        if self.sockets.get(sid) is socket:
            del self.sockets[sid]
        return socket

    def _waiting(self) -> int:
        return len(self.pending) + (self.running is not None)

    async def _get_prompt(self, request: web.Request) -> web.Response:
        return web.json_response({"exec_info": {"queue_remaining": self._waiting()}})

    async def _post_prompt(self, request: web.Request) -> web.StreamResponse:
        data = await request.json()
        fault = self.faults.pop(0) if self.faults else None
        if fault == "drop before":
            return self._abort(request)
        foreign = set(data) - {"prompt", "prompt_id", "client_id", "extra_data", "number", "front"}
        assert not foreign, f"the body has {foreign}"
        if "prompt" not in data:
            return _refused("no_prompt", "No prompt provided")
        prompt_id = str(uuid.uuid4())
        if self.new and data.get("prompt_id") is not None:
            prompt_id = data["prompt_id"]
            if str(uuid.UUID(prompt_id)) != prompt_id:
                return _refused("invalid_prompt_id", "prompt_id must be a valid UUID")
        error, outputs, node_errors = validate(
            data["prompt"], self.nodes, files=list(self.uploads), old=not self.new
        )
        if error is not None:
            return web.json_response({"error": error, "node_errors": node_errors}, status=400)
        extra = dict(data.get("extra_data") or {})
        if "client_id" in data:
            extra["client_id"] = data["client_id"]
        self._number += 1
        self.pending.append(Prompt(self._number, prompt_id, data["prompt"], extra, list(outputs)))
        self.bill[extra.get("kinoloom", prompt_id)] += 1
        if self.auto:
            await self._run()
        if fault == "drop after":
            return self._abort(request)
        if fault == "500 after":
            return web.Response(status=500, text="500 Internal Server Error")
        if fault == "garbage after":
            return web.Response(text="<html>a proxy's page</html>")
        told = {"prompt_id": prompt_id, "number": self._number, "node_errors": node_errors}
        return web.json_response(told)

    def _abort(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _get_queue(self, request: web.Request) -> web.Response:
        running = [self.running.item] if self.running else []
        return web.json_response(
            {"queue_running": running, "queue_pending": [p.item for p in self.pending]}
        )

    async def _post_queue(self, request: web.Request) -> web.Response:
        gone = (await request.json()).get("delete", [])
        self.pending = [p for p in self.pending if p.id not in gone]
        return web.Response()

    async def _get_history(self, request: web.Request) -> web.Response:
        wanted = request.match_info.get("id")
        if wanted is None:
            return web.json_response(self.history)
        return web.json_response({k: v for k, v in self.history.items() if k == wanted})

    async def _interrupt(self, request: web.Request) -> web.Response:
        named = (await request.json()).get("prompt_id") if request.can_read_body else None
        if self.running is not None and (not self.new or named in (None, self.running.id)):
            self.running.interrupted = True
        return web.Response()

    async def _jobs(self, request: web.Request) -> web.Response:
        jobs = [
            self._as_job(p.id) for p in [*([self.running] if self.running else []), *self.pending]
        ]
        return web.json_response({"jobs": jobs, "pagination": {"total": len(jobs)}})

    async def _job(self, request: web.Request) -> web.Response:
        found = self._as_job(request.match_info["id"])
        if found is None:
            return web.json_response({"error": "Job not found"}, status=404)
        return web.json_response(found)

    def _as_job(self, wanted: str) -> dict[str, Any] | None:
        for prompt in [*([self.running] if self.running else []), *self.pending]:
            if prompt.id == wanted:
                status = "in_progress" if prompt is self.running else "pending"
                sent = {"prompt": prompt.graph, "extra_data": prompt.extra}
                return {"id": wanted, "status": status, "priority": prompt.number, "workflow": sent}
        entry = self.history.get(wanted)
        if entry is None:
            return None
        events = dict(entry["status"]["messages"])
        stopped = "execution_interrupted" in events
        bad = "cancelled" if stopped else "failed"
        job = {
            "id": wanted,
            "status": "completed" if entry["status"]["completed"] else bad,
            "outputs": entry["outputs"],
            "execution_status": entry["status"],
            "workflow": {"prompt": entry["prompt"][2], "extra_data": entry["prompt"][3]},
        }
        failed = events.get("execution_error")
        return job | ({"execution_error": failed} if failed else {})

    async def _cancel_job(self, request: web.Request) -> web.Response:
        wanted = request.match_info["id"]
        before = len(self.pending)
        self.pending = [p for p in self.pending if p.id != wanted]
        running = self.running is not None and self.running.id == wanted
        if running:
            self._now().interrupted = True
        return web.json_response({"cancelled": running or len(self.pending) < before})

    async def _upload(self, request: web.Request) -> web.Response:
        post = await request.post()
        if self.uploads_fail:
            return web.Response(status=500, text="500 Internal Server Error")
        image = post["image"]
        assert isinstance(image, web.FileField)
        assert post["type"] == "input"
        content, subfolder, name = image.file.read(), str(post.get("subfolder", "")), image.filename
        stem, _, suffix = name.rpartition(".")
        clash = 1
        while self.uploads.get(f"{subfolder}/{name}", content) != content:
            name = f"{stem} ({clash}).{suffix}"
            clash += 1
        self.uploads[f"{subfolder}/{name}"] = content
        return web.json_response({"name": name, "subfolder": subfolder, "type": "input"})

    async def _view(self, request: web.Request) -> web.StreamResponse:
        self.on_view()
        name = request.query.get("filename", "")
        if not name or name.startswith("/") or ".." in name:
            return web.Response(status=400)
        where = (request.query.get("type", "output"), request.query.get("subfolder", ""), name)
        content = self.files.get(where)
        if content is None:
            return web.Response(status=404)
        part = request.http_range
        body = content[part]
        status = 206 if part.start else 200
        if self.view_breaks_after is not None:
            response = web.StreamResponse(status=status)
            response.content_length = len(body)
            await response.prepare(request)
            await response.write(body[: self.view_breaks_after])
            self.view_breaks_after = None
            return self._abort(request)
        return web.Response(body=body, status=status, content_type="video/mp4")

    async def _object_info(self, request: web.Request) -> web.Response:
        return web.json_response(self.nodes)

    async def _system_stats(self, request: web.Request) -> web.Response:
        system = {
            "os": "posix",
            "ram_total": 2**36,
            "ram_free": 2**35,
            "comfyui_version": self.comfyui_version,
            "python_version": "3.12.3",
            "pytorch_version": "2.9.0+cu128",
            "argv": ["main.py"],
        }
        return web.json_response({"system": system, "devices": self.devices})


def _refused(kind: str, message: str) -> web.Response:
    error = {"type": kind, "message": message, "details": message, "extra_info": {}}
    return web.json_response({"error": error, "node_errors": {}}, status=400)
