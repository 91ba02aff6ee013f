"""What is in media from outside, and how is it shown small?

What is decoded here was sent by strangers, so this runs in a child process with limits. Frames are
made small one at a time: a long or a large video takes no more memory than one of its frames.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from PIL import Image

from kinoloom.media.frames import Frame
from kinoloom.media.images import load_image
from kinoloom.media.localfile import check_file
from kinoloom.media.output import disk_errors, whole_file
from kinoloom.media.pictures import poster
from kinoloom.media.reader import probe, read_frames
from kinoloom.media.writer import write_video

_THUMBNAIL_SIDE, _GIF_SIDE, _SHEET_SIDE = 512, 320, 320
_THUMBNAIL_FRAMES, _GIF_FRAMES, _SHEET_FRAMES = 16, 60, 16
_GIF_FPS = 12.0
_SHEET_COLUMNS = 4
_QUALITY = 85
# The signatures of what `load_image` reads, except GIF, which is looked at as a video.
_PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"BM", b"II*\x00", b"MM\x00*")

Check = Callable[[], None]


def facts_of(path: Path) -> dict[str, Any]:
    """What a picture, a video or a folder of PNG frames is, as JSON-ready data.

    `kind` is "image" or "video", `width` and `height` are in pixels as shown; of a video also
    `frames`, `fps`, `duration` in seconds, `codec`, `format` and `has_audio`. Raises InvalidMedia.
    """
    if not path.is_dir() and _is_picture(check_file(path, "file")):
        height, width = load_image(path).shape[:2]
        return {"kind": "image", "width": width, "height": height}
    info = probe(path)
    return {
        "kind": "video",
        "width": info.width,
        "height": info.height,
        "frames": info.frames,
        "fps": info.fps,
        "duration": info.duration,
        "codec": info.codec,
        "format": info.format,
        "has_audio": info.has_audio,
    }


def write_thumbnail(video: Path, target: Path, check: Check) -> None:
    """A JPEG of the frame that shows best what the video is, at most 512 pixels a side.

    Raises InvalidMedia and OutputFailed, and what `check` raises, which is called at each frame.
    """
    frames = sample_frames(video, _THUMBNAIL_FRAMES, _THUMBNAIL_SIDE, check)
    _write_jpeg(target, poster(frames))


def write_sheet(video: Path, target: Path, check: Check) -> None:
    """A JPEG of up to 16 frames, evenly taken, in rows of four and without gaps.

    Raises as `write_thumbnail`.
    """
    frames = sample_frames(video, _SHEET_FRAMES, _SHEET_SIDE, check)
    columns = min(_SHEET_COLUMNS, len(frames))
    frames += [np.zeros_like(frames[0])] * (-len(frames) % columns)
    rows = [np.hstack(frames[i : i + columns]) for i in range(0, len(frames), columns)]
    _write_jpeg(target, np.vstack(rows))


def write_gif(video: Path, target: Path, check: Check) -> None:
    """A GIF of the whole video in its own time, with up to 60 frames of at most 320 pixels a side.

    Raises as `write_thumbnail`.
    """
    info = probe(video)
    count = min(info.frames, _GIF_FRAMES, max(1, round(info.duration * _GIF_FPS)))
    frames = sample_frames(video, count, _GIF_SIDE, check)
    write_video(target, frames, max(0.01, len(frames) / info.duration), format="gif")


def preview_jpeg(frame: Frame) -> bytes:
    """A rough picture of a render that goes on, as a small JPEG."""
    small = _within(frame, _GIF_SIDE)
    _, encoded = cv2.imencode(".jpg", cv2.cvtColor(small, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


def _is_picture(path: Path) -> bool:
    with path.open("rb") as file:
        start = file.read(12)
    return start.startswith(_PICTURES) or (start[:4] == b"RIFF" and start[8:] == b"WEBP")


def sample_frames(video: Path, count: int, side: int, check: Check) -> list[Frame]:
    """Up to `count` frames, evenly taken, the first and the last included.

    Those with a side of more than `side` pixels are made smaller. `check` is called at each frame
    that is decoded. Raises InvalidMedia.
    """
    return list(_evenly(video, count, side, check))


def _evenly(video: Path, count: int, side: int, check: Check) -> Iterator[Frame]:
    total = probe(video).frames
    wanted = set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())
    for number, frame in enumerate(read_frames(video)):
        check()
        if number in wanted:
            yield _within(frame, side)
        if number >= total:
            return


def _within(frame: Frame, side: int) -> Frame:
    """The frame, made smaller when a side is longer than `side` pixels."""
    height, width = frame.shape[:2]
    scale = side / max(height, width)
    if scale >= 1:
        return frame
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return np.asarray(cv2.resize(frame, size, interpolation=cv2.INTER_AREA), dtype=np.uint8)


def _write_jpeg(target: Path, frame: Frame) -> None:
    with whole_file(target) as part, disk_errors(target):
        Image.fromarray(frame).save(part, "JPEG", quality=_QUALITY)
