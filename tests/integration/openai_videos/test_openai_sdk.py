"""Can OpenAI's official client make, follow, list, fetch and delete videos of a real server?"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import openai
import pytest

from kinoloom.store.job_record import JobRecord
from video_server import PROMPT, WORKER, Following, Server, job_of, png, wait_until

# The client says of each of its methods that OpenAI's own service has ended.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


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
