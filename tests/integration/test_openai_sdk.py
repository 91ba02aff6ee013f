"""The official client of OpenAI's videos API against a real server.

A thread takes the part of the worker: it moves the jobs through their states in the real store, as
a worker does, and publishes a small real video.
"""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import uvicorn

from kinoloom.config import Settings
from kinoloom.jobs.service import JobService
from kinoloom.media.writer import write_video
from kinoloom.server.app import create_app
from kinoloom.server.serve import listening, url_of
from kinoloom.store.clips import ClipRecord
from kinoloom.store.jobs import JobRecord
from kinoloom.store.store import Store

# The client says of each of its methods that OpenAI's own service has ended.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")

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


def job_of(video: str) -> str:
    return video.removeprefix("video_")


def png(width: int, height: int) -> bytes:
    import cv2

    picture = np.full((height, width, 3), 128, np.uint8)
    picture[: height // 2] = 200
    _, data = cv2.imencode(".png", picture)
    return bytes(data)


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


def wait_until(true: Callable[[], Any], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.01)


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


def test_create_poll_and_download(server: Server, tmp_path: Path) -> None:
    client = server.client()
    with Following(server, server.publish):
        video = client.videos.create_and_poll(
            model="spark", prompt=PROMPT, seconds="2", size="192x128", extra_body={"seed": 7}
        )
    assert (video.status, video.progress, video.error) == ("completed", 100, None)
    assert (video.model, video.prompt, video.object) == ("spark", PROMPT, "video")
    job = server.service.get(job_of(video.id))
    assert job.plan is not None
    assert job.plan["seed"] == 7
    assert video.size == f"{job.plan['width']}x{job.plan['height']}"
    assert float(video.seconds) == pytest.approx(job.plan["frames"] / job.plan["fps"], abs=1e-3)
    assert video.created_at <= (video.completed_at or 0) <= time.time()
    assert video.expires_at is None
    assert video.remixed_from_video_id is None

    clip = server.store.clips.get(job.clip_id or "")
    assert clip is not None
    assert clip.asset is not None
    whole = server.store.assets.path(clip.asset).read_bytes()
    file = tmp_path / "video.mp4"
    client.videos.download_content(video.id).write_to_file(file)
    assert file.read_bytes() == whole
    with client.videos.with_streaming_response.download_content(video.id) as answer:
        assert answer.headers["Content-Type"] == "video/mp4"
        assert b"".join(answer.iter_bytes()) == whole
    picture = client.videos.download_content(video.id, variant="thumbnail")
    assert picture.content == png(16, 16)


def test_a_sheet_of_the_frames(server: Server) -> None:
    client = server.client()
    video = client.videos.create(prompt=PROMPT)
    server.make(video.id)
    sheet = client.videos.download_content(video.id, variant="spritesheet")
    assert sheet.content.startswith(b"\xff\xd8\xff")
    assert sheet.response.headers["Content-Type"] == "image/jpeg"
    again = client.videos.download_content(video.id, variant="spritesheet")
    assert again.content == sheet.content


def test_a_range_of_the_video(server: Server) -> None:
    client = server.client()
    video = client.videos.create(prompt=PROMPT)
    clip = server.make(video.id)
    assert clip.asset is not None
    whole = server.store.assets.path(clip.asset).read_bytes()
    part = client.videos.download_content(video.id, extra_headers={"Range": "bytes=10-19"})
    assert part.content == whole[10:20]
    assert part.response.status_code == 206
    assert part.response.headers["Content-Range"] == f"bytes 10-19/{len(whole)}"
    with pytest.raises(openai.APIStatusError) as outside:
        client.videos.download_content(video.id, extra_headers={"Range": "bytes=99999999-"})
    assert outside.value.status_code == 416
    assert outside.value.response.headers["Content-Range"] == f"bytes */{len(whole)}"


def test_progress_is_that_of_the_steps(server: Server) -> None:
    client = server.client()
    video = client.videos.create(prompt=PROMPT)
    assert (video.status, video.progress) == ("queued", 0)
    job = server.start(job_of(video.id))
    seen = []
    for step in (0, 3, 6, 9, 12):
        server.report(job, phase="denoise", step=step, steps=12)
        now = client.videos.retrieve(video.id)
        assert now.status == "in_progress"
        seen.append(now.progress)
    assert seen == sorted(set(seen))
    assert seen[0] > 0
    assert seen[-1] < 100
    server.publish(job)
    assert client.videos.retrieve(video.id).progress == 100


def test_a_failed_video_is_an_answer(server: Server) -> None:
    client = server.client()

    def fail(job: JobRecord) -> None:
        server.fail(
            job,
            kind="insufficient_vram",
            message="The GPU's memory is full.",
            cause="12 GB are needed.",
            hints=["Ask for a smaller size."],
        )

    with Following(server, fail):
        video = client.videos.create_and_poll(prompt=PROMPT)
    assert video.status == "failed"
    assert video.error is not None
    assert video.error.code == "insufficient_vram"
    assert video.error.message == (
        "The GPU's memory is full. 12 GB are needed. Ask for a smaller size."
    )
    with pytest.raises(openai.NotFoundError):
        client.videos.download_content(video.id)


def test_a_cancelled_video_has_failed(server: Server) -> None:
    client = server.client()
    video = client.videos.create(prompt=PROMPT)
    server.service.cancel(job_of(video.id))
    ended = client.videos.poll(video.id)
    assert ended.status == "failed"
    assert ended.error is not None
    assert ended.error.code == "cancelled"


def test_how_soon_to_ask_again_is_said(server: Server) -> None:
    client = server.client()
    created = client.videos.with_raw_response.create(prompt=PROMPT)
    assert 100 <= int(created.headers["openai-poll-after-ms"]) <= 10_000
    shown = client.videos.with_raw_response.retrieve(created.parse().id)
    assert shown.headers["openai-poll-after-ms"] == created.headers["openai-poll-after-ms"]


def test_pages_of_a_list(server: Server) -> None:
    client = server.client()
    made = [client.videos.create(prompt=f"{PROMPT} {n}").id for n in range(5)]
    assert [video.id for video in client.videos.list(limit=2)] == made[::-1]
    assert [video.id for video in client.videos.list(limit=2, order="asc")] == made
    page = client.videos.list(limit=2, after=made[3])
    assert [video.id for video in page.data] == [made[2], made[1]]
    assert (page.has_more, page.last_id) == (True, made[1])
    last = client.videos.list(limit=5)
    assert last.has_more is False
    assert len(last.data) == 5
    assert client.videos.list(after=made[0]).data == []


def test_delete_takes_the_content_too(server: Server) -> None:
    client = server.client()
    video = client.videos.create(prompt=PROMPT)
    clip = server.make(video.id)
    assert clip.asset is not None
    gone = client.videos.delete(video.id)
    assert (gone.id, gone.deleted, gone.object) == (video.id, True, "video.deleted")
    for call in (client.videos.retrieve, client.videos.download_content, client.videos.delete):
        with pytest.raises(openai.NotFoundError):
            call(video.id)
    assert client.videos.list().data == []
    assert server.store.clips.get(clip.id) is None
    with pytest.raises(openai.APIError):
        client.videos.download_content(video.id)


def test_delete_leaves_a_clip_that_is_another_video_too(server: Server) -> None:
    client = server.client()
    first, second = (client.videos.create(prompt=PROMPT, extra_body={"seed": 3}) for _ in "ab")
    clip = server.make(first.id)
    job = server.start(job_of(second.id))
    assert server.store.jobs.finish(job.id, run=job.run, worker=WORKER, clip=clip, reused=True)
    content = client.videos.download_content(second.id).content
    client.videos.delete(first.id)
    assert client.videos.download_content(second.id).content == content
    client.videos.delete(second.id)
    assert server.store.clips.get(clip.id) is None


def test_delete_stops_a_render(server: Server) -> None:
    client = server.client()
    video = client.videos.create(prompt=PROMPT)
    job = server.start(job_of(video.id))

    def let_go() -> None:
        wait_until(lambda: server.store.jobs.states([job.id])[job.id][0] == "cancelling")
        assert server.store.jobs.move(job.id, "cancelled", expect=("cancelling",), run=job.run)

    worker = threading.Thread(target=let_go)
    worker.start()
    assert client.videos.delete(video.id).deleted is True
    worker.join(20)
    with pytest.raises(openai.NotFoundError):
        client.videos.retrieve(video.id)


def test_delete_takes_a_waiting_video_out_of_the_queue(server: Server) -> None:
    client = server.client()
    video = client.videos.create(prompt=PROMPT)
    assert client.videos.delete(video.id).deleted is True
    assert server.store.jobs.get(job_of(video.id)) is None


def test_a_picture_to_begin_with(server: Server) -> None:
    client = server.client()
    video = client.videos.create(
        prompt=PROMPT, model="spark", input_reference=("../../first.png", png(192, 128))
    )
    job = server.service.get(job_of(video.id))
    assert job.task == "i2v"
    assert job.plan is not None
    digest = job.plan["inputs"]["image"]["digest"]
    assert server.store.assets.path(digest).read_bytes() == png(192, 128)


def test_what_is_no_picture_is_refused(server: Server) -> None:
    with pytest.raises(openai.APIStatusError) as refused:
        server.client().videos.create(prompt=PROMPT, input_reference=io.BytesIO(b"#!/bin/sh"))
    assert refused.value.code == "invalid_media"


def test_the_parameters_of_other_servers(server: Server) -> None:
    video = server.client().videos.create(
        prompt=PROMPT,
        extra_body={
            "width": 192,
            "height": 128,
            "num_frames": 25,
            "num_inference_steps": 5,
            "guidance_scale": 1.5,
            "negative_prompt": "text",
            "extra_params": {"seed": 11, "cache": "bypass"},
        },
    )
    request = server.service.get(job_of(video.id)).request
    assert request["size"] == [192, 128]
    assert (request["frames"], request["steps"], request["guidance"]) == (25, 5, 1.5)
    assert (request["negative"], request["seed"], request["cache"]) == ("text", 11, "bypass")


def test_what_is_adjusted_is_said(server: Server) -> None:
    video = server.client().videos.create(prompt=PROMPT, size="1280x720", seconds="12")
    assert video.size != "1280x720"
    said = {change["field"] for change in video.kinoloom["adjustments"]}  # type: ignore[attr-defined]
    assert said >= {"size", "duration"}


def test_a_remix_is_the_same_plan_with_other_words(server: Server) -> None:
    client = server.client()
    source = client.videos.create(
        prompt=PROMPT, input_reference=("a.png", png(192, 128)), extra_body={"fps": 12}
    )
    server.make(source.id)
    remix = client.videos.remix(source.id, prompt="a blue ball rolls to the right")
    assert remix.remixed_from_video_id == source.id
    assert remix.prompt == "a blue ball rolls to the right"
    before, after = (server.service.get(job_of(v.id)).plan for v in (source, remix))
    assert before is not None
    assert after is not None
    same = ("model", "task", "width", "height", "frames", "fps", "steps", "guidance", "seed")
    assert {n: after[n] for n in same} == {n: before[n] for n in same}
    assert after["inputs"]["image"]["digest"] == before["inputs"]["image"]["digest"]


def test_a_remix_of_what_is_not_ready(server: Server) -> None:
    client = server.client()
    video = client.videos.create(prompt=PROMPT)
    with pytest.raises(openai.NotFoundError) as refused:
        client.videos.remix(video.id, prompt="a blue ball")
    assert "queued" in refused.value.message


def test_an_extension_has_as_many_new_seconds_as_asked(server: Server) -> None:
    client = server.client()
    source = client.videos.create(prompt=PROMPT)
    clip = server.make(source.id)
    # The client takes only a file here; by its id a video is named in JSON.
    by_id = client.post(
        "/videos/extensions",
        cast_to=openai.types.Video,
        body={"prompt": PROMPT, "seconds": "1", "video": {"id": source.id}},
    )
    assert clip.asset is not None
    file = server.store.assets.path(clip.asset).read_bytes()
    by_file = client.videos.extend(
        prompt=PROMPT,
        seconds="1",
        video=("a.mp4", file),  # type: ignore[arg-type]
    )
    for video in (by_id, by_file):
        job = server.service.get(job_of(video.id))
        assert job.task == "extend"
        assert job.plan is not None
        new = job.plan["frames"] - job.plan["context_frames"]
        assert job.plan["context_frames"] > 0
        assert new / job.plan["fps"] == pytest.approx(1, abs=0.34)


def test_an_edit_needs_a_mask(server: Server) -> None:
    client = server.client()
    source = client.videos.create(prompt=PROMPT)
    server.make(source.id)
    with pytest.raises(openai.APIStatusError) as refused:
        client.videos.edit(prompt=PROMPT, video=("a.mp4", b"...."))
    assert refused.value.param == "mask"
    assert "mask" in refused.value.message


def test_an_edit_is_for_models_that_inpaint(server: Server) -> None:
    source = server.client().videos.create(prompt=PROMPT)
    server.make(source.id)
    answer = httpx.post(
        f"{server.url}/v1/videos/edits",
        data={"prompt": "a blue ball", "video[id]": source.id},
        files={"mask": ("mask.png", png(192, 128))},
        timeout=60,
    )
    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["param"] == "model"
    assert "wan-2.1-vace-1.3b" in error["message"]


def test_models(server: Server) -> None:
    client = server.client()
    models = {model.id: model for model in client.models.list()}
    assert "spark" in models
    assert client.models.retrieve("spark") == models["spark"]
    assert models["spark"].object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("no-such-model")


def test_an_unknown_model_is_answered_with_a_near_one(server: Server) -> None:
    with pytest.raises(openai.NotFoundError) as refused:
        server.client().videos.create(prompt=PROMPT, model="sparc")
    assert refused.value.code == "model_not_found"
    assert "spark" in refused.value.message


def test_default_is_the_model_of_the_settings(server: Server) -> None:
    client = server.client()
    for options in ({}, {"model": "default"}):
        assert client.videos.create(prompt=PROMPT, **options).model == "spark"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"seconds": "soon"}, "seconds"),
        ({"size": "huge"}, "size"),
        ({"num_frames": -1}, "num_frames"),
        ({"guidance_scale": "strong"}, "guidance_scale"),
        ({"num_inference_step": 4}, "num_inference_step"),
        ({"width": 192}, "width"),
        ({"output": "/tmp/mine.mp4"}, "output"),
        ({"extra_params": {"output_path": "/tmp/mine.mp4"}}, "output_path"),
        ({"extra_params": {"loras": ["/etc/passwd"]}}, "loras"),
        ({"image": "/etc/passwd"}, "image"),
        ({"input_reference": {"file_id": "file-1"}}, "input_reference"),
    ],
)
def test_mistakes_are_named_as_the_client_named_them(
    server: Server, body: dict[str, Any], param: str
) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        server.client().videos.create(prompt=PROMPT, extra_body=body)
    assert refused.value.param == param
    assert refused.value.code == "invalid_params"
    assert refused.value.type == "invalid_request_error"


