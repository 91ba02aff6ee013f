"""Can users and their programs do with `kinoloom serve` what its documentation says?

Everything here is a real process, and is spoken to only as its clients can: over the network and
with the commands of `kinoloom`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from websockets.sync.client import connect

from acceptance.stage import LIMIT, Program, Stage, until
from api_client import png

pytestmark = [
    pytest.mark.slow,
    # The client says of each of its methods that OpenAI's own service has ended.
    pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning"),
]

ENDED = ("succeeded", "failed", "cancelled", "dead")
HEAVY = ("libtorch", "numpy", "/cv2/", "/av/", "av.libs", "/PIL/", "pillow.libs")
"""What is part of the path of a library that the server must not load."""


@dataclass
class Served:
    """A running server, as its clients know it."""

    program: Program
    stage: Stage
    client: httpx.Client

    @property
    def address(self) -> str:
        return str(self.client.base_url).rstrip("/")

    def get(self, path: str, **options: Any) -> httpx.Response:
        """What it answers, which is no error."""
        return self.client.get(path, **options).raise_for_status()

    def ask(self, **body: Any) -> dict[str, Any]:
        """The job of a new clip."""
        given = {"prompt": "a red ball rolling", "size": "64x64", "frames": 9} | body
        answer = self.client.post("/api/clips", json=given)
        assert answer.status_code == 202, answer.text
        job: dict[str, Any] = answer.json()
        assert answer.headers["location"] == job["links"]["self"]
        return job

    def ended(self, job: str) -> dict[str, Any]:
        """The job once it has ended."""
        found: dict[str, Any] = {}

        def look() -> bool:
            found.update(self.get(f"/api/jobs/{job}").json())
            return found["state"] in ENDED

        patiently(look, f"the job {job} ends")
        return found

    def succeeded(self, job: str) -> dict[str, Any]:
        found = self.ended(job)
        assert found["state"] == "succeeded", found["error"]
        return found

    def events(self, job: str, after: int = 0) -> list[dict[str, Any]]:
        """The job's events after a number, by polling."""
        query = {"job": job, "after": after, "limit": 500}
        found: list[dict[str, Any]] = self.get("/api/events", params=query).json()["events"]
        return found


@contextmanager
def serving(stage: Stage) -> Iterator[Served]:
    """A server with its worker, once it says that both are ready."""
    program = stage.start("serve", "--port", "0")
    until(lambda: "Kinoloom is at" in program.said() or not program.running, "the server starts")
    assert program.running, program.said()
    address = program.said().partition("Kinoloom is at ")[2].split()[0]
    with httpx.Client(base_url=address, timeout=LIMIT) as client:
        patiently(lambda: client.get("/ready").status_code == 200, "the worker is there")
        yield Served(program, stage, client)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory, chaos_cards: Path) -> Iterator[Served]:
    """One server for the tests that leave it as it was."""
    with Stage(tmp_path_factory.mktemp("served"), chaos_cards) as stage, serving(stage) as found:
        yield found


@pytest.fixture
def stage(tmp_path: Path, chaos_cards: Path) -> Iterator[Stage]:
    with Stage(tmp_path, chaos_cards) as stage:
        yield stage


def test_a_clip_from_the_words_to_the_end(served: Served) -> None:
    job = served.ask(prompt="a green ball on grass", seed=11)
    seen: list[dict[str, Any]] = []
    address = served.address.replace("http", "ws", 1)
    with connect(f"{address}/api/events?job={job['id']}&after=0") as socket:
        while not any(event["type"] == "success" for event in seen):
            message = json.loads(socket.recv(timeout=LIMIT))
            assert len(message.get("events", ())) <= 10
            seen += message.get("events", ())
    states = [event["data"]["state"] for event in seen if event["type"] == "state"]
    assert states == ["queued", "running", "succeeded"]
    phases = [event["data"]["phase"] for event in seen if event["type"] == "progress"]
    assert "denoise" in phases
    numbers = [event["number"] for event in seen]
    assert numbers == sorted(set(numbers))

    job = served.get(f"/api/jobs/{job['id']}").json()
    clip = served.get(job["links"]["clip"]).json()
    assert (clip["seed"], clip["width"], clip["frames"]) == (11, 64, 9)
    assert clip["id"] == seen[-1]["data"]["clip"]

    links = clip["links"]
    whole = served.get(links["file"])
    part = served.get(links["file"], headers={"Range": "bytes=4-99"})
    assert whole.headers["content-type"] == "video/mp4"
    assert whole.content[4:8] == b"ftyp"
    assert (part.status_code, part.content) == (206, whole.content[4:100])
    assert part.headers["content-range"] == f"bytes 4-99/{len(whole.content)}"
    assert served.get(links["thumbnail"]).content.startswith(b"\x89PNG")
    assert served.get(links["preview"]).content.startswith(b"GIF89a")
    assert served.get(links["record"]).json()["request"]["seed"] == 11

    assert served.get("/api/statistics").json()["tasks"]["t2v"]["clips"] >= 1
    found = served.get("/api/clips", params={"search": "GRASS green"}).json()["items"]
    assert [item["id"] for item in found] == [clip["id"]]

    again = served.succeeded(served.ask(prompt="a green ball on grass", seed=11)["id"])
    assert (again["reused"], again["clip_id"]) == (True, clip["id"])

    assert served.client.delete(links["self"]).status_code == 204
    for gone in (links["self"], links["file"], links["preview"]):
        answer = served.client.get(gone)
        assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")


