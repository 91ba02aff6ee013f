"""Runway's API on this machine, as strict as the types of its SDK, with every fault on order.

Storage for uploads and for finished videos is not the API: it is the other name of the loopback
address, and it refuses whoever shows it a key.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import Counter, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal, Self
from urllib.parse import parse_qs, urlsplit

from fakes.clip import small_mp4
from fakes.runway_schema import mistakes

KEY = "key_of_the_tests_0123456789"
CREDITS_A_SECOND = {"gen4_turbo": 5, "gen4.5": 12, "veo3.1": 40, "veo3.1_fast": 15}


@dataclass
class Fault:
    """What happens to the next create: whether the task comes about, and what is answered.

    `status` None drops the connection. With `hold` the answer waits until the fake is released.
    """

    accepted: bool
    status: int | None = None
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hold: bool = False


@dataclass
class Failure:
    """How a task fails: Runway's code and words, and whether its credits are given back."""

    code: str | None
    text: str = "An unexpected error occurred."
    refunded: bool = True


@dataclass
class Task:
    """A task: the body that asked for it, and the states that it has yet to pass, one a look."""

    id: str
    body: dict[str, Any]
    credits: int
    ahead: deque[str]
    failure: Failure | None
    word: str = "PENDING"
    looks: int = 0

    @property
    def prompt(self) -> str:
        return str(self.body.get("promptText", ""))


