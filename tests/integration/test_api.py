"""The API with everything behind it but a worker: media are opened in a real child process."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from api_client import Api, api, png
from kinoloom.config import Settings
from kinoloom.media.writer import write_video


@pytest.fixture(scope="module")
def studio_api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Api]:
    with api(Settings(home=tmp_path_factory.mktemp("home"), device="cpu")) as found:
        yield found


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A real MP4 of 13 frames, 256x160."""
    file = tmp_path_factory.mktemp("video") / "video.mp4"
    frames = np.zeros((13, 160, 256, 3), np.uint8)
    frames[:, :, :, 0] = np.linspace(0, 255, 13, dtype=np.uint8)[:, None, None]
    write_video(file, frames, 12.0, format="mp4")
    return file.read_bytes()


def test_a_picture_in_a_form_makes_image_to_video(studio_api: Api) -> None:
    parts = [("prompt", (None, "it rolls")), ("image", ("a.png", png(256, 160), "image/png"))]
    answer = studio_api.client.post("/api/plan", files=parts)
    plan = answer.json()
    assert answer.status_code == 200, plan
    assert (plan["task"], plan["inputs"]["image"]["width"]) == ("i2v", 256)
    digest = plan["inputs"]["image"]["digest"]
    assert plan["inputs"]["image"]["path"] == plan["request"]["image"] == digest
    assert str(studio_api.store.home) not in answer.text


def test_an_uploaded_video_is_continued(studio_api: Api, video: bytes) -> None:
    upload = studio_api.client.post("/api/assets", files={"file": ("v.mp4", video, "video/mp4")})
    assert upload.json()["kind"] == "video"
    body = {"prompt": "and on", "video": {"asset": upload.json()["digest"]}}
    answer = studio_api.client.post("/api/clips", json=body)
    job = answer.json()
    assert answer.status_code == 202, job
    assert (job["task"], job["plan"]["inputs"]["video"]["frames"]) == ("extend", 13)
    assert job["request"]["video"] == upload.json()["digest"]


def test_a_picture_that_cannot_be_decoded_is_a_problem_of_the_request(studio_api: Api) -> None:
    broken = png(64, 64)[:60]
    parts = [("prompt", (None, "a")), ("image", ("a.png", broken, "image/png"))]
    answer = studio_api.client.post("/api/plan", files=parts)
    assert (answer.status_code, answer.json()["kind"]) == (422, "invalid_media")
    assert str(studio_api.store.home) not in answer.text


def test_the_preview_is_a_moving_picture_that_is_made_once(studio_api: Api, video: bytes) -> None:
    made = studio_api.clip(video, frames=13)
    url = f"/api/clips/{made.id}/preview"
    first = studio_api.client.get(url)
    assert (first.status_code, first.headers["content-type"]) == (200, "image/gif"), first.text
    with Image.open(io.BytesIO(first.content)) as picture:
        assert picture.format == "GIF"
        assert getattr(picture, "n_frames", 1) > 1
    again = studio_api.client.get(url, headers={"If-None-Match": first.headers["etag"]})
    assert again.status_code == 304
    digest = studio_api.store.clips.derived(made.id, "gif")
    assert digest is not None
    assert studio_api.client.delete(f"/api/clips/{made.id}").status_code == 204
    assert not studio_api.store.assets.discard(digest)  # it went with the clip


def test_a_clip_whose_video_is_broken_has_no_preview(studio_api: Api) -> None:
    made = studio_api.clip(b"\0" * 100)
    answer = studio_api.client.get(f"/api/clips/{made.id}/preview")
    assert (answer.status_code, answer.json()["kind"]) == (422, "invalid_media")
    assert str(studio_api.store.home) not in answer.text


@pytest.mark.parametrize("kind", ["mp4", "webm", "gif"])
def test_a_file_that_takes_another_ones_place_is_not_sent_as_the_clip(
    studio_api: Api, tmp_path: Path, video: bytes, kind: Any
) -> None:
    file = tmp_path / f"clip.{kind}"
    frames = np.zeros((3, 160, 256, 3), np.uint8)
    made = studio_api.clip(file, format=kind)
    write_video(file, frames, 12.0, format=kind, settings={"clip": made.id, "plan": {}})
    assert studio_api.client.get(f"/api/clips/{made.id}/file").content == file.read_bytes()
    file.write_bytes(video)
    answer = studio_api.client.get(f"/api/clips/{made.id}/file")
    assert (answer.status_code, answer.json()["kind"]) == (404, "not_found")


def test_the_process_of_the_server_opens_no_media(tmp_path: Path, video: bytes) -> None:
    (tmp_path / "video.mp4").write_bytes(video)
    program = """
import sys
from pathlib import Path
from api_client import api, png
from kinoloom.config import Settings
folder = Path(sys.argv[1])
with api(Settings(home=folder / "home", device="cpu")) as studio:
    clip = studio.clip((folder / "video.mp4").read_bytes())
    files = {"prompt": (None, "a"), "image": png(256, 160)}
    assert studio.client.post("/api/plan", files=files).status_code == 200
    assert studio.client.get(f"/api/clips/{clip.id}/preview").status_code == 200
print(sorted({"torch", "numpy", "cv2", "av", "PIL", "diffusers"} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        env={
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
        },
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
