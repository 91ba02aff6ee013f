"""What are the single steps between a plan and its file?

Each is a function of what came before it, so that a job may run them in one process after the
other, or each when its turn comes in a child process.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from kinoloom.backends.base import Audio, Frame, Frames, Inputs, Progress, Rendered, Renderer
from kinoloom.catalog.card import ModelCard
from kinoloom.jobs.takes import take_of
from kinoloom.media.audio import AudioTrack
from kinoloom.media.pictures import poster
from kinoloom.media.writer import VideoFormat, write_video
from kinoloom.planner.plan import Plan
from kinoloom.quality.score import Scores, score


def render_take(
    plan: Plan,
    card: ModelCard,
    backend: Renderer,
    inputs: Inputs,
    report: Callable[[Progress], None],
) -> Rendered:
    """Render the plan of one take. Raises KinoloomError, and what `report` raises."""
    return backend.render(take_of(plan), card, inputs, report)


def score_frames(frames: Frames, fps: float, check: Callable[[], None] | None = None) -> Scores:
    """Score frames [T, H, W, 3]; `check` is called at each, and what it raises stops the work."""
    if check is None:
        return score(frames, fps)
    return score(_checked(frames, check), fps, expected=len(frames))


def encode_clip(
    target: Path,
    plan: Plan,
    frames: Frames,
    audio: Audio | None,
    settings: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    format: VideoFormat,  # noqa: A002 - the word users know
    on_frame: Callable[[int], None] | None = None,
) -> None:
    """Write the clip to `target`, whole or not at all; see `write_video`."""
    write_video(
        target,
        frames,
        plan.fps,
        format=format,
        settings=settings,
        audio=AudioTrack(audio.samples, audio.rate) if audio is not None else None,
        on_frame=on_frame,
    )


def poster_png(frames: Frames | Sequence[Frame]) -> bytes:
    """The picture that stands for the clip, as a PNG."""
    import cv2

    _, encoded = cv2.imencode(".png", cv2.cvtColor(poster(frames), cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


def _checked(frames: Frames, check: Callable[[], None]) -> Iterator[Frames]:
    for frame in frames:
        check()
        yield frame
