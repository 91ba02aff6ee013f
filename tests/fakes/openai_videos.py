"""Servers that speak /v1/videos, on this machine, each as strict as the real one.

- ``openai``: OpenAI's own form and nothing else, as its gateways check it.
- ``engine``: vLLM-Omni's form (docs.vllm.ai/projects/vllm-omni, "Videos API"): sampler's numbers,
  whole seconds, whole frames a second; what it does not know it ignores.
- ``openrouter``: OpenRouter's JSON body (openrouter.ai/docs, "Video generation").
"""

from __future__ import annotations

import json
import re
import uuid
from collections import deque
from dataclasses import dataclass
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Literal
from urllib.parse import parse_qs, urlsplit

from fakes.service import Answering, FakeService

KEY = "sk-of-the-tests-0123456789"
Dialect = Literal["openai", "engine", "openrouter"]

_OPENAI = {"prompt", "model", "seconds", "size", "input_reference"}
_WHOLE = r"[1-9]\d*"
_ENGINE = {
    "seconds": _WHOLE,
    "size": r"\d+x\d+",
    "width": _WHOLE,
    "height": _WHOLE,
    "num_frames": _WHOLE,
    "fps": _WHOLE,
    "num_inference_steps": _WHOLE,
    "guidance_scale": r"\d+(\.\d+)?",
    "seed": r"\d+",
}
_OPENROUTER = {"model", "prompt", "size", "duration", "seed", "frame_images", "resolution"}
_OPENROUTER |= {"aspect_ratio", "generate_audio", "input_references", "callback_url", "provider"}


@dataclass
class Made:
    """A video: what was asked, with which key, and the documents that the next looks get."""

    id: str
    asked: dict[str, Any]
    key: str | None
    picture: bytes | None
    ahead: deque[dict[str, Any]]
    now: dict[str, Any]


class FakeVideos(FakeService):
    """The server.

    `states` are what each look at a video adds to its document, in turn; `faults` are those of the
    next creates, `answers` statuses that the next reads get, `truncate` cuts the next downloads.
    """

    def __init__(self, dialect: Dialect = "openai", *, key: str | None = KEY) -> None:
        super().__init__(_Handler)
        self.dialect = dialect
        self.key = key
        self.url += "/v1"
        self.storage += "/out/clip.mp4?signed=1"
        self.models = {"sora-2", "wan", "google/veo-3.1"}
        self.states: list[dict[str, Any]] = [
            {"status": "queued", "progress": 0},
            {"status": "in_progress", "progress": 40},
            {"status": "completed", "progress": 100},
        ]
        self.answers: deque[tuple[int, Any]] = deque()
        self.content: Literal["bytes", "absent", "elsewhere"] = "bytes"
        self.deletes = True
        self.lists = True
        self.page = 100
        self.made: dict[str, Made] = {}

    def only(self) -> Made:
        """The one video that was asked for."""
        (made,) = self.made.values()
        return made

    def accept(self, asked: dict[str, Any], key: str | None, picture: bytes | None) -> Made:
        """A new video, and its place on the bill."""
        name = f"video_{uuid.uuid4().hex}"
        document = {
            "id": name,
            "object": "video",
            "model": asked["model"],
            "prompt": asked["prompt"],
            "status": "pending" if self.dialect == "openrouter" else "queued",
            "progress": 0,
            "created_at": 1795280000 + len(self.made),
            "size": asked.get("size"),
            "seconds": str(asked.get("seconds", 4)),
            "error": None,
        }
        if self.dialect == "openrouter":
            document = {"id": name, "status": "pending", "polling_url": f"/v1/videos/{name}"}
        made = Made(name, asked, key, picture, deque(self.states), document)
        with self.lock:
            self.made[name] = made
            self.bill[asked["prompt"]] += 1
        return made

    def look(self, made: Made) -> dict[str, Any]:
        """A video's document, after it went on by one state."""
        with self.lock:
            if made.ahead:
                made.now = made.now | made.ahead.popleft()
            return made.now


