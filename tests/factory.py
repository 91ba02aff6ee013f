"""Where do the tests run a worker in their own process, and who hands it jobs?"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

from kinoloom.config import Settings
from kinoloom.jobs.service import JobService
from kinoloom.jobs.worker import Worker
from kinoloom.request import VideoRequest
from kinoloom.store.clips import ClipRecord
from kinoloom.store.job_record import FINISHED, JobRecord
from kinoloom.store.store import Store
from kinoloom.store.workers import WorkerQueue
from stand_in import StandIn, until


class Factory:
    """A worker, its store, and who hands jobs in."""

    def __init__(self, settings: Settings, store: Store, *, name: str = "here") -> None:
        self.settings = settings
        self.store = store
        self.service = JobService(settings, store)
        self.child = StandIn()
        self.worker = Worker(
            settings,
            store,
            name=name,
            child=self.child,  # type: ignore[arg-type]
            media=self.child,  # type: ignore[arg-type]
        )
        self._seeds = iter(range(10_000))

    def submit(self, prompt: str = "a red ball", **options: Any) -> JobRecord:
        """A job whose clip no other one has."""
        fields = {name: options.pop(name) for name in ("candidates", "seed") if name in options}
        request = VideoRequest.checked(**({"prompt": prompt, "seed": next(self._seeds)} | fields))
        return self.service.submit(request, **options)

    def state(self, job: JobRecord) -> str:
        return self.service.get(job.id).state

    def ended(self, job: JobRecord) -> JobRecord:
        until(lambda: self.state(job) in FINISHED)
        return self.service.get(job.id)

    def busy(self) -> JobRecord:
        """A job that is rendering, and stays so until `child.open` is set."""
        self.child.open.clear()
        self.child.rendering.clear()
        job = self.submit("busy")
        assert self.child.rendering.wait(120)
        return job

    def clip(self, job: JobRecord) -> ClipRecord | None:
        return self.store.clips.get(job.id)


@contextmanager
def working(settings: Settings, store: Store, *, name: str = "here") -> Iterator[Factory]:
    """A worker that is started, and stopped at the end."""
    factory = Factory(settings, store, name=name)
    factory.worker.start()
    try:
        yield factory
    finally:
        factory.worker.stop()
        factory.service.close()


def dead_worker(factory: Factory, name: str) -> None:
    """A worker of this machine whose process, and so its lock, is gone."""
    (there,) = (w for w in factory.store.workers.live() if w.id == "here")
    factory.store.workers.beat(replace(there, id=name, queues=(WorkerQueue("cpu", "cpu"),)))


def running_on(factory: Factory, worker: str, **changes: Any) -> JobRecord:
    """A job that a worker of that name has."""
    job = factory.submit(hold=True)
    moved = factory.store.jobs.move(job.id, "running", expect=["held"], worker_to=worker, **changes)
    assert moved is not None
    return moved


@contextmanager
def listening(*answers: int) -> Iterator[tuple[str, list[tuple[str, bytes]]]]:
    """A server that answers with these, the last one again and again; what it was sent."""
    heard: list[tuple[str, bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(answers[min(len(heard), len(answers) - 1)])
            self.end_headers()
            assert self.headers["webhook-signature"].startswith("v1,")
            heard.append((self.headers["webhook-id"], body))

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/hook", heard
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
