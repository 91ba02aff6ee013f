"""Replicate's API on this machine, as strict as its OpenAPI document, with every fault on order.

Finished videos lie with somebody else: at the other name of the loopback address, which refuses
whoever shows it a token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import threading
import time
import uuid
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx

from fakes.replicate_models import OFFICIAL, VERSION, mistakes, models
from fakes.service import Answering, FakeService

TOKEN = "r8_of_the_tests_0123456789"
WEBHOOK_SECRET = "whsec_" + base64.b64encode(b"replicate signs with these bytes").decode()
_EVENTS = {"start", "output", "logs", "completed"}
_ENDED = ("succeeded", "failed", "canceled", "aborted")
_PAGE = 3  # the real one has 100


@dataclass
class Prediction:
    """A prediction, and the states that it has yet to pass, one a look; ``processing:45`` has a
    progress bar in its log."""

    id: str
    model: str
    version: str
    input: dict[str, Any]
    ahead: deque[str]
    error: str | None = None
    webhook: str | None = None
    lifetime: float | None = None
    source: str = "api"
    created: datetime = field(default_factory=lambda: datetime.now(UTC))
    word: str = "starting"
    logs: str = ""
    removed: bool = False


class FakeReplicate(FakeService):
    """The server.

    `states` are what a prediction passes through, `failures` the errors by prompt, `faults` those
    of the next creates, `polls` statuses with which the next reads of a prediction fail. `output`
    makes an output of the video's address. `truncate` cuts the next downloads after so many bytes.
    `tells_webhook` and `tells_deadline` are whether predictions show these. `deliver_to` is what
    stands for ``https://studio.example`` here.
    """

    def __init__(self, *, token: str = TOKEN, video: bytes | None = None) -> None:
        super().__init__(_Handler, video)
        self.token = token
        self.models = models()
        self.official = set(OFFICIAL)
        self.states: tuple[str, ...] = ("starting", "processing:45", "succeeded")
        self.failures: dict[str, str] = {}
        self.polls: deque[int] = deque()
        self.output: Any = lambda url: url
        self.tells_webhook = False
        self.tells_deadline = True
        self.deliver_to = ""
        self.predictions: dict[str, Prediction] = {}
        self.files: dict[str, bytes] = {}
        self.delivered: list[int] = []
        self.creates = 0
        self.valid = 0

    def expire(self) -> None:
        """All addresses of finished videos that were given out so far are valid no more."""
        with self.lock:
            self.valid += 1

    def remove_data(self) -> None:
        """What happens after an hour: input, output and log of all predictions are gone."""
        with self.lock:
            for prediction in self.predictions.values():
                prediction.removed = True

    def accept(self, model: str, body: dict[str, Any], lifetime: float | None) -> Prediction:
        """A new prediction, and its place on the bill."""
        prompt = str(body["input"].get("prompt", ""))
        error = self.failures.get(prompt)
        states = self.states if error is None else (*self.states[:-1], "failed")
        made = Prediction(
            uuid.uuid4().hex[:26],
            model,
            str(body.get("version", "hidden")),
            body["input"],
            deque(states),
            error,
            body.get("webhook"),
            lifetime,
        )
        with self.lock:
            self.predictions[made.id] = made
            self.bill[prompt] += 1
        return made

    def look(self, one: Prediction) -> dict[str, Any]:
        """A prediction's document, after it went on by one state."""
        with self.lock:
            if one.ahead and one.word not in _ENDED:
                self._go_on(one, one.ahead.popleft())
            return self.told(one)

    def cancel(self, one: Prediction) -> dict[str, Any]:
        """What is left of a prediction that somebody stops."""
        with self.lock:
            if one.word not in _ENDED:
                self._go_on(one, "canceled" if one.word == "processing" else "aborted")
            return self.told(one)

    def finish(self, one: Prediction) -> None:
        """The prediction succeeds, and its webhook is called."""
        with self.lock:
            self._go_on(one, "succeeded")

    def told(self, one: Prediction) -> dict[str, Any]:
        """A prediction as it is."""
        done = one.word == "succeeded"
        address = f"{self.storage}/out/{one.id}/clip.mp4?v={self.valid}"
        get = f"{self.url}/v1/predictions/{one.id}"
        said: dict[str, Any] = {
            "id": one.id,
            "model": one.model,
            "version": one.version,
            "input": {} if one.removed else one.input,
            "logs": "" if one.removed else one.logs,
            "output": self.output(address) if done and not one.removed else None,
            "data_removed": one.removed,
            "error": one.error if one.word == "failed" else None,
            "source": one.source,
            "status": one.word,
            "created_at": _stamp(one.created),
            "urls": {
                "web": f"https://replicate.com/p/{one.id}",
                "get": get,
                "cancel": f"{get}/cancel",
            },
        }
        if one.lifetime is not None and self.tells_deadline:
            said["deadline"] = _stamp(one.created + timedelta(seconds=one.lifetime))
        if one.webhook is not None and self.tells_webhook:
            said["webhook"] = one.webhook
        if one.word in _ENDED:
            said["metrics"] = {"predict_time": 12.5, "total_time": 14.0}
        return said

    def _go_on(self, one: Prediction, state: str) -> None:
        one.word, _, percent = state.partition(":")
        if percent:
            one.logs += (
                f"\r{percent:>3}%|####      | {int(percent) // 5}/20 [00:04<00:05,  2.0it/s]"
            )
        if one.word in _ENDED and one.webhook is not None and self.deliver_to:
            body = json.dumps(self.told(one)).encode()
            url = one.webhook.replace("https://studio.example", self.deliver_to)
            threading.Thread(target=self._deliver, args=(url, body)).start()

    def _deliver(self, url: str, body: bytes) -> None:
        answer = httpx.post(url, content=body, headers=signed(body), trust_env=False)
        with self.lock:
            self.delivered.append(answer.status_code)


