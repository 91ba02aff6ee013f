"""A chat endpoint in the shape of OpenAI's on this machine, which answers what it is told to."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self


class FakeChat:
    """The server, a context manager. `answer` is the text of the next answers, `status` their
    status, `raw` what is sent in place of a proper answer, `delay` the seconds before it."""

    def __init__(self, *, key: str | None = None, model: str = "rewriter") -> None:
        self.key = key
        self.model = model
        self.answer: Any = "a calm scene"
        self.status = 200
        self.raw: bytes | None = None
        self.drop = False
        self.delay = 0.0
        self.asked: list[dict[str, Any]] = []
        fake = self

        class Handler(_Handler):
            server_of_tests = fake

        class Server(ThreadingHTTPServer):
            daemon_threads = True

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    server_of_tests: FakeChat
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        pass

    def do_POST(self) -> None:
        fake = self.server_of_tests
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)))
        fake.asked.append(body)
        time.sleep(fake.delay)
        if fake.drop:
            self.close_connection = True
            self.connection.shutdown(2)
            return
        if self.path != "/v1/chat/completions":
            self._say(404, {"error": {"message": "no such path"}})
        elif fake.key is not None and self.headers["Authorization"] != f"Bearer {fake.key}":
            self._say(401, {"error": {"message": "Incorrect API key provided"}})
        elif body.get("model") != fake.model or not body.get("messages"):
            self._say(400, {"error": {"message": "model and messages are required"}})
        else:
            message = {"role": "assistant", "content": fake.answer}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            self._say(fake.status, {"object": "chat.completion", "choices": [choice]})

    def _say(self, status: int, body: Any) -> None:
        fake = self.server_of_tests
        raw = json.dumps(body).encode() if fake.raw is None else fake.raw
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        with contextlib.suppress(OSError):  # who asked may have stopped to listen
            self.wfile.write(raw)
