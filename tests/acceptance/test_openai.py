"""The example of docs/openai.md, done by a user with the official client and `kinoloom serve`."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import openai
import pytest

from acceptance.command import LIMIT, PROMPT, User

pytestmark = [
    pytest.mark.model,
    pytest.mark.slow,
    # The client says of each of its methods that OpenAI's own service has ended.
    pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning"),
]


@pytest.fixture
def address(user: User) -> Iterator[str]:
    """Where `kinoloom serve` of this user answers; it ends after the test."""
    process = subprocess.Popen(
        [sys.executable, "-m", "kinoloom", "serve", "--port", "0"],
        cwd=user.folder,
        env=user.environment | {"PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    said = []
    for line in process.stdout:
        said.append(line)
        if "http://" in line:
            break
    else:
        pytest.fail("the server did not start:\n" + "".join(said))
    rest = threading.Thread(target=process.stdout.read, daemon=True)
    rest.start()  # or it would wait once the pipe is full
    yield "http://" + said[-1].partition("http://")[2].split()[0]
    process.terminate()
    process.wait(LIMIT)


def following(client: openai.OpenAI, video: str, *until: str) -> Iterator[openai.types.Video]:
    """The video as it is, again and again, until it has one of these statuses."""
    deadline = time.monotonic() + LIMIT
    while time.monotonic() < deadline:
        now = client.videos.retrieve(video)
        yield now
        if now.status in until:
            return
        time.sleep(0.2)  # the server takes ten requests a second
    pytest.fail(f"the video was never {' or '.join(until)}")


def test_a_video_from_the_prompt_to_the_file(address: str) -> None:
    client = openai.OpenAI(base_url=f"{address}/v1", api_key="none", timeout=LIMIT)
    video = client.videos.create(
        prompt=PROMPT, extra_body={"num_frames": 17, "num_inference_steps": 8, "seed": 7}
    )
    seen = {video.progress}
    for now in following(client, video.id, "completed", "failed"):
        video = now
        seen.add(now.progress)
    assert video.status == "completed", video.error
    assert len(seen) > 4  # the steps are seen, not only the beginning and the end
    assert client.videos.download_content(video.id).content[4:8] == b"ftyp"
    assert client.videos.download_content(video.id, variant="thumbnail").content[1:4] == b"PNG"

    remix = client.videos.remix(video.id, prompt=PROMPT.replace("red", "blue"))
    assert client.videos.poll(remix.id).status == "completed"

    long = client.videos.create(prompt=PROMPT, extra_body={"num_inference_steps": 200})
    for _ in following(client, long.id, "in_progress"):
        pass
    client.videos.delete(long.id)
    stopped = client.videos.list().data
    assert all(v.status == "failed" for v in stopped if v.id == long.id)
    assert client.videos.delete(video.id).deleted
    assert video.id not in [v.id for v in client.videos.list()]