def signed(
    body: bytes, *, secret: str = WEBHOOK_SECRET, at: int | None = None, name: str = "msg_1"
) -> dict[str, str]:
    """The headers of a webhook as Replicate sends it."""
    stamp = int(time.time()) if at is None else at
    key = base64.b64decode(secret.removeprefix("whsec_"))
    digest = hmac.digest(key, f"{name}.{stamp}.".encode() + body, hashlib.sha256)
    return {
        "Content-Type": "application/json",
        "webhook-id": name,
        "webhook-timestamp": str(stamp),
        "webhook-signature": "v1,b3RoZXI= v1," + base64.b64encode(digest).decode(),
    }


class _Handler(Answering):
    service: FakeReplicate

    def answer(self, method: str) -> None:
        fake = self.service
        address = urlsplit(self.path)
        with fake.lock:
            fake.asked.append((method, address.path))
        body = self.body()
        parts = address.path.strip("/").split("/")
        if parts[0] == "out":
            return self._video(address.query)
        if self.headers["Authorization"] != f"Bearer {fake.token}":
            return self._problem(
                401, "Unauthenticated", "You did not pass a valid authentication token"
            )
        if parts[:2] == ["v1", "models"]:
            return self._model(method, parts[2:], body)
        if (method, parts) == ("POST", ["v1", "predictions"]):
            return self._create(None, body)
        if (method, parts) == ("GET", ["v1", "predictions"]):
            return self._list(parse_qs(address.query))
        if parts[:2] == ["v1", "predictions"] and len(parts) in (3, 4):
            return self._prediction(method, parts[2:])
        if (method, parts) == ("POST", ["v1", "files"]):
            return self._file(body)
        if (method, parts) == ("GET", ["v1", "account"]):
            return self.say(200, {"type": "user", "username": "tester", "name": "A Tester"})
        self._problem(404, "Not found", "The requested resource could not be found.")
        return None

    def _model(self, method: str, parts: list[str], body: bytes) -> None:
        fake = self.service
        name = "/".join(parts[:2])
        document = fake.models.get(name)
        if document is None:
            return self._problem(
                404, "Model not found", "The requested resource could not be found."
            )
        if method == "POST" and parts[2:] == ["predictions"]:
            if name not in fake.official:
                return self._problem(404, "Not found", "The requested resource could not be found.")
            return self._create(name, body)
        version = {"id": VERSION, "cog_version": "0.16.7", "openapi_schema": document}
        if method == "GET" and parts[2:] == ["versions", VERSION]:
            return self.say(200, version)
        if method == "GET" and not parts[2:]:
            owner, _, short = name.partition("/")
            official = name in fake.official
            told = {"owner": owner, "name": short, "is_official": official}
            return self.say(200, told | {"latest_version": version, "visibility": "public"})
        self._problem(404, "Not found", "The requested resource could not be found.")
        return None

    def _create(self, name: str | None, raw: bytes) -> None:
        fake = self.service
        with fake.lock:
            fake.creates += 1
        fault = self.next_fault()
        if fault is not None and not fault.accepted:
            return self.be_faulty(fault)
        body = json.loads(raw)
        allowed = {"input", "webhook", "webhook_events_filter", *(() if name else ("version",))}
        wrong = [f"{key}: Additional property is not allowed" for key in body.keys() - allowed]
        if name is None:
            if not isinstance(body.get("version"), str) or body["version"] != VERSION:
                return self._problem(
                    422, "Invalid version or not permitted", "The specified version does not exist"
                )
            name = "someone/animate"
        if not isinstance(body.get("input"), dict):
            return self._problem(422, "Input validation failed", "input is required")
        wrong += mistakes(fake.models[name], body["input"])
        if "Prefer" in self.headers:
            wrong.append("nobody waits here")
        if not str(body.get("webhook", "https://")).startswith("https://"):
            wrong.append("webhook must be an HTTPS URL")
        if not set(body.get("webhook_events_filter", ())) <= _EVENTS:
            wrong.append("webhook_events_filter is not valid")
        lifetime = self.headers["Cancel-After"]
        if lifetime is not None and not re.fullmatch(r"\d+s", lifetime):
            wrong.append("Cancel-After is not a duration")
        for value in body["input"].values():
            if isinstance(value, str) and value.startswith("data:") and len(value) > 256_000:
                wrong.append("a data URL is larger than 256kb")
            if isinstance(value, str) and "/v1/files/" in value and value not in fake.files:
                wrong.append("the file does not exist")
        if wrong:
            return self._problem(422, "Input validation failed", "\n".join(wrong))
        made = fake.accept(name, body, float(lifetime[:-1]) if lifetime else None)
        if fault is not None:
            return self.be_faulty(fault)
        self.say(201, fake.told(made))
        return None

    def _prediction(self, method: str, parts: list[str]) -> None:
        fake = self.service
        with fake.lock:
            one = fake.predictions.get(parts[0])
            bad = fake.polls.popleft() if fake.polls else None
        if bad is not None:
            return self._problem(bad, "Trouble", "Something is wrong.", {"Retry-After": "0"})
        if one is None:
            return self._problem(404, "Prediction not found", "The prediction could not be found.")
        if (method, parts[1:]) == ("POST", ["cancel"]):
            return self.say(200, fake.cancel(one))
        self.say(200, fake.look(one))
        return None

    def _list(self, query: dict[str, list[str]]) -> None:
        fake = self.service
        start = int(query.get("cursor", ["0"])[0])
        after = query.get("created_after", [""])[0]
        with fake.lock:
            newest = sorted(fake.predictions.values(), key=lambda p: p.created, reverse=True)
            listed = [p for p in newest if not after or _stamp(p.created) >= after]
            page = [fake.told(p) for p in listed[start : start + _PAGE]]
        following = None
        if len(listed) > start + _PAGE:
            following = f"{fake.url}/v1/predictions?cursor={start + _PAGE}&created_after={after}"
        self.say(200, {"next": following, "previous": None, "results": page})

    def _file(self, raw: bytes) -> None:
        fake = self.service
        kind = self.headers["Content-Type"] or ""
        boundary = kind.partition("boundary=")[2].encode()
        parts = raw.split(b"--" + boundary)[1:-1] if boundary else []
        found = [p[2:-2].partition(b"\r\n\r\n") for p in parts]
        content = [body for head, _, body in found if b'name="content"' in head]
        if not kind.startswith("multipart/form-data") or len(content) != 1:
            return self._problem(400, "Bad request", "Missing content")
        name = uuid.uuid4().hex
        address = f"{fake.url}/v1/files/{name}"
        with fake.lock:
            fake.files[address] = content[0]
        self.say(201, {"id": name, "urls": {"get": address}, "size": len(content[0])})
        return None

    def _video(self, query: str) -> None:
        fake = self.service
        if "Authorization" in self.headers:
            fake.leaked.append(self.path)
        if parse_qs(query).get("v") != [str(fake.valid)]:
            return self._problem(404, "Not found", "Not found.")
        return self.send_video()

    def _problem(
        self, status: int, title: str, detail: str, headers: dict[str, str] | None = None
    ) -> None:
        self.say(status, {"title": title, "detail": detail, "status": status}, headers)


def _stamp(when: datetime) -> str:
    return when.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
