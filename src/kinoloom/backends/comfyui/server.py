"""What can one ComfyUI server be asked, and how is each of its answers to be read?

All of its routes are free to ask but one: ``POST /prompt`` makes the server work. It is made once,
on a connection of its own, and whatever else than an answer comes of it is `Uncertain`. Nothing of
an answer is trusted: it is read up to a limit, and what is not of the expected form counts as not
said. The routes are those of ComfyUI's ``server.py``; older servers lack some of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlencode

import httpx

from kinoloom.backends.comfyui.outputs import Output
from kinoloom.backends.remote.error_table import ErrorTable, shown
from kinoloom.backends.remote.retries import wait_asked
from kinoloom.errors import KinoloomError, NetworkFailed, Uncertain

MARK = "kinoloom"
"""The name under which an order's key lies in a prompt's ``extra_data``: servers before August 2025
give prompts ids of their own."""

_QUICK_SECONDS = 3.0
_LARGE_SECONDS = 15.0
_PROMPT_SECONDS = 60.0
"""A server answers a prompt once it has checked all of it; its own work slows that down."""
_UPLOAD_SECONDS = 120.0
_MAX_BYTES = 64 * 2**20
"""``/object_info`` of a server with very many custom nodes has about 10 MB."""
_HISTORY_ITEMS = 200
# What has a memory of its own for graphics; a CPU reports the machine's, DirectML always 1 GB.
_GRAPHICS = ("cuda", "mps", "xpu", "npu", "mlu")

LookState = Literal["queued", "running", "succeeded", "failed", "cancelled", "lost"]
_JOB_STATES: Mapping[object, LookState] = {
    "pending": "queued",
    "in_progress": "running",
    "completed": "succeeded",
    "failed": "failed",
    "cancelled": "cancelled",
}


class NotConnected(NetworkFailed):
    """The server took no connection, so nothing was sent to it."""


@dataclass(frozen=True)
class Answer:
    """An HTTP status and the JSON that came with it, None where it is none.

    `text` is how it begins, `retry_after` the seconds that it asks to wait for.
    """

    status: int
    data: Any
    text: str = ""
    retry_after: float | None = None


@dataclass(frozen=True)
class Stats:
    """What a server says of itself; `vram_total` and `vram_free` in bytes, None without a GPU."""

    version: str = ""
    torch: str = ""
    device: str = ""
    vram_total: int | None = None
    vram_free: int | None = None


@dataclass(frozen=True)
class Look:
    """How far a server is with a prompt.

    `before` counts the prompts that come first. `error` is the data of an ``execution_error``;
    `outputs` what each node shows of its results; `graph` and `client_id` are what was sent. A
    prompt that the server does not know is `lost`.
    """

    state: LookState
    prompt_id: str
    before: int = 0
    outputs: Mapping[str, Any] = field(default_factory=dict)
    error: Mapping[str, Any] = field(default_factory=dict)
    graph: Mapping[str, Any] = field(default_factory=dict)
    client_id: str = ""


class Server:
    """A ComfyUI server. Threads may share it."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._has_jobs: bool | None = None

    # --- what it is and has -------------------------------------------------------------------

    def stats(self) -> Stats:
        """Its version, and the memory of the first of its devices, which is the one that works."""
        data = _object(self._read("/system_stats", _QUICK_SECONDS))
        system = _object(data.get("system"))
        devices = data.get("devices")
        first = _object(devices[0]) if isinstance(devices, list) and devices else {}
        graphics = first.get("type") in _GRAPHICS
        return Stats(
            version=_text(system.get("comfyui_version")),
            torch=_text(system.get("pytorch_version")),
            device=_text(first.get("name")),
            vram_total=_bytes(first.get("vram_total")) if graphics else None,
            vram_free=_bytes(first.get("vram_free")) if graphics else None,
        )

    def waiting(self) -> int:
        """How many prompts run or wait."""
        info = _object(_object(self._read("/prompt", _QUICK_SECONDS)).get("exec_info"))
        count = info.get("queue_remaining")
        return count if isinstance(count, int) and count >= 0 else 0

    def object_info(self) -> Mapping[str, Any]:
        """All classes of nodes with their inputs, as the server says it."""
        return _object(self._read("/object_info", _LARGE_SECONDS))

    # --- handing in ---------------------------------------------------------------------------

    def upload(self, file: Path, name: str, subfolder: str) -> str:
        """Send a picture; the name that a graph loads it by, which may not be the one asked for.

        A server keeps what has the same name and content, and calls what has only the same name
        differently.
        """
        with file.open("rb") as opened:
            answer = self._ask(
                "POST",
                "/upload/image",
                _UPLOAD_SECONDS,
                files={"image": (name, opened, "image/png")},
                data={"type": "input", "subfolder": subfolder, "overwrite": "false"},
            )
        told = _object(self._fine(answer))
        got, where = told.get("name"), told.get("subfolder")
        if not isinstance(got, str) or not got or not isinstance(where, str):
            raise self._strange()
        return f"{where}/{got}" if where else got

    def prompt(self, key: str, client_id: str, graph: Mapping[str, Any]) -> Answer:
        """Hand in a graph under a key of ours, once.

        Raises NotConnected when it certainly did not arrive, Uncertain when nobody knows. An answer
        of 200 has accepted it, one of 400 to 499 has not.
        """
        body = {
            "prompt": graph,
            "prompt_id": key,
            "client_id": client_id,
            "extra_data": {MARK: key},
        }
        try:
            answer = self._ask("POST", "/prompt", _PROMPT_SECONDS, json=body)
        except NotConnected:
            raise
        except NetworkFailed as error:
            raise self._uncertain(error.cause) from error
        if 400 <= answer.status < 500:
            return answer
        accepted = isinstance(_object(answer.data).get("prompt_id"), str)
        if answer.status != 200 or not accepted:
            raise self._uncertain(f"It answered {answer.status}: {shown(answer.text)}")
        return answer

    # --- looking ------------------------------------------------------------------------------

    def look(self, prompt_id: str) -> Look:
        """How far a prompt is. Raises NetworkFailed where the server does not say it."""
        if self._jobs():
            answer = self._ask("GET", f"/api/jobs/{quote(prompt_id, safe='')}", _LARGE_SECONDS)
            if answer.status == 404:
                return Look("lost", prompt_id)
            return self._job(prompt_id, _object(self._fine(answer)))
        # A prompt goes from the queue to the history: asked in this order it is not overlooked.
        found = next((x for x in self._queued() if x.prompt_id == prompt_id), None)
        if found is not None:
            return found
        history = _object(self._read(f"/history/{quote(prompt_id, safe='')}", _LARGE_SECONDS))
        entry = history.get(prompt_id)
        return _finished(prompt_id, entry) if isinstance(entry, dict) else Look("lost", prompt_id)

    def find(self, key: str) -> Look | None:
        """The prompt that was handed in under a key, whatever its id became; None without one."""
        found = self.look(key)
        if found.state != "lost":
            return found
        if self._jobs():  # such a server takes our ids
            return None
        marked = next(iter(self._queued(key)), None)
        if marked is not None:
            return marked
        asked = f"/history?max_items={_HISTORY_ITEMS}"
        for prompt_id, entry in _object(self._read(asked, _LARGE_SECONDS)).items():
            if isinstance(entry, dict) and _marked(entry.get("prompt"), key):
                return _finished(prompt_id, entry)
        return None

    # --- stopping -----------------------------------------------------------------------------

    def cancel(self, prompt_id: str) -> bool:
        """Stop a prompt by the newest route that the server has; whether there was one to stop."""
        answer = self._ask("POST", f"/api/jobs/{quote(prompt_id, safe='')}/cancel", _QUICK_SECONDS)
        if answer.status not in (404, 405):
            return _object(self._fine(answer)).get("cancelled") is True
        state = self.look(prompt_id).state
        if state == "queued":
            self._fine(
                self._ask("POST", "/queue", _QUICK_SECONDS, json={"delete": [prompt_id]}),
                empty=True,
            )
            state = self.look(prompt_id).state  # it may have begun in between
            if state == "lost":
                return True
        if state != "running":
            return False
        # An old server ignores the id and stops whatever runs, which was this one a moment ago.
        self._fine(
            self._ask("POST", "/interrupt", _QUICK_SECONDS, json={"prompt_id": prompt_id}),
            empty=True,
        )
        return True

    def view_url(self, output: Output) -> str:
        """Where a file that the server made is downloaded."""
        query = {"filename": output.filename, "subfolder": output.subfolder, "type": output.type}
        return f"{self.url}/view?{urlencode(query)}"

    # --- the wire -----------------------------------------------------------------------------

    def _jobs(self) -> bool:
        """Whether the server has ``/api/jobs``, which shows a prompt at one moment in one call."""
        if self._has_jobs is None:
            answer = self._ask("GET", "/api/jobs?limit=1", _LARGE_SECONDS)
            if answer.status >= 500:
                self._fine(answer)
            told = _object(answer.data).get("jobs")
            self._has_jobs = answer.status == 200 and isinstance(told, list)
        return self._has_jobs

    def _job(self, prompt_id: str, data: Mapping[str, Any]) -> Look:
        state = _JOB_STATES.get(data.get("status"))
        if state is None:
            raise self._strange()
        sent = _object(data.get("workflow"))
        look = Look(
            state,
            prompt_id,
            outputs=_object(data.get("outputs")),
            error=_object(data.get("execution_error")),
            graph=_object(sent.get("prompt")),
            client_id=_text(_object(sent.get("extra_data")).get("client_id")),
        )
        if state != "queued":
            return look
        return next((x for x in self._queued() if x.prompt_id == prompt_id), look)

    def _queued(self, key: str | None = None) -> Sequence[Look]:
        """What runs and waits, in this order; with a key, only what carries it."""
        queue = _object(self._read("/queue", _LARGE_SECONDS))
        running, pending = (_items(queue.get(x)) for x in ("queue_running", "queue_pending"))
        pending.sort(key=lambda item: item[0])
        return [
            Look(
                "running" if place < len(running) else "queued",
                item[1],
                before=place,
                graph=_object(item[2]),
                client_id=_text(_object(item[3]).get("client_id")),
            )
            for place, item in enumerate([*running, *pending])
            if key is None or _marked(item, key)
        ]

    def _read(self, path: str, seconds: float) -> Any:
        return self._fine(self._ask("GET", path, seconds))

    def _fine(self, answer: Answer, *, empty: bool = False) -> Any:
        """The data of an answer that says yes."""
        if answer.status >= 400:
            raise refusal(answer)
        if answer.status != 200 or (answer.data is None and not empty):
            raise self._strange()
        return answer.data

    def _ask(self, method: str, path: str, seconds: float, **sent: Any) -> Answer:
        timeout = httpx.Timeout(seconds, connect=_QUICK_SECONDS)
        url = self.url + path
        try:
            with _client().stream(method, url, timeout=timeout, **sent) as response:
                body = bytearray()
                for block in response.iter_bytes():
                    body += block
                    if len(body) > _MAX_BYTES:
                        raise NetworkFailed(
                            f"The answer of {self.url} is too large.",
                            cause=f"It has more than {_MAX_BYTES} bytes.",
                        )
                asked = wait_asked(response.headers.get("retry-after"))
                return Answer(response.status_code, *_parsed(bytes(body)), asked)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            self._has_jobs = None  # whatever is there later may be another version
            raise NotConnected(
                f"The ComfyUI server {self.url} does not answer.",
                cause=shown(str(error)) or type(error).__name__,
                hints=["Start it, or correct `backends.comfyui.servers` in kinoloom.yaml."],
            ) from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            self._has_jobs = None
            raise NetworkFailed(
                f"The connection to the ComfyUI server {self.url} broke off.",
                cause=shown(str(error)) or type(error).__name__,
                hints=["Look whether it still runs."],
            ) from error

    def _strange(self) -> NetworkFailed:
        return NetworkFailed(
            f"What answers at {self.url} is no ComfyUI server.",
            cause="Its answer does not have the form that ComfyUI's has.",
            hints=["Correct `backends.comfyui.servers` in kinoloom.yaml."],
        )

    def _uncertain(self, cause: str) -> Uncertain:
        return Uncertain(
            f"Nobody knows whether {self.url} has accepted the job.",
            cause=cause,
            hints=[f"Look into the queue and the history of {self.url}."],
        )