def test_a_picture_in_a_form_is_brought_to_life(served: Served) -> None:
    answer = served.client.post(
        "/api/clips",
        data={"prompt": "it begins to roll", "frames": "9", "seed": "12"},
        files={"image": ("C:\\..\\ball.png", png(64, 64))},
    )
    assert answer.status_code == 202, answer.text
    job = served.succeeded(answer.json()["id"])
    assert (job["task"], job["request"]["image"][:7]) == ("i2v", "sha256:")
    assert served.get(f"{job['links']['clip']}/file").content[4:8] == b"ftyp"


def test_a_running_job_stops_within_a_step(served: Served) -> None:
    job = served.ask(size="512x512", frames=97, steps=40, seed=13)["id"]

    def steps(after: int = 0) -> list[int]:
        told = (event["data"] for event in served.events(job, after) if event["type"] == "progress")
        return [data["step"] for data in told if data["phase"] == "denoise" and data.get("step")]

    patiently(steps, "the first step is done")
    assert served.client.post(f"/api/jobs/{job}/cancel").status_code == 200
    assert served.ended(job)["state"] == "cancelled"
    numbers = [
        event["number"]
        for event in served.events(job)
        if event["type"] == "state" and event["data"]["state"] == "cancelling"
    ]
    before = [
        event["data"]["step"]
        for event in served.events(job)
        if event["type"] == "progress"
        and event["data"]["phase"] == "denoise"
        and event["number"] < numbers[0]
    ]
    assert all(step <= max(before) + 1 for step in steps(numbers[0]))
    again = served.client.post(f"/api/jobs/{job}/cancel")
    assert (again.status_code, again.json()["kind"]) == (409, "conflict")
    assert "cancelled" in again.text


def test_a_webhook_tells_the_end_and_who_says_so(served: Served) -> None:
    with receiver() as (address, calls):
        job = served.ask(seed=14, webhook=address)["id"]
        headers, body = calls.get(timeout=LIMIT)
    told = json.loads(body)
    assert (told["type"], told["data"]["id"]) == ("job.succeeded", job)
    assert served.get(told["data"]["links"]["clip"]).json()["seed"] == 14
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
    secret = served.stage.settings.webhook_secret
    assert secret is not None
    expected = hmac.new(secret.get_secret_value().encode(), signed, hashlib.sha256).digest()
    assert headers["webhook-signature"] == "v1," + base64.b64encode(expected).decode()


def test_the_official_openai_client_makes_a_video(served: Served, tmp_path: Path) -> None:
    client = openai.OpenAI(base_url=f"{served.address}/v1", api_key="none", timeout=LIMIT)
    video = client.videos.create_and_poll(
        model="tiny",
        prompt="a red square",
        size="64x64",  # type: ignore[arg-type]
        extra_body={"num_frames": 9, "seed": 15},
    )
    assert video.status == "completed", video.error
    client.videos.download_content(video.id).write_to_file(tmp_path / "square.mp4")
    assert (tmp_path / "square.mp4").read_bytes()[4:8] == b"ftyp"


def test_the_command_line_sees_the_jobs_of_the_server(served: Served) -> None:
    job = served.succeeded(served.ask(seed=16)["id"])
    code, said = run(served.stage, "jobs", "list", "--json")
    assert code == 0, said
    found = {item["id"]: item for item in json.loads(said)["jobs"]}
    assert (found[job["id"]]["state"], found[job["id"]]["clip_id"]) == ("succeeded", job["clip_id"])


