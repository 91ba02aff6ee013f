"""How do the tests reach a server: within their process, or over a real connection?"""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn
from fastapi import FastAPI
from starlette.testclient import TestClient


def local_client(app: FastAPI, **options: Any) -> TestClient:
    """A client in this process that looks like a program on this machine."""
    options = {"base_url": "http://127.0.0.1", "client": ("127.0.0.1", 50_000)} | options
    return TestClient(app, **options)


@contextmanager
def running(app: FastAPI) -> Iterator[str]:
    """The address of the app, served by uvicorn on a free port of loopback as `serve` would."""
    from kinoloom.server.serve import configuration, listening, url_of

    with listening("127.0.0.1", 0) as listener:
        server = uvicorn.Server(configuration(app))
        started = threading.Event()

        async def run() -> None:
            await asyncio.gather(server.serve(sockets=[listener]), _tell(server, started))

        thread = threading.Thread(target=lambda: asyncio.run(run()))
        thread.start()
        try:
            assert started.wait(30), "the server did not start"
            yield url_of(listener)
        finally:
            server.should_exit = True
            thread.join(30)
            assert not thread.is_alive(), "the server did not end"


def raw_request(url: str, data: bytes, *, seconds: float = 30) -> bytes:
    """All that the server answers to these bytes until it closes the connection."""
    host, _, port = url.removeprefix("http://").rpartition(":")
    with socket.create_connection((host, int(port)), timeout=seconds) as connection:
        connection.sendall(data)
        answer = b""
        while chunk := connection.recv(65_536):
            answer += chunk
        return answer


async def _tell(server: uvicorn.Server, started: threading.Event) -> None:
    while not (server.started or server.should_exit):
        await asyncio.sleep(0.01)
    started.set()
