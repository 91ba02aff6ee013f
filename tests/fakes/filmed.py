"""What would a service film, so that a film's frames tell which of its clips are in it?

The fake draws each order's own clip: it begins with the picture that it was given, and goes over
to one that follows from all that was asked, or to the last picture that it was given. Equal orders
give equal bytes.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fakes.runway import Task
from fakes.watched import WatchedRunway
from kinoloom.media.frames import Frame
from kinoloom.media.writer import write_video

SIZE = 96, 64
RATE = 4
_OWN = 0.1
"""How much of a clip's last frame follows from what was asked."""
CARDS = f"""\
shared:
  family: test
  backend: runway
  summary: A service of the tests, which films what no other order gives.
  licence: {{id: none, url: "https://example.com"}}
  negative: false
  sizes:
    multiple_of: 2
    minimum: {SIZE[1]}
    maximum: {SIZE[0]}
    native: [[{SIZE[0]}, {SIZE[1]}]]
    default: [{SIZE[0]}, {SIZE[1]}]
    only_native: true
  source: {{service: seedance2}}
  remote: {{rewording: false, settings: {{seed: true}}}}
  price:
    rates: [{{amount: 0.2, per: second}}]
    source: https://example.com/prices
    date: 2026-11-21
models:
  - id: filmed
    title: Filmed
    pipelines:
      t2v: {{class: text_to_video, arguments: {{ratio: "1280:720"}}}}
      i2v:
        class: image_to_video
        inputs: {{image: promptImage}}
        arguments: {{ratio: "1280:720"}}
      flf2v:
        class: image_to_video
        inputs: {{image: promptImage, last_image: promptImage}}
        arguments: {{ratio: "1280:720"}}
    frames:
      multiple: {RATE}
      offset: 0
      minimum: {2 * RATE}
      maximum: {4 * RATE}
      default: {2 * RATE}
    fps: {{default: {RATE}, minimum: {RATE}, maximum: {RATE}}}
  - id: filmed-still
    title: Filmed still
    pipelines:
      t2v: {{class: text_to_video, arguments: {{ratio: "1280:720"}}}}
    frames: {{multiple: 1, offset: 0, minimum: 1, maximum: 4, default: 1}}
    fps: {{default: 1, minimum: 1, maximum: 1}}
"""
"""The user's cards of a model that makes clips and of one that makes single pictures."""


@dataclass(frozen=True)
class Asked:
    """What an order asks for: words, seed, seconds, and its pictures by what is seen on them."""

    prompt: str
    seed: int
    seconds: int
    pictures: tuple[str, ...]


class FilmedRunway(WatchedRunway):
    """Runway with clips that tell of what they were ordered. `ordered` counts equal orders."""

    def __init__(self) -> None:
        super().__init__()
        self.ordered: Counter[Asked] = Counter()
        self._clips: dict[Asked, bytes] = {}

    def accept(self, body: dict[str, Any]) -> Task:
        asked, pictures = _read(body)
        with self.lock:
            self.ordered[asked] += 1
            if asked not in self._clips:
                self._clips[asked] = _filmed(asked, pictures)
        return super().accept(body)

    def video_of(self, task: Task) -> bytes:
        self.at("download")
        return self._clips[_read(task.body)[0]]


def _read(body: dict[str, Any]) -> tuple[Asked, list[Frame]]:
    """What a body asks for, and the pictures in it."""
    pictures = [_decoded(entry["uri"]) for entry in body.get("promptImage", ())]
    seen = tuple(hashlib.sha256(picture.tobytes()).hexdigest()[:16] for picture in pictures)
    return Asked(body["promptText"], body["seed"], body["duration"], seen), pictures


def _decoded(uri: str) -> Frame:
    raw = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    found = cv2.imdecode(raw, cv2.IMREAD_COLOR)
    assert found is not None, "the picture is none"
    assert found.shape == (SIZE[1], SIZE[0], 3), found.shape
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _filmed(asked: Asked, pictures: list[Frame]) -> bytes:
    own = pattern(repr(asked))
    start = pictures[0] if pictures else own
    count = 1 if asked.seconds == 1 else RATE * asked.seconds
    shares = np.linspace(0, 1, count)
    if pictures[1:]:
        ways = [_between(start, pictures[1], share) for share in shares]
        frames = [
            _between(f, own, share * (1 - share)) for f, share in zip(ways, shares, strict=True)
        ]
    else:  # a slow pan, which goes on from clip to clip, so that no join of a chain is seen
        panned = (np.roll(start, number, axis=1) for number in range(count))
        frames = [_between(f, own, _OWN * s) for f, s in zip(panned, shares, strict=True)]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        write_video(file, frames, RATE, format="mp4")
        return file.read_bytes()


def pattern(words: str) -> Frame:
    """Soft colours that follow from words."""
    seed = int.from_bytes(hashlib.sha256(words.encode()).digest()[:8])
    coarse = np.random.default_rng(seed).integers(40, 216, (3, 4, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(coarse, SIZE, interpolation=cv2.INTER_CUBIC), dtype=np.uint8)


def _between(first: Frame, second: Frame, share: float) -> Frame:
    return np.asarray(cv2.addWeighted(first, 1 - share, second, share, 0), dtype=np.uint8)
