"""Google's two video services on this machine, with every fault on order.

The Gemini API (Interactions, Files), Vertex AI (Veo), the token endpoint and Cloud Storage share
one port, told apart by their paths. What the real services refuse is refused: unknown fields, wrong
types, missing keys. The shapes are those of google-genai 3.4's types and Google's documentation.
"""

from __future__ import annotations

import base64
import json
import re
import uuid
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from fakes.google_schema import OMNI_MODELS, Refused, check_interaction, check_operation
from fakes.service import Answering, FakeService

KEY = "AIzaTestKey0123456789abcdefghijklmnopqrs"
TOKEN = "ya29.token-of-the-tests-0123456789"
PROJECT = "tests-project"
ACCOUNT = "robot@tests-project.iam.gserviceaccount.com"
GOOGLE = "https://generativelanguage.googleapis.com"
_VEO = re.compile(
    r"^/v1beta1/projects/(?P<project>[^/]+)/locations/(?P<region>[^/]+)"
    r"/publishers/google/models/(?P<model>[^/:]+):(?P<verb>\w+)$"
)


@dataclass
class Made:
    """An order: the body that asked for it, its id, and the states that it has yet to pass."""

    id: str
    body: dict[str, Any]
    ahead: deque[str]
    state: str = "in_progress"
    region: str = ""


class FakeGoogle(FakeService):
    """The server.

    `states` are what an order passes through, one at each look. `outcome` is how an interaction
    ends: with a video as ``uri`` or ``inline``, with ``text`` alone, ``empty``, with an ``error``,
    or ``lost``: a video's tokens are counted and none is there.
    `operation` replaces the response of a finished operation. `faults` are those of the next
    creates, `polls` statuses with which the next looks fail, `truncate` cuts the next downloads
    after so many bytes, `regions` says what a region answers instead of taking an order. `revoked`
    is the service account's key, `closed_bucket` keeps the account out of the bucket.
    """

    def __init__(self, *, key: str = KEY, video: bytes | None = None) -> None:
        super().__init__(_Handler, video)
        self.key = key
        self.token = TOKEN
        self.states: tuple[str, ...] = ("in_progress", "completed")
        self.outcome: Literal["uri", "inline", "text", "empty", "error", "lost"] = "uri"
        self.error: dict[str, Any] = {}
        self.at_once = False
        self.operation: dict[str, Any] | None = None
        self.polls: deque[tuple[int, str]] = deque()
        self.regions: dict[str, Refused] = {}
        self.file_states: deque[str] = deque()
        self.made: dict[str, Made] = {}
        self.uploads: dict[str, bytes] = {}
        self.objects: dict[str, bytes] = {}
        self.generation = 0
        self.revoked = False
        self.closed_bucket = False

    def expire(self) -> None:
        """All files that were handed out so far are there no more; interactions name new ones."""
        with self.lock:
            self.generation += 1

    @property
    def creates(self) -> int:
        """How many creates arrived, whatever came of them."""
        return sum(
            method == "POST" and (path.endswith(("/interactions", ":predictLongRunning")))
            for method, path in self.asked
        )

    def service_account(self, private_key: str) -> dict[str, str]:
        """What a service account's key file holds; its tokens come from here."""
        return {
            "type": "service_account",
            "project_id": PROJECT,
            "private_key_id": "0123456789abcdef",
            "private_key": private_key,
            "client_email": ACCOUNT,
            "client_id": "1234567890",
            "token_uri": f"{self.url}/token",
        }

    # --- the Gemini API ---------------------------------------------------------------------

    def interaction(self, made: Made, *, with_input: bool) -> dict[str, Any]:
        """An interaction as it is answered; one that is asked for again names its input too."""
        steps: list[dict[str, Any]] = []
        if with_input:
            steps.append({"type": "user_input", "content": made.body["input"]})
        answer: dict[str, Any] = {
            "id": made.id,
            "object": "interaction",
            "model": made.body["model"],
            "status": made.state,
            "created": "2026-11-21T10:00:00Z",
            "updated": "2026-11-21T10:01:00Z",
            "steps": steps,
        }
        if made.state == "failed":
            return answer | {"errors": [self.error]}
        if made.state != "completed":
            return answer
        content: list[dict[str, Any]] = []
        video = {"type": "video", "mime_type": "video/mp4"}
        if self.outcome == "uri":
            name = f"{made.id.removeprefix('v1_')}-{self.generation}"
            content = [video | {"uri": f"{GOOGLE}/v1beta/files/{name}:download?alt=media"}]
        elif self.outcome == "inline":
            content = [video | {"data": base64.b64encode(self.video).decode()}]
        elif self.outcome == "text":
            content = [{"type": "text", "text": "I can't make videos of that."}]
        elif self.outcome == "lost":
            answer["usage"] = {
                "output_tokens_by_modality": [{"modality": "video", "tokens": 57920}]
            }
        if self.outcome != "empty":
            output: dict[str, Any] = {"type": "model_output", "content": content}
            if self.outcome == "error":
                output["error"] = self.error
            steps += [{"type": "thought", "signature": "c2ln"}, output]
        return answer

    def create_interaction(self, body: dict[str, Any]) -> dict[str, Any]:
        """Check a request to create an interaction, and make it."""
        prompt = check_interaction(body, self.uploads)
        with self.lock:
            made = Made(f"v1_{uuid.uuid4().hex}", body, deque(self.states))
            self.made[made.id] = made
            self.bill[prompt] += 1
            if self.at_once:
                made.state, made.ahead = "completed", deque()
        return self.interaction(made, with_input=False)

    def look(self, made: Made) -> None:
        """Go on to the next state."""
        with self.lock:
            if made.ahead:
                made.state = made.ahead.popleft()

    # --- Vertex AI --------------------------------------------------------------------------

    def create_operation(self, region: str, model: str, body: dict[str, Any]) -> dict[str, Any]:
        """Check a request to a model, and make the operation."""
        refusal = self.regions.get(region)
        if refusal is not None:
            raise refusal
        prompt = check_operation(model, body)
        with self.lock:
            name = (
                f"projects/{PROJECT}/locations/{region}/publishers/google/models/{model}"
                f"/operations/{uuid.uuid4()}"
            )
            made = Made(name, body, deque(self.states), region=region)
            self.made[name] = made
            self.bill[prompt] += 1
        return {"name": name}

    def operation_of(self, made: Made) -> dict[str, Any]:
        """An operation as it is answered."""
        if made.state not in ("completed", "failed"):
            return {"name": made.id}
        if self.operation is not None:
            return {"name": made.id, "done": True, **self.operation}
        return {
            "name": made.id,
            "done": True,
            "response": {
                "@type": "type.googleapis.com/cloud.ai.large_models.vision.GenerateVideoResponse",
                "raiMediaFilteredCount": 0,
                "videos": [self.veo_video(made)],
            },
        }

    def veo_video(self, made: Made) -> dict[str, str]:
        """A finished video, within the answer or in the bucket that was named."""
        folder = made.body["parameters"].get("storageUri")
        if folder is None:
            return {
                "bytesBase64Encoded": base64.b64encode(self.video).decode(),
                "mimeType": "video/mp4",
            }
        uri = f"{folder}{made.id.rpartition('/')[2]}/sample_0.mp4"
        self.objects[uri] = self.video
        return {"gcsUri": uri, "mimeType": "video/mp4"}


