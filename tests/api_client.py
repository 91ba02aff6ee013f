"""How do the tests call the API of a real store and service, without a worker?

Jobs stay queued; a test brings them to other states through the store, as a worker would.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from kinoloom.config import Settings
from kinoloom.jobs.service import JobService
from kinoloom.server.app import create_app
from kinoloom.store.clips import ClipRecord
from kinoloom.store.job_record import JobRecord
from kinoloom.store.keys import ApiKey
from kinoloom.store.store import Store
from serving import local_client


@dataclass
class Api:
    """The client, and what lies behind the server that it calls."""

    client: TestClient
    store: Store
    service: JobService

    def key(self, name: str, *scopes: str) -> tuple[ApiKey, dict[str, str]]:
        """A new key, and the headers that a request with it has."""
        key, secret = self.store.keys.create(name, frozenset(scopes), None)
        return key, {"Authorization": f"Bearer {secret}"}

    def job(self, **body: Any) -> dict[str, Any]:
        """A job that the API was asked for."""
        answer = self.client.post("/api/clips", json={"prompt": "a red ball"} | body)
        assert answer.status_code == 202, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def clip(self, video: bytes | Path = b"video", **changes: Any) -> ClipRecord:
        """A finished clip: its video in the store, or where a command wrote it.

        A file counts only as long as it says itself that it is the clip: its content has the id.
        """
        asset, path = None, Path("clip.mp4")
        if isinstance(video, Path):
            path = video
        else:
            asset = self.store.assets.put_bytes(video, "clip").digest
        record = ClipRecord(
            path=path,
            asset=asset,
            plan_key="0" * 64,
            task="t2v",
            model="spark",
            backend="local",
            seed=7,
            width=256,
            height=160,
            frames=25,
            fps=12.0,
            format="mp4",
            request={"prompt": "A red ball, rolling"},
            plan={"steps": 20},
            timings={"total": 5.0},
            scores={"overall": 0.9},
        )
        record = replace(record, **changes)
        self.store.clips.add(record)
        return record

    def move(self, job_id: str, *states: Any) -> JobRecord:
        """Bring a job through these states."""
        for state in states:
            job = self.service.get(job_id)
            assert self.store.jobs.move(job_id, state, expect=(job.state,)) is not None
        return self.service.get(job_id)


@contextmanager
def api(settings: Settings, *, require_key: bool = False) -> Iterator[Api]:
    """The API over a store of its own in the settings' home."""
    with Store.of(settings) as store:
        service = JobService(settings, store)
        app = create_app(settings, store, service, require_key=require_key)
        try:
            with local_client(app) as client:
                yield Api(client, store, service)
        finally:
            service.close()


def png(width: int = 8, height: int = 8) -> bytes:
    """A real picture, all black."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(kind + data)
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", crc)

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = (b"\0" + b"\0\0\0" * width) * height
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    )