def test_json_is_taken_too(server: Server) -> None:
    import base64

    url = "data:image/png;base64," + base64.b64encode(png(192, 128)).decode()
    body = {"prompt": PROMPT, "seconds": "1", "input_reference": {"image_url": url}, "seed": 5}
    answer = httpx.post(f"{server.url}/v1/videos", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert server.service.get(job_of(answer.json()["id"])).task == "i2v"


def test_the_same_idempotency_key_makes_one_video(server: Server) -> None:
    client = server.client()
    ids = {
        client.videos.create(prompt=PROMPT, extra_headers={"Idempotency-Key": "one"}).id
        for _ in range(3)
    }
    assert len(ids) == 1
    with pytest.raises(openai.ConflictError):
        client.videos.create(prompt="other words", extra_headers={"Idempotency-Key": "one"})


def test_keys_see_their_own_videos(serve: Callable[..., Server]) -> None:
    server = serve(require_key=True)
    with pytest.raises(openai.AuthenticationError):
        server.client(api_key="kl_wrong").videos.list()
    one, other = (
        server.client(api_key=server.store.keys.create(name, {"read", "write"}, None)[1])
        for name in ("one", "other")
    )
    reader = server.client(api_key=server.store.keys.create("reader", {"read"}, None)[1])
    video = one.videos.create(prompt=PROMPT)
    assert [v.id for v in one.videos.list()] == [video.id]
    assert other.videos.list().data == []
    with pytest.raises(openai.NotFoundError):
        other.videos.retrieve(video.id)
    with pytest.raises(openai.NotFoundError):
        other.videos.delete(video.id)
    with pytest.raises(openai.PermissionDeniedError):
        reader.videos.create(prompt=PROMPT)


async def everything_async(server: Server) -> None:
    async with openai.AsyncOpenAI(base_url=f"{server.url}/v1", api_key="any") as client:
        video = await client.videos.create_and_poll(prompt=PROMPT)
        assert video.status == "completed"
        content = await client.videos.download_content(video.id)
        assert (await content.aread())[4:8] == b"ftyp"
        assert [v.id async for v in client.videos.list(limit=1)] == [video.id]
        remix = await client.videos.remix(video.id, prompt="a blue ball")
        assert (await client.videos.poll(remix.id)).status == "completed"
        for made in (video, remix):
            assert (await client.videos.delete(made.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await client.videos.retrieve(video.id)


def test_the_async_client(server: Server) -> None:
    import asyncio

    with Following(server, server.publish):
        asyncio.run(everything_async(server))