def refusal(answer: Answer) -> KinoloomError:
    """The error of an answer that says no; of a prompt's, `failures.of_prompt` knows more."""
    table = ErrorTable.of("comfyui")
    return table.error(status=answer.status, text=answer.text, retry_after=answer.retry_after)


@cache
def _client() -> httpx.Client:
    # No connection is kept: one that the server just closed would make a prompt uncertain. Made
    # once, since reading the machine's certificates takes longer than most answers.
    limits = httpx.Limits(max_keepalive_connections=0)
    return httpx.Client(trust_env=False, follow_redirects=False, limits=limits)


def _parsed(body: bytes) -> tuple[Any, str]:
    try:
        return json.loads(body), body[:2000].decode("utf-8", "replace")
    except (ValueError, RecursionError):
        return None, body[:2000].decode("utf-8", "replace")


def _finished(prompt_id: str, entry: Mapping[str, Any]) -> Look:
    """What the history says of a prompt; a server of early 2024 gives no status."""
    status = _object(entry.get("status"))
    error: Mapping[str, Any] = {}
    state: LookState = "failed" if status.get("status_str") == "error" else "succeeded"
    messages = status.get("messages")
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, list | tuple) and len(message) == 2:
            if message[0] == "execution_interrupted":
                state = "cancelled"
            elif message[0] == "execution_error":
                error = _object(message[1])
    sent = entry.get("prompt")
    item = _items([sent])[0] if _items([sent]) else (0, prompt_id, {}, {})
    return Look(
        state,
        prompt_id,
        outputs=_object(entry.get("outputs")),
        error=error,
        graph=_object(item[2]),
        client_id=_text(_object(item[3]).get("client_id")),
    )


def _items(data: object) -> list[Sequence[Any]]:
    """The entries of a queue: number, id, graph, extra data, outputs."""
    return [
        item
        for item in (data if isinstance(data, list) else ())
        if isinstance(item, list)
        and len(item) >= 4
        and isinstance(item[0], int | float)
        and isinstance(item[1], str)
    ]


def _marked(item: object, key: str) -> bool:
    return any(_object(entry[3]).get(MARK) == key for entry in _items([item]))


def _object(data: object) -> dict[str, Any]:
    return data if isinstance(data, dict) else {}


def _text(data: object) -> str:
    return shown(data) if isinstance(data, str) else ""


def _bytes(data: object) -> int | None:
    return int(data) if isinstance(data, int | float) and 0 < data < 2**60 else None
