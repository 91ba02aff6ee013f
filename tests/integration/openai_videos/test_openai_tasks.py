"""What can the official client of OpenAI's videos API ask a real server for?"""

from __future__ import annotations

import io
from typing import Any

import httpx
import openai
import pytest

from video_server import PROMPT, Server, job_of, png

# The client says of each of its methods that OpenAI's own service has ended.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")


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


def test_json_is_taken_too(server: Server) -> None:
    import base64

    url = "data:image/png;base64," + base64.b64encode(png(192, 128)).decode()
    body = {"prompt": PROMPT, "seconds": "1", "input_reference": {"image_url": url}, "seed": 5}
    answer = httpx.post(f"{server.url}/v1/videos", json=body, timeout=60)
    assert answer.status_code == 200, answer.text
    assert server.service.get(job_of(answer.json()["id"])).task == "i2v"


# --- videos of videos ---------------------------------------------------------------------------


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


# --- models and mistakes ------------------------------------------------------------------------


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
