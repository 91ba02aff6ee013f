"""Runway's API on this machine, as strict as the types of its SDK, with every fault on order.

Storage for uploads and for finished videos is not the API: it is the other name of the loopback
address, and it refuses whoever shows it a key.
"""

from __future__ import annotations

import json
import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlsplit

from fakes.runway_schema import mistakes
from fakes.service import Answering, FakeService

KEY = "key_of_the_tests_0123456789"
CREDITS_A_SECOND = {"gen4_turbo": 5, "gen4.5": 12, "veo3.1": 40, "veo3.1_fast": 15}


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


class FakeRunway(FakeService):
    """The server.

    `states` are what a task passes through, one step at each look; ``RUNNING:0.5`` has a progress.
    `failures` are by prompt, `faults` those of the next creates, `polls` statuses with which the
    next looks at a task fail. `truncate` cuts the next downloads after so many bytes.
    """

    def __init__(self, *, key: str = KEY, video: bytes | None = None) -> None:
        super().__init__(_Handler, video)
        self.key = key
        self.states: tuple[str, ...] = ("PENDING", "RUNNING:0.5", "SUCCEEDED")
        self.failures: dict[str, Failure] = {}
        self.polls: deque[int] = deque()
        self.credits = 100_000
        self.tasks: dict[str, Task] = {}
        self.uploads: dict[str, bytes] = {}
        self.downloads = 0
        self.valid = 0

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

    def video_of(self, task: Task) -> bytes:
        """What a finished task's address gives."""
        return self.video

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


class _Handler(Answering):
    service: FakeRunway

    def answer(self, method: str) -> None:
        fake = self.service
        path = urlsplit(self.path).path
        with fake.lock:
            fake.asked.append((method, path))
        body = self.body()
        parts = path.strip("/").split("/")
        if parts[0] in ("out", "store"):
            return self._storage(parts, body)
        if self.headers["Authorization"] != f"Bearer {fake.key}":
            return self.say(401, {"error": "The API key you provided is not valid."})
        if self.headers["X-Runway-Version"] != "2024-11-06":
            return self.say(400, {"error": "Unknown API version."})
        if method == "POST" and path in ("/v1/text_to_video", "/v1/image_to_video"):
            return self._create(parts[1], body)
        if method == "POST" and path == "/v1/uploads":
            return self._place(body)
        if method == "GET" and path == "/v1/organization":
            tier = {"maxMonthlyCreditSpend": 10_000, "models": {}}
            usage: dict[str, Any] = {"models": {}}
            told = {"creditBalance": fake.credits, "tier": tier, "usage": usage}
            return self.say(200, told)
        if parts[:2] == ["v1", "tasks"] and len(parts) == 3:
            return self._task(method, parts[2])
        return self.say(404, {"error": "Not found."})

    def _create(self, endpoint: str, raw: bytes) -> None:
        fake = self.service
        fault = self.next_fault()
        if fault is not None and not fault.accepted:
            return self.be_faulty(fault)
        try:
            body = json.loads(raw)
        except ValueError:
            return self.say(400, {"error": "Malformed JSON."})
        if wrong := mistakes(endpoint, body):
            issues = [{"code": "custom", "path": w.split(":")[:1], "message": w} for w in wrong]
            return self.say(400, {"error": "Validation of body failed", "issues": issues})
        for entry in body.get("promptImage", []):
            if entry["uri"].startswith("runway://") and entry["uri"] not in fake.uploads:
                return self.say(400, {"error": "The upload does not exist."})
        if fake.credits <= 0:
            return self.say(400, {"error": "You do not have enough credits to run this task."})
        task = fake.accept(body)
        if fault is not None:
            return self.be_faulty(fault)
        return self.say(200, {"id": task.id, "estimatedCost": {"credits": task.credits}})

    def _task(self, method: str, wanted: str) -> None:
        fake = self.service
        with fake.lock:
            task = fake.tasks.get(wanted)
            bad = fake.polls.popleft() if fake.polls else None
        if bad is not None:
            return self.say(bad, {"error": "Service unavailable."}, {"Retry-After": "0"})
        if task is None:
            return self.say(404, {"error": "A task with that ID was not found."})
        if method == "DELETE":
            with fake.lock:
                fake.tasks.pop(wanted, None)
                if not task.word.startswith(("RUNNING", "SUCCEEDED")):
                    fake.credits += task.credits
            return self.say(204, None)
        return self.say(200, fake.look(task))

    def _place(self, raw: bytes) -> None:
        fake = self.service
        wanted = json.loads(raw)
        if set(wanted) != {"filename", "type"} or wanted["type"] != "ephemeral":
            return self.say(400, {"error": "Validation of body failed"})
        name = uuid.uuid4().hex
        told = {
            "uploadUrl": f"{fake.storage}/store/{name}",
            "fields": {"key": name, "policy": "signed"},
            "runwayUri": f"runway://{name}",
        }
        return self.say(200, told)

    def _storage(self, parts: list[str], body: bytes) -> None:
        fake = self.service
        if "Authorization" in self.headers:
            fake.leaked.append(self.path)
            return self.say(403, {"error": "AccessDenied"})
        if parts[0] == "store":
            form = _form(self.headers["Content-Type"] or "", body)
            if form.get("key") != parts[1].encode() or form.get("policy") != b"signed":
                return self.say(403, {"error": "AccessDenied"})
            with fake.lock:
                fake.uploads[f"runway://{parts[1]}"] = form["file"]
            return self.say(204, None)
        token = parse_qs(urlsplit(self.path).query).get("_jwt", [""])[0]
        if token != str(fake.valid):
            return self.say(403, {"error": "Expired"})
        with fake.lock:
            fake.downloads += 1
            task = fake.tasks.get(parts[1].removesuffix(".mp4"))
        if task is None:
            return self.say(404, {"error": "NoSuchKey"})
        return self.send_video(fake.video_of(task))


def _form(content_type: str, body: bytes) -> dict[str, bytes]:
    """The parts of a multipart form by their names."""
    boundary = content_type.partition("boundary=")[2].encode()
    found = {}
    for part in body.split(b"--" + boundary)[1:-1]:
        head, _, content = part[2:-2].partition(b"\r\n\r\n")
        name = head.partition(b'name="')[2].partition(b'"')[0].decode()
        found[name] = content
    return found
