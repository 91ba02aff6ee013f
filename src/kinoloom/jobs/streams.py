"""How is a video that a service made scored, shown and written?

It stays a file: its frames are decoded one at a time, so a long clip in 4K takes no more memory
than a short small one. All of this runs in a child process, for strangers made the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from kinoloom.jobs.outside import sample_frames
from kinoloom.jobs.steps import poster_png
from kinoloom.media.frames import Frame
from kinoloom.media.reader import read_frames
from kinoloom.media.remux import remux
from kinoloom.media.sound import read_sound
from kinoloom.media.writer import VideoFormat, write_video
from kinoloom.quality.score import Scores, score

_POSTER_FRAMES, _POSTER_SIDE = 16, 2048
"""A poster is one of so many frames, made small where a side is longer."""

Check = Callable[[], None]


def score_video(video: Path, fps: float, frames: int, check: Check) -> Scores:
    """Score a video of about so many frames; see `quality.score`.

    `check` is called at each frame, and what it raises stops the work. Raises InvalidMedia.
    """
    return score(_checked(video, check), fps, expected=frames)


def poster_of_video(video: Path, check: Check) -> bytes:
    """The picture that stands for a video, as a PNG of at most 2048 pixels a side."""
    return poster_png(sample_frames(video, _POSTER_FRAMES, _POSTER_SIDE, check))


def encode_video(
    source: Path,
    target: Path,
    fps: float,
    settings: Mapping[str, Any],
    format: VideoFormat,  # noqa: A002 - the word users know
    check: Check,
    on_frame: Callable[[int], None],
) -> None:
    """Write the video to `target` with its sound, whole or not at all.

    Into an mp4 its streams are copied as they are, where players of mp4 know them; otherwise it is
    encoded anew, with `on_frame` called after each frame. Raises InvalidMedia and OutputFailed.
    """
    if format == "mp4" and remux(source, target, settings=settings, check=check):
        return
    sound = read_sound(source) if format in ("mp4", "webm") else None
    write_video(
        target,
        _checked(source, check),
        fps,
        format=format,
        settings=settings,
        audio=sound,
        on_frame=on_frame,
    )


def _checked(video: Path, check: Check) -> Iterator[Frame]:
    for frame in read_frames(video):
        check()
        yield frame
