from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from kinoloom.config import Settings
from kinoloom.jobs.service import JobService
from kinoloom.server.app import create_app
from kinoloom.server.serve import listening, url_of
from kinoloom.store.store import Store
from video_server import Server, wait_until


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """A function (settings...) -> a server at 127.0.0.1, ended after the test."""
    running: list[tuple[uvicorn.Server, threading.Thread, Server]] = []

    def start(*, require_key: bool = False, **changes: Any) -> Server:
        settings = Settings(home=tmp_path / f"home{len(running)}", **changes)
        store = Store.of(settings)
        service = JobService(settings, store)
        app = create_app(settings, store, service, require_key=require_key)
        web = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        sockets = listening("127.0.0.1", 0)
        listener = sockets.__enter__()
        thread = threading.Thread(target=web.run, args=([listener],), daemon=True)
        server = Server(url_of(listener), settings, store, service)
        running.append((web, thread, server))
        thread.start()
        wait_until(lambda: web.started)
        return server

    yield start
    for web, thread, server in running:
        web.should_exit = True
        thread.join(10)
        server.service.close()
        server.store.close()


@pytest.fixture
def server(serve: Callable[..., Server]) -> Server:
    return serve()
