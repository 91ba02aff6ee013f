"""What do the tests of OpenAI's videos API share: a real server, and what stands in for its worker?

A thread or a test takes the part of the worker: it moves the jobs through their states in the real
store, as a worker does, and publishes a small real video.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openai

from kinoloom.config import Settings
from kinoloom.jobs.service import JobService
from kinoloom.media.writer import write_video
from kinoloom.store.clips import ClipRecord
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store

PROMPT = "a red ball rolls to the right"
WORKER = "worker-of-the-tests"


@dataclass
class Server:
    """A running server with its store, and what a worker would do to its jobs."""

    url: str
    settings: Settings
    store: Store
    service: JobService

    def client(self, **options: Any) -> openai.OpenAI:
        return openai.OpenAI(
            base_url=f"{self.url}/v1", **{"api_key": "any", "max_retries": 0} | options
        )

    def start(self, job: str) -> JobRecord:
        """The job is taken by the worker."""
        started = self.store.jobs.move(job, "running", expect=("queued",), worker_to=WORKER)
        assert started is not None
        return started

    def report(self, job: JobRecord, **progress: Any) -> None:
        assert self.store.jobs.update(job.id, run=job.run, progress=progress)

    def fail(self, job: JobRecord, **error: Any) -> None:
        assert self.store.jobs.move(
            job.id, "failed", expect=("running",), run=job.run, worker=WORKER, error=error
        )

    def publish(self, job: JobRecord) -> ClipRecord:
        """The job is finished, with a video as long and large as its plan says."""
        plan = job.plan
        assert plan is not None
        shape = plan["frames"], plan["height"], plan["width"], 3
        frames = np.random.default_rng(plan["seed"]).integers(0, 255, shape, dtype=np.uint8)
        file = self.settings.home / f"{job.id}.mp4"
        write_video(file, frames, plan["fps"], format="mp4")
        video = self.store.assets.put_file(file, "video").digest
        file.unlink()
        clip = ClipRecord(
            path=Path(f"{job.id}.mp4"),
            asset=video,
            poster=self.store.assets.put_bytes(png(16, 16), "poster").digest,
            plan_key=plan["key"],
            task=plan["task"],
            model=plan["model"],
            backend=plan["backend"],
            seed=plan["seed"],
            width=plan["width"],
            height=plan["height"],
            frames=plan["frames"],
            fps=plan["fps"],
            format="mp4",
            request=job.request,
            plan=plan,
            inputs={
                name: media["digest"]
                for name, media in plan["inputs"].items()
                if isinstance(media, dict)
            },
            job_id=job.id,
            owner=job.owner,
        )
        assert self.store.jobs.finish(job.id, run=job.run, worker=WORKER, clip=clip)
        return clip

    def make(self, video: str) -> ClipRecord:
        """All that a worker does with the job of a video."""
        return self.publish(self.start(job_of(video)))


class Following(threading.Thread):
    """A worker that takes each job as it comes, and ends it as `end` says."""

    def __init__(self, server: Server, end: Callable[[JobRecord], Any]) -> None:
        super().__init__(daemon=True)
        self._server, self._end, self._enough = server, end, threading.Event()
        self._broken: Exception | None = None

    def run(self) -> None:
        while not self._enough.wait(0.02):
            for job in self._server.store.jobs.list(states=("queued",)):
                started = self._server.start(job.id)
                try:
                    self._end(started)
                except Exception as error:
                    self._broken = error
                    self._server.fail(started, kind="unknown", message="the test is broken")

    def __enter__(self) -> Following:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._enough.set()
        self.join(20)
        if self._broken is not None:
            raise self._broken


def job_of(video: str) -> str:
    return video.removeprefix("video_")


def png(width: int, height: int) -> bytes:
    import cv2

    picture = np.full((height, width, 3), 128, np.uint8)
    picture[: height // 2] = 200
    _, data = cv2.imencode(".png", picture)
    return bytes(data)


def wait_until(true: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)