class FakeRunway:
    """The server, a context manager. `bill` counts by prompt how often a create was charged.

    `states` are what a task passes through, one step at each look; ``RUNNING:0.5`` has a progress.
    `failures` are by prompt, `faults` those of the next creates, `polls` statuses with which the
    next looks at a task fail. `truncate` cuts the next downloads after so many bytes.
    """

    def __init__(self, *, key: str = KEY, video: bytes | None = None) -> None:
        self.key = key
        self.video = small_mp4() if video is None else video
        self.states: tuple[str, ...] = ("PENDING", "RUNNING:0.5", "SUCCEEDED")
        self.failures: dict[str, Failure] = {}
        self.faults: deque[Fault] = deque()
        self.polls: deque[int] = deque()
        self.truncate: deque[int] = deque()
        self.credits = 100_000
        self.bill: Counter[str] = Counter()
        self.tasks: dict[str, Task] = {}
        self.uploads: dict[str, bytes] = {}
        self.asked: list[tuple[str, str]] = []
        self.leaked: list[str] = []
        self.downloads = 0
        self.lock = threading.RLock()
        self.released = threading.Event()
        self.valid = 0
        fake = self

        class Handler(_Handler):
            server_of_tests = fake

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self._server = Server(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        self.url = f"http://127.0.0.1:{self.port}"
        self.storage = f"http://localhost:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def drop_create(self, *, accepted: bool) -> None:
        """The next create gets no answer, whether or not the task came about."""
        self.faults.append(Fault(accepted))

    def answer_create(
        self, status: int, body: Any = None, *, accepted: bool = False, **headers: str
    ) -> None:
        """The next create is answered so."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(accepted, status, body, named))

    def expire(self) -> None:
        """All addresses of finished videos that were given out so far are valid no more."""
        with self.lock:
            self.valid += 1

    def accept(self, body: dict[str, Any]) -> Task:
        """A new task, and its place on the bill."""
        seconds = int(body.get("duration", 5))
        price = CREDITS_A_SECOND.get(str(body["model"]), 20) * seconds
        with self.lock:
            prompt = str(body.get("promptText", ""))
            failure = self.failures.get(prompt)
            states = deque(self.states)
            if failure is not None:
                states = deque([*(s for s in self.states if s != "SUCCEEDED"), "FAILED"])
            task = Task(str(uuid.uuid4()), body, price, states, failure)
            self.tasks[task.id] = task
            self.bill[prompt] += 1
            self.credits -= price
        return task

    def look(self, task: Task) -> dict[str, Any]:
        """A task's document, after it went on by one state."""
        with self.lock:
            task.looks += 1
            if task.ahead:
                task.word = task.ahead.popleft()
            word, _, share = task.word.partition(":")
            told: dict[str, Any] = {
                "id": task.id,
                "status": word,
                "createdAt": "2026-11-21T12:00:00.000Z",
            }
            if word == "RUNNING":
                told["progress"] = float(share or 0)
            if word in ("PENDING", "THROTTLED", "RUNNING"):
                return told | {"estimatedCost": {"credits": task.credits}}
            if word == "FAILED":
                failure = task.failure or Failure(None)
                told["failure"] = failure.text
                if failure.code is not None:
                    told["failureCode"] = failure.code
                cost = 0 if failure.refunded else task.credits
                return told | {"cost": {"credits": cost}}
            if word == "SUCCEEDED":
                told["output"] = [f"{self.storage}/out/{task.id}.mp4?_jwt={self.valid}"]
            return told | {"cost": {"credits": 0 if word == "CANCELLED" else task.credits}}


Method = Literal["GET", "POST", "DELETE"]


class _Handler(BaseHTTPRequestHandler):
    server_of_tests: FakeRunway
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def _answer(self, method: Method) -> None:
        fake = self.server_of_tests
        path = urlsplit(self.path).path
        with fake.lock:
            fake.asked.append((method, path))
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = path.strip("/").split("/")
        if parts[0] in ("out", "store"):
            return self._storage(parts, body)
        if self.headers["Authorization"] != f"Bearer {fake.key}":
            return self._say(401, {"error": "The API key you provided is not valid."})
        if self.headers["X-Runway-Version"] != "2024-11-06":
            return self._say(400, {"error": "Unknown API version."})
        if method == "POST" and path in ("/v1/text_to_video", "/v1/image_to_video"):
            return self._create(parts[1], body)
        if method == "POST" and path == "/v1/uploads":
            return self._place(body)
        if method == "GET" and path == "/v1/organization":
            tier = {"maxMonthlyCreditSpend": 10_000, "models": {}}
            usage: dict[str, Any] = {"models": {}}
            told = {"creditBalance": fake.credits, "tier": tier, "usage": usage}
            return self._say(200, told)
        if parts[:2] == ["v1", "tasks"] and len(parts) == 3:
            return self._task(method, parts[2])
        return self._say(404, {"error": "Not found."})

    def _create(self, endpoint: str, raw: bytes) -> None:
        fake = self.server_of_tests
        with fake.lock:
            fault = fake.faults.popleft() if fake.faults else None
        if fault is not None and not fault.accepted:
            return self._drop() if fault.status is None else self._faulty(fault)
        try:
            body = json.loads(raw)
        except ValueError:
            return self._say(400, {"error": "Malformed JSON."})
        if wrong := mistakes(endpoint, body):
            issues = [{"code": "custom", "path": w.split(":")[:1], "message": w} for w in wrong]
            return self._say(400, {"error": "Validation of body failed", "issues": issues})
        for entry in body.get("promptImage", []):
            if entry["uri"].startswith("runway://") and entry["uri"] not in fake.uploads:
                return self._say(400, {"error": "The upload does not exist."})
        if fake.credits <= 0:
            return self._say(400, {"error": "You do not have enough credits to run this task."})
        task = fake.accept(body)
        if fault is not None:
            return self._drop() if fault.status is None else self._faulty(fault)
        return self._say(200, {"id": task.id, "estimatedCost": {"credits": task.credits}})

    def _faulty(self, fault: Fault) -> None:
        if fault.hold:
            self.server_of_tests.released.wait(30)
        assert fault.status is not None
        self._say(fault.status, fault.body, fault.headers)

    def _task(self, method: Method, wanted: str) -> None:
        fake = self.server_of_tests
        with fake.lock:
            task = fake.tasks.get(wanted)
            bad = fake.polls.popleft() if fake.polls else None
        if bad is not None:
            return self._say(bad, {"error": "Service unavailable."}, {"Retry-After": "0"})
        if task is None:
            return self._say(404, {"error": "A task with that ID was not found."})
        if method == "DELETE":
            with fake.lock:
                fake.tasks.pop(wanted, None)
                if not task.word.startswith(("RUNNING", "SUCCEEDED")):
                    fake.credits += task.credits
            return self._say(204, None)
        return self._say(200, fake.look(task))

    def _place(self, raw: bytes) -> None:
        fake = self.server_of_tests
        wanted = json.loads(raw)
        if set(wanted) != {"filename", "type"} or wanted["type"] != "ephemeral":
            return self._say(400, {"error": "Validation of body failed"})
        name = uuid.uuid4().hex
        told = {
            "uploadUrl": f"{fake.storage}/store/{name}",
            "fields": {"key": name, "policy": "signed"},
            "runwayUri": f"runway://{name}",
        }
        return self._say(200, told)

    def _storage(self, parts: list[str], body: bytes) -> None:
        fake = self.server_of_tests
        if "Authorization" in self.headers:
            fake.leaked.append(self.path)
            return self._say(403, {"error": "AccessDenied"})
        if parts[0] == "store":
            form = _form(self.headers["Content-Type"] or "", body)
            if form.get("key") != parts[1].encode() or form.get("policy") != b"signed":
                return self._say(403, {"error": "AccessDenied"})
            with fake.lock:
                fake.uploads[f"runway://{parts[1]}"] = form["file"]
            return self._say(204, None)
        token = parse_qs(urlsplit(self.path).query).get("_jwt", [""])[0]
        if token != str(fake.valid):
            return self._say(403, {"error": "Expired"})
        return self._video()

    def _video(self) -> None:
        fake = self.server_of_tests
        start = 0
        if wanted := self.headers["Range"]:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
        with fake.lock:
            fake.downloads += 1
            most = fake.truncate.popleft() if fake.truncate else None
        rest = fake.video[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[:most])
        if most is not None:
            self._drop()

    def _say(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        raw = (
            b"" if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        )
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def _drop(self) -> None:
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)


def _form(content_type: str, body: bytes) -> dict[str, bytes]:
    """The parts of a multipart form by their names."""
    boundary = content_type.partition("boundary=")[2].encode()
    found = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part[2:-2].partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        found[name] = content
    return found
