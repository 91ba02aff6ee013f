from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from kinoloom.config import Settings
from kinoloom.server.openai.asking import read_request
from kinoloom.server.openai.derived import edit_of, remix_of
from kinoloom.server.openai.media import Source, asset
from kinoloom.store.clips import ClipRecord
from kinoloom.store.store import Store

PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)
MP4 = b"\0\0\0\x18ftypisom" + bytes(60)
PLAN = {
    "model": "spark",
    "negative": "",
    "frames": 49,
    "fps": 24.0,
    "steps": 12,
    "guidance": 1.5,
    "seed": 1,
    "preset": None,
}


def clip(**changes: Any) -> ClipRecord:
    values = {
        "path": Path("a.mp4"),
        "plan_key": "0" * 64,
        "task": "t2v",
        "model": "spark",
        "backend": "local",
        "seed": 42,
        "width": 320,
        "height": 192,
        "frames": 49,
        "fps": 24.0,
        "format": "mp4",
        "request": {"prompt": "a red ball", "tier": "preview", "loras": [], "cache": "bypass"},
        "plan": PLAN,
    }
    return ClipRecord(**values | changes)


def test_a_remix_has_the_numbers_of_the_plan_and_the_seed_of_the_clip() -> None:
    assert remix_of(clip(), {"prompt": "a blue ball"}) == {
        "prompt": "a blue ball",
        "model": "spark",
        "frames": 49,
        "fps": 24.0,
        "steps": 12,
        "guidance": 1.5,
        "tier": "preview",
        "size": [320, 192],
        "seed": 42,
    }


@pytest.mark.parametrize(
    ("asked", "gone"),
    [({"duration": 1}, "frames"), ({"tier": "premium"}, "steps"), ({"preset": "fast"}, "steps")],
)
def test_a_wish_takes_the_place_of_the_number_it_contradicts(
    asked: dict[str, Any], gone: str
) -> None:
    fields = remix_of(clip(), asked)
    assert gone not in fields
    assert asked.items() <= fields.items()


def test_a_remix_starts_from_the_same_media(store: Store, settings: Settings) -> None:
    digests = [store.assets.put_bytes(PNG + bytes([n]), "image").digest for n in range(13)]
    inputs = {"image": digests[0], "keyframes.24": digests[1], "keyframes.3": digests[2]}
    inputs |= {f"references.{n}": digests[3 + n] for n in (1, 0, 2)}
    fields = remix_of(clip(inputs=inputs), {"prompt": "a blue ball"})
    request = read_request(fields, store, settings).request
    assert request.image == store.assets.path(digests[0])
    assert request.keyframes == (
        (3, store.assets.path(digests[2])),
        (24, store.assets.path(digests[1])),
    )
    assert request.references == tuple(store.assets.path(digests[3 + n]) for n in range(3))


def test_an_edit_inpaints_a_video_of_the_same_size(store: Store, settings: Settings) -> None:
    video = asset(store.assets.put_bytes(MP4, "video").digest)
    mask = asset(store.assets.put_bytes(PNG, "image").digest)
    fields = edit_of(Source(video, clip()), mask, {"prompt": "a blue ball"}, settings)
    request = read_request(fields, store, settings).request
    assert (request.task, request.size, request.fps) == ("inpaint", (320, 192), 24.0)
    assert request.model is None  # spark cannot, so it is not asked for
    same = clip(model="wan-2.1-vace-1.3b")
    assert edit_of(Source(video, same), mask, {}, settings)["model"] == same.model
    assert "size" not in edit_of(Source(video), mask, {}, settings)