class _Handler(Answering):
    service: FakeVideos

    def answer(self, method: str) -> None:
        fake = self.service
        path = urlsplit(self.path).path
        with fake.lock:
            fake.asked.append((method, self.path))
        raw = self.body()
        if path.startswith("/out/"):
            self._storage()
        elif fake.key is not None and self.headers["Authorization"] != f"Bearer {fake.key}":
            self._error(401, "invalid_api_key", "Incorrect API key provided.")
        elif (method, path) == ("POST", "/v1/videos"):
            self._create(raw)
        else:
            self._read(path)

    def _read(self, path: str) -> None:
        fake = self.service
        with fake.lock:
            answer = fake.answers.popleft() if fake.answers else None
        if answer is not None:
            self.say(*answer)
        elif path == "/v1/models":
            self.say(200, {"object": "list", "data": [{"id": m} for m in sorted(fake.models)]})
        elif path == "/v1/videos":
            self._list()
        elif path == "/v1/videos/models" and fake.dialect == "openrouter":
            models = [{"id": m, "supported_sizes": ["1280x720"]} for m in sorted(fake.models)]
            self.say(200, {"data": models})
        elif (made := fake.made.get(path.split("/")[3])) is None:
            self._error(404, None, "Video not found.")
        elif path.endswith("/content"):
            self._content()
        elif self.command == "DELETE":
            self._delete(made)
        else:
            self.say(200, fake.look(made))

    def _create(self, raw: bytes) -> None:
        fake = self.service
        fault = self.next_fault()
        if fault is not None and not fault.accepted:
            self.be_faulty(fault)
            return
        kind = self.headers["Content-Type"] or ""
        picture = None
        if fake.dialect == "openrouter":
            if not kind.startswith("application/json"):
                self._error(400, 400, "Expected a JSON body.")
                return
            asked = json.loads(raw)
            wrong = _wrong_json(asked)
        else:
            if not kind.startswith("multipart/form-data"):
                self._error(415, None, "Send multipart/form-data.")
                return
            asked, files = _form(kind, raw)
            picture = files.pop("input_reference", None)
            wrong = _wrong_form(asked, fake.dialect) or next(iter(files), None)
        if wrong:
            self._error(400, "invalid_request_error", f"Invalid value: {wrong}")
        elif asked["model"] not in fake.models:
            self._error(404, "model_not_found", f"The model {asked['model']} does not exist.")
        else:
            made = fake.accept(asked, self.headers["Idempotency-Key"], picture)
            if fault is not None:
                self.be_faulty(fault)
            else:
                self.say(202 if fake.dialect == "openrouter" else 200, made.now)

    def _list(self) -> None:
        fake = self.service
        if not fake.lists or fake.dialect == "openrouter":
            self._error(405, None, "Method Not Allowed")
            return
        query = parse_qs(urlsplit(self.path).query)
        found = [m.now for m in reversed(fake.made.values())]
        if after := query.get("after"):
            found = found[[v["id"] for v in found].index(after[0]) + 1 :]
        page = found[: min(fake.page, int(query["limit"][0]))]
        told = {"object": "list", "data": page, "has_more": len(page) < len(found)}
        self.say(200, told | ({"last_id": page[-1]["id"]} if page else {}))

    def _delete(self, made: Made) -> None:
        fake = self.service
        if not fake.deletes:
            self._error(405, None, "Method Not Allowed")
            return
        with fake.lock:
            fake.made.pop(made.id)
        self.say(200, {"id": made.id, "object": "video.deleted", "deleted": True})

    def _content(self) -> None:
        fake = self.service
        if fake.content == "bytes":
            self.send_video()
        elif fake.content == "elsewhere":
            self.say(302, None, {"Location": fake.storage})
        else:
            self._error(404, None, "There is no such route.")

    def _storage(self) -> None:
        if "Authorization" in self.headers:
            self.service.leaked.append(self.path)
        self.send_video()

    def _error(self, status: int, code: str | int | None, message: str) -> None:
        error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
        self.say(status, {"error": error})


def _wrong_form(asked: dict[str, str], dialect: Dialect) -> str | None:
    """The first part of a form that a server would refuse."""
    if not asked.get("prompt") or not asked.get("model"):
        return "prompt and model are required"
    if dialect == "openai":
        allowed = {"seconds": r"4|8|12", "size": r"720x1280|1280x720|1024x1792|1792x1024"}
        unknown = sorted(asked.keys() - _OPENAI)
    else:
        allowed, unknown = _ENGINE, []
    bad = [n for n, v in asked.items() if n in allowed and not re.fullmatch(allowed[n], v)]
    return next(iter(unknown + bad), None)


def _wrong_json(asked: dict[str, Any]) -> str | None:
    if unknown := sorted(asked.keys() - _OPENROUTER):
        return unknown[0]
    kinds = {"model": str, "prompt": str, "size": str, "duration": int, "seed": int}
    for name, kind in kinds.items():
        if name in asked and type(asked[name]) is not kind:
            return name
    for frame in asked.get("frame_images", []):
        good = frame.get("type") == "image_url" and "url" in frame.get("image_url", {})
        if not good or frame.get("frame_type") not in ("first_frame", "last_frame"):
            return "frame_images"
    return None


def _form(kind: str, raw: bytes) -> tuple[dict[str, str], dict[str, bytes]]:
    """The values and the files of a multipart form, by their names."""
    message = BytesParser(policy=HTTP).parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + raw)
    values, files = {}, {}
    for part in message.iter_parts():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        assert isinstance(content, bytes)
        if part.get_filename() is None:
            values[name] = content.decode()
        else:
            files[name] = content
    return values, files
