from __future__ import annotations

import base64
import hashlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kinoloom.config import Settings
from kinoloom.errors import Conflict, NetworkFailed
from kinoloom.jobs import webhooks
from kinoloom.jobs.webhooks import deliver, sign
from kinoloom.store.job_record import JobRecord, JobState

SECRET = "whsec_" + base64.b64encode(b"a key of some bytes").decode()


class Call(NamedTuple):
    path: str
    headers: dict[str, str]
    body: bytes


class Receiver:
    """A server on this machine that is called, and answers with a status."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.status = 204
        self.headers: dict[str, str] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                headers = {name.lower(): value for name, value in self.headers.items()}
                receiver.calls.append(Call(self.path, headers, body))
                self.send_response(receiver.status)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/told"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    receiver = Receiver()
    yield receiver
    receiver.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", webhook_secret=SECRET)


def job(state: JobState = "succeeded", **changes: Any) -> JobRecord:
    now = datetime.now(UTC)
    record = JobRecord(
        queue="cpu",
        origin="api",
        request={"prompt": "a red ball", "image": "/home/somebody/picture.png"},
        plan={"output": "/home/somebody/clip.mp4"},
        task="t2v",
        model="spark",
        backend="local",
        prompt="a red ball",
        state=state,
        run=2,
        created_at=now,
        started_at=now,
        finished_at=now,
        clip_id="clip-1" if state == "succeeded" else None,
        webhook="https://user:password@example.com/hook?token=secret",
    )
    return replace(record, **changes)


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """HMAC as RFC 2104 writes it down."""
    key = hashlib.sha256(key).digest() if len(key) > 64 else key
    key = key.ljust(64, b"\0")
    inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in key) + message).digest()
    return hashlib.sha256(bytes(byte ^ 0x5C for byte in key) + inner).digest()


def test_the_signature_is_that_of_the_specification() -> None:
    # The example that the authors of the specification give for their libraries.
    signature = sign(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert signature == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", ["any text", "whsec_not base64!", "ключ"])
def test_a_secret_that_is_no_base64_counts_as_text(secret: str) -> None:
    expected = base64.b64encode(hmac_sha256(secret.encode(), b"id.7.body")).decode()
    assert sign(secret, "id", 7, b"body") == f"v1,{expected}"


def test_whoever_is_called_can_check_who_called(receiver: Receiver, settings: Settings) -> None:
    done = job()
    before = int(time.time())
    deliver(receiver.url, done, settings)
    (call,) = receiver.calls
    assert call.path == "/told"
    stamp = call.headers["webhook-timestamp"]
    assert before <= int(stamp) <= time.time()
    signed = f"{call.headers['webhook-id']}.{stamp}.".encode() + call.body
    expected = base64.b64encode(hmac_sha256(b"a key of some bytes", signed)).decode()
    assert call.headers["webhook-signature"] == f"v1,{expected}"
    assert call.headers["content-type"] == "application/json"


def test_what_is_told_names_the_job_and_no_secret_or_place(
    receiver: Receiver, settings: Settings
) -> None:
    done = job()
    deliver(receiver.url, done, settings)
    (call,) = receiver.calls
    told = json.loads(call.body)
    assert told["type"] == "job.succeeded"
    assert told["timestamp"] == done.as_dict()["finished_at"]
    assert told["data"]["id"] == done.id
    assert told["data"]["state"] == "succeeded"
    assert told["data"]["links"] == {"self": f"/api/jobs/{done.id}", "clip": "/api/clips/clip-1"}
    for hidden in (b"/home", b"password", b"token", SECRET.encode()):
        assert hidden not in call.body


@pytest.mark.parametrize(
    ("state", "kind"),
    [("failed", "job.failed"), ("dead", "job.failed"), ("cancelled", "job.cancelled")],
)
def test_every_end_has_its_type(
    receiver: Receiver, settings: Settings, state: JobState, kind: str
) -> None:
    error = {"kind": "timeout", "message": "It took too long.", "cause": "", "hints": []}
    deliver(receiver.url, job(state, error=error), settings)
    told = json.loads(receiver.calls[0].body)
    assert told["type"] == kind
    assert told["data"]["state"] == state
    assert told["data"]["error"] == error


def test_each_attempt_has_the_same_id_and_another_run_another(
    receiver: Receiver, settings: Settings
) -> None:
    done = job()
    for record in (done, done, replace(done, run=3)):
        deliver(receiver.url, record, settings)
    first, second, third = (call.headers["webhook-id"] for call in receiver.calls)
    assert first == second != third


def test_without_a_secret_nothing_is_signed(receiver: Receiver, tmp_path: Path) -> None:
    deliver(receiver.url, job(), Settings(home=tmp_path))
    assert "webhook-signature" not in receiver.calls[0].headers


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 599])
def test_what_may_succeed_later_is_tried_again(
    receiver: Receiver, settings: Settings, status: int
) -> None:
    receiver.status = status
    receiver.headers["Retry-After"] = "17"
    with pytest.raises(NetworkFailed, match=str(status)) as caught:
        deliver(receiver.url, job(), settings)
    assert "17" in caught.value.cause


@pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 405, 410])
def test_what_will_not_succeed_is_final(
    receiver: Receiver, settings: Settings, status: int
) -> None:
    receiver.status = status
    receiver.headers["Location"] = receiver.url
    with pytest.raises(Conflict, match=str(status)):
        deliver(receiver.url, job(), settings)
    assert len(receiver.calls) == 1  # no redirect was followed


def test_nobody_there_is_tried_again_without_telling_the_address(
    receiver: Receiver, settings: Settings
) -> None:
    url = receiver.url.replace("http://", "http://user:password@") + "?token=secret"
    receiver.close()
    with pytest.raises(NetworkFailed) as caught:
        deliver(url, job(), settings)
    shown = str(caught.value.as_dict())
    assert "127.0.0.1" in shown
    assert "password" not in shown
    assert "secret" not in shown


def test_somebody_who_never_answers_is_given_up(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "TIMEOUT_SECONDS", 0.2)
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,  # it accepts, and says nothing
        pytest.raises(NetworkFailed, match="cannot be reached"),
    ):
        deliver(f"http://127.0.0.1:{silent.getsockname()[1]}/", job(), settings)


def test_only_a_job_of_this_machine_calls_this_machine(
    receiver: Receiver, settings: Settings
) -> None:
    with pytest.raises(NetworkFailed, match="not one that this server may call"):
        deliver(receiver.url, job(owner="a-key"), settings)
    assert receiver.calls == []


@pytest.mark.parametrize("host", ["169.254.169.254", "10.0.0.1", "[::ffff:192.168.0.1]", "0.0.0.0"])
def test_nobody_calls_into_the_network(settings: Settings, host: str) -> None:
    for owner in (None, "a-key"):
        with pytest.raises(NetworkFailed, match="not one that this server may call"):
            deliver(f"http://{host}/hook", job(owner=owner), settings)