class _Handler(Answering):
    service: FakeGoogle

    def answer(self, method: str) -> None:
        body = self.body()
        parts = urlsplit(self.path)
        path = unquote(parts.path)
        with self.service.lock:
            self.service.asked.append((method, path))
        try:
            self._route(method, path, parse_qs(parts.query), body)
        except Refused as refused:
            self.say(refused.status, refused.body)

    def _route(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> None:
        if path == "/token":
            self._token(body)
        elif path.startswith("/storage/v1/b/"):
            self._bearer()
            self._storage(path, query)
        elif path.startswith("/v1beta1/"):
            self._bearer()
            self._vertex(method, path, body)
        else:
            if "upload_id" not in query:  # what an upload goes to needs no key
                self._key()
            self._gemini(method, path, query, body)

    # --- keys -------------------------------------------------------------------------------

    def _key(self) -> None:
        if self.headers.get("x-goog-api-key") != self.service.key:
            reason = {
                "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                "reason": "API_KEY_INVALID",
                "domain": "googleapis.com",
            }
            message = "API key not valid. Please pass a valid API key."
            raise Refused(400, "INVALID_ARGUMENT", message, details=[reason])

    def _bearer(self) -> None:
        if self.headers.get("authorization") != f"Bearer {self.service.token}":
            message = "Request had invalid authentication credentials."
            raise Refused(401, "UNAUTHENTICATED", message)

    def _token(self, body: bytes) -> None:
        asked = parse_qs(body.decode())
        claims = asked["assertion"][0].split(".")[1]
        told = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))
        grant = "urn:ietf:params:oauth:grant-type:jwt-bearer"
        right = asked.get("grant_type") == [grant] and told["iss"] == ACCOUNT
        if self.service.revoked or not right or "cloud-platform" not in told["scope"]:
            self.say(400, {"error": "invalid_grant", "error_description": "Invalid JWT"})
        else:
            token = {"access_token": self.service.token, "expires_in": 3599, "token_type": "Bearer"}
            self.say(200, token)

    # --- the Gemini API ---------------------------------------------------------------------

    def _gemini(self, method: str, path: str, query: dict[str, list[str]], body: bytes) -> None:
        fake = self.service
        if (method, path) == ("POST", "/v1/interactions"):
            self._create(lambda: fake.create_interaction(json.loads(body)))
        elif method == "GET" and path == "/v1/models":
            self.say(200, {"models": [{"name": f"models/{name}"} for name in OMNI_MODELS]})
        elif path.startswith("/upload/v1") and path.endswith("/files"):
            self._upload(query, body)
        elif found := re.fullmatch(r"/v1(?:beta)?/files/([\w-]+)(:download)?", path):
            self._file(found[1], bool(found[2]), query)
        elif found := re.fullmatch(r"/v1/interactions/(\w+)(/cancel)?", path):
            self._fail_poll()
            made = fake.made.get(found[1])
            if made is None:
                raise Refused(400, "INVALID_ARGUMENT", f"Invalid interaction name: {found[1]}")
            if method == "POST" and found[2]:
                if made.state == "completed":
                    raise Refused(400, "FAILED_PRECONDITION", "The interaction is finished.")
                made.state, made.ahead = "cancelled", deque()
            elif method == "GET":
                fake.look(made)
            self.say(200, fake.interaction(made, with_input=method == "GET"))
        else:
            raise Refused(404, "NOT_FOUND", f"There is no {method} {path}")

    def _file(self, name: str, content: bool, query: dict[str, list[str]]) -> None:
        generation = name.rpartition("-")[2]
        if generation != str(self.service.generation):
            raise Refused(403, "PERMISSION_DENIED", "You do not have permission, or it is gone.")
        if not content:
            with self.service.lock:
                states = self.service.file_states
                state = states.popleft() if states else "ACTIVE"
            self.say(200, {"name": f"files/{name}", "mimeType": "video/mp4", "state": state})
        elif query.get("alt") != ["media"]:
            self.say(200, {})
        else:
            self.send_video(self.service.video)

    def _upload(self, query: dict[str, list[str]], body: bytes) -> None:
        commands = self.headers.get("x-goog-upload-command", "")
        if "start" in commands:
            name = uuid.uuid4().hex[:12]
            url = f"{self.service.url}{urlsplit(self.path).path}?upload_id={name}"
            headers = {"X-Goog-Upload-URL": url, "X-Goog-Upload-Status": "active"}
            self.say(200, {}, headers)
            return
        name = query["upload_id"][0]
        self.service.uploads[name] = self.service.uploads.get(name, b"") + body
        if "finalize" in commands:
            file = {
                "name": f"files/{name}",
                "uri": f"{GOOGLE}/v1beta/files/{name}",
                "mimeType": "image/png",
                "state": "ACTIVE",
            }
            self.say(200, {"file": file}, {"X-Goog-Upload-Status": "final"})
        else:
            self.say(200, {}, {"X-Goog-Upload-Status": "active"})

    # --- Vertex AI and its bucket -----------------------------------------------------------

    def _vertex(self, method: str, path: str, body: bytes) -> None:
        fake = self.service
        if method == "GET" and path.startswith("/v1beta1/publishers/google/models/"):
            self.say(200, {"name": path.removeprefix("/v1beta1/")})
            return
        found = _VEO.match(path)
        if found is None or method != "POST":
            raise Refused(404, "NOT_FOUND", f"There is no {method} {path}")
        if found["project"] != PROJECT:
            raise Refused(403, "PERMISSION_DENIED", "Permission 'aiplatform.predict' denied.")
        if found["verb"] == "predictLongRunning":
            asked = json.loads(body)
            self._create(lambda: fake.create_operation(found["region"], found["model"], asked))
        elif found["verb"] == "fetchPredictOperation":
            self._fail_poll()
            made = fake.made.get(json.loads(body)["operationName"])
            if made is None or made.region != found["region"]:
                raise Refused(404, "NOT_FOUND", "The operation was not found.")
            fake.look(made)
            self.say(200, fake.operation_of(made))
        else:
            raise Refused(404, "NOT_FOUND", f"There is no {found['verb']}")

    def _storage(self, path: str, query: dict[str, list[str]]) -> None:
        if self.service.closed_bucket:
            message = "The account does not have storage.objects.get access."
            raise Refused(403, "PERMISSION_DENIED", message)
        bucket, _, name = path.removeprefix("/storage/v1/b/").partition("/o")
        if not name:
            prefix = f"gs://{bucket}/{query.get('prefix', [''])[0]}"
            names = [uri.removeprefix(f"gs://{bucket}/") for uri in self.service.objects]
            there = [n for n in names if f"gs://{bucket}/{n}".startswith(prefix)]
            self.say(200, {"items": [{"name": n} for n in there]} if there else {})
            return
        data = self.service.objects.get(f"gs://{bucket}/{name.removeprefix('/')}")
        if data is None:
            raise Refused(404, "NOT_FOUND", "No such object")
        if query.get("alt") == ["media"]:
            self.send_video(data)
        else:
            self.say(200, {"size": str(len(data))})

    # --- answering --------------------------------------------------------------------------

    def _create(self, make: Any) -> None:
        """Carry out a create as the next fault says, else as it is."""
        fault = self.next_fault()
        if fault is None:
            self.say(200, make())
            return
        if fault.accepted:
            make()
        if fault.status is not None and fault.body is None:
            told = {"code": fault.status, "message": "On order.", "status": "ON_ORDER"}
            fault = replace(fault, body={"error": told})
        self.be_faulty(fault)

    def _fail_poll(self) -> None:
        with self.service.lock:
            status, word = self.service.polls.popleft() if self.service.polls else (0, "")
        if status:
            raise Refused(status, word, "On order.")
