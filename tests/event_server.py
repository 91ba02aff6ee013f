"""How do the tests of events hear from a real server: by websocket, stream or poll?"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from hearing import DEADLINE
from kinoloom.config import Settings
from kinoloom.jobs.service import JobService
from kinoloom.server.app import create_app
from kinoloom.store.store import Store
from serving import running

Message = dict[str, Any]
STREAM = {"Accept": "text/event-stream"}


class Served:
    """A server of its own, the store behind it, and how to hear from it."""

    def __init__(self, app: FastAPI, store: Store, url: str) -> None:
        self.app, self.store, self.url = app, store, url
        self.address = url.replace("http", "ws", 1) + "/api/events"

    def websocket(
        self, query: str = "", **options: Any
    ) -> AbstractContextManager[ClientConnection]:
        return connect(self.address + query, open_timeout=DEADLINE, **options)


@contextmanager
def serving(home: Path, *, require_key: bool = False, **options: Any) -> Iterator[Served]:
    settings = Settings(home=home, rate_limit=0, **options)
    with Store.of(settings) as store:
        service = JobService(settings, store)
        try:
            app = create_app(settings, store, service, require_key=require_key)
            with running(app) as url:
                served = Served(app, store, url)
                try:
                    yield served
                finally:
                    app.state.hub.close()
        finally:
            service.close()


def said(client: ClientConnection) -> Message:
    message: Message = json.loads(client.recv(timeout=DEADLINE))
    return message


def heard(client: ClientConnection, until: int) -> list[Message]:
    """The events that a client is sent until it has heard of that number."""
    events: list[Message] = []
    last = 0
    while last < until:
        message = said(client)
        last = message["last"]
        events += message.get("events", [])
    return events


def how_it_ended(client: ClientConnection) -> tuple[int, str]:
    with suppress(ConnectionClosed):
        while True:
            client.recv(timeout=DEADLINE)
    assert client.close_code is not None
    return client.close_code, client.close_reason or ""


def in_threads(*functions: Callable[[], None]) -> list[threading.Thread]:
    threads = [threading.Thread(target=function) for function in functions]
    for thread in threads:
        thread.start()
    return threads


def wait_for(condition: Callable[[], bool]) -> None:
    async def waiting() -> None:
        async with asyncio.timeout(DEADLINE):
            while not condition():
                await asyncio.sleep(0.01)

    asyncio.run(waiting())