def test_a_stream_goes_on_where_it_broke(served: Served) -> None:
    job = served.ask(seed=17, steps=8)["id"]
    first = stream(served, job, lambda event: event["type"] == "state")  # and then it breaks
    served.succeeded(job)
    second = stream(
        served,
        job,
        lambda event: event["type"] == "success",
        headers={"Last-Event-ID": str(first[-1]["number"])},
    )
    kept = [event for event in first + second if event["type"] in ("state", "success")]
    assert [event["data"].get("state") for event in kept] == [
        "queued",
        "running",
        "succeeded",
        None,
    ]
    numbers = [event["number"] for event in first + second]
    assert numbers == sorted(set(numbers))
    assert {event["number"] for event in served.events(job)} <= set(numbers)


def test_the_server_itself_loads_nothing_heavy(served: Served) -> None:
    served.succeeded(served.ask(seed=18)["id"])
    libraries = Path(f"/proc/{served.program.pid}/maps").read_text()
    assert "pydantic_core" in libraries  # else this looks at nothing
    assert [name for name in HEAVY if name in libraries] == []


def test_ctrl_c_ends_the_server_and_all_that_it_began(stage: Stage) -> None:
    with serving(stage) as served:
        job = served.ask(size="512x512", frames=97, steps=40)["id"]
        patiently(
            lambda: any(event["type"] == "progress" for event in served.events(job)),
            "it renders",
        )
        assert len(stage.pids()) >= 3  # server, worker, child
        os.killpg(served.program.pid, signal.SIGINT)  # as a terminal does: all of them get it
        assert served.program.process.wait(LIMIT) == 0, served.program.said()
    assert "Traceback" not in served.program.said()
    until(lambda: not stage.pids(), "no process is left", 30)
    # The job waits for the next server.
    code, said = run(stage, "jobs", "show", job, "--json")
    assert code == 0, said
    assert json.loads(said)["state"] in ("queued", "running")


def test_a_server_for_others_needs_a_key(stage: Stage) -> None:
    code, said = run(stage, "serve", "--host", "0.0.0.0", "--port", "0")
    assert code == 1
    assert "error (authentication): " in said
    assert "kinoloom keys create" in said
    assert "Traceback" not in said

    code, said = run(stage, "keys", "create", "me", "--scope", "read")
    assert code == 0, said
    key = next(word for word in said.split() if word.startswith("kl_"))
    program = stage.start("serve", "--host", "0.0.0.0", "--port", "0", "--no-worker")
    until(lambda: "Kinoloom is at" in program.said() or not program.running, "the server starts")
    assert program.running, program.said()
    address = program.said().partition("Kinoloom is at ")[2].split()[0]
    with httpx.Client(base_url=address, timeout=LIMIT) as client:
        assert client.get("/health").status_code == 200
        refused = client.get("/api/jobs")
        assert (refused.status_code, refused.json()["kind"]) == (401, "authentication")
        taken = client.get("/api/jobs", headers={"Authorization": f"Bearer {key}"})
        assert (taken.status_code, taken.json()["items"]) == (200, [])
    assert program.end(signal.SIGTERM) == 0
    assert key not in program.said()


def test_a_port_that_is_taken_is_named(stage: Stage) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        code, said = run(stage, "serve", "--port", str(port))
    assert code == 1
    assert f"error (conflict): Port {port} of 127.0.0.1 is in use." in said
    assert "Traceback" not in said


def patiently(condition: Callable[[], object], what: str) -> None:
    """`until` for what is asked of a server, which takes ten requests a second."""

    def look() -> bool:
        time.sleep(0.2)
        return bool(condition())

    until(look, what)


def run(stage: Stage, *arguments: str) -> tuple[int, str]:
    """The exit code of a command, and all that it wrote."""
    program = stage.start(*arguments)
    code = program.process.wait(LIMIT)
    return code, program.said()


def stream(
    served: Served,
    job: str,
    enough: Callable[[dict[str, Any]], bool],
    headers: dict[str, str] | None = None,
) -> list[dict[str, Any]]:
    """A job's events as a browser gets them, from the beginning up to one that is enough."""
    found = []
    wanted = {"Accept": "text/event-stream"} | (headers or {})
    query = {"job": job} if headers else {"job": job, "after": "0"}
    with served.client.stream("GET", "/api/events", params=query, headers=wanted) as answer:
        for line in answer.iter_lines():
            if line.startswith("data: "):
                found.append(json.loads(line.removeprefix("data: ")))
                if enough(found[-1]):
                    return found
    pytest.fail(f"the stream ended after {found}")


@contextmanager
def receiver() -> Iterator[tuple[str, queue.Queue[tuple[dict[str, str], bytes]]]]:
    """The address of somebody who wants to be told, and what they were told."""
    calls: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            calls.put(({name.lower(): value for name, value in self.headers.items()}, body))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/told", calls
        finally:
            server.shutdown()
            thread.join()
