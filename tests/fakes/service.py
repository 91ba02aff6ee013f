"""What do the fakes of services on the internet have in common?

A real HTTP server on this machine, a bill, faults on order, and a video that may be cut off.
"""

from __future__ import annotations

import json
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from fakes.clip import small_mp4


@dataclass
class Fault:
    """What happens to the next create: whether the order comes about, and what is answered.

    `status` None drops the connection. With `hold` the answer waits until the fake is released.
    """

    accepted: bool
    status: int | None = None
    body: Any = None
    headers: dict[str, str] = field(default_factory=dict)
    hold: bool = False


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


class FakeService:
    """The server, a context manager. `bill` counts by prompt how often a create was charged.

    `faults` are those of the next creates; `truncate` cuts the next downloads after so many bytes;
    `asked` are the methods and paths of all requests, `leaked` the addresses that were shown a key
    which is none of theirs. `storage` is the same server by the other name of the loopback address.
    """

    def __init__(self, handler: type[Answering], video: bytes | None = None) -> None:
        self.video = small_mp4() if video is None else video
        self.faults: deque[Fault] = deque()
        self.truncate: deque[int] = deque()
        self.bill: Counter[str] = Counter()
        self.asked: list[tuple[str, str]] = []
        self.leaked: list[str] = []
        self.lock = threading.RLock()
        self.released = threading.Event()
        mine = type("Handler", (handler,), {"service": self})
        self._server = _Server(("127.0.0.1", 0), mine)
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
        """The next create gets no answer, whether or not the order came about."""
        self.faults.append(Fault(accepted))

    def answer_create(
        self, status: int, body: Any = None, *, accepted: bool = False, **headers: str
    ) -> None:
        """The next create is answered so."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.faults.append(Fault(accepted, status, body, named))


class Answering(BaseHTTPRequestHandler):
    """One request to a fake; `answer` is what each one of them does."""

    service: Any
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Nothing: the tests look at `asked`."""

    def do_GET(self) -> None:
        self.answer("GET")

    def do_POST(self) -> None:
        self.answer("POST")

    def do_PUT(self) -> None:
        self.answer("PUT")

    def do_DELETE(self) -> None:
        self.answer("DELETE")

    def answer(self, method: str) -> None:
        raise NotImplementedError

    def body(self) -> bytes:
        """What was sent."""
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def next_fault(self) -> Fault | None:
        """What is to happen to this create, if anything is."""
        with self.service.lock:
            return self.service.faults.popleft() if self.service.faults else None

    def be_faulty(self, fault: Fault) -> None:
        """Answer as a fault says."""
        if fault.hold:
            self.service.released.wait(30)
        if fault.status is None:
            self.drop()
        else:
            self.say(fault.status, fault.body, fault.headers)

    def say(self, status: int, body: Any = None, headers: Mapping[str, str] | None = None) -> None:
        """Answer with JSON, or with bytes as they are."""
        raw = (
            body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        )
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Type", "application/json; charset=UTF-8")
            self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def send_video(self, data: bytes | None = None) -> None:
        """The video, or what was asked of it; cut off where that is to happen."""
        asked = self.headers.get("Range") or ""
        start = int(asked.removeprefix("bytes=").partition("-")[0] or 0)
        with self.service.lock:
            cut = self.service.truncate.popleft() if self.service.truncate else None
        rest = (self.service.video if data is None else data)[start:]
        self.send_response(206 if asked else 200)
        self.send_header("Content-Type", "video/mp4")
        self.send_header("Content-Length", str(len(rest)))
        self.end_headers()
        self.wfile.write(rest[:cut])
        if cut is not None:
            self.drop()

    def drop(self) -> None:
        """End the connection without another word."""
        self.close_connection = True
        self.wfile.flush()
        self.connection.shutdown(2)
