"""What does a finished clip offer to the program that asked for it?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kinoloom.media.frames import Frame
    from kinoloom.store.clips import ClipRecord


class Clip:
    """One finished video file with its record.

    `path` is the file (a folder for a PNG sequence), `size` width and height in pixels, `fps`
    frames a second, `scores` the quality measures from 0 to 1, `record` everything that is known
    of how it was made; `reused` is whether the very same clip was there already.
    """

    def __init__(self, record: ClipRecord, *, reused: bool = False) -> None:
        self.record = record
        self.reused = reused
        self.path = Path(record.path)
        self.size = record.width, record.height
        self.fps = record.fps
        self.seed = record.seed
        self.scores: dict[str, Any] = dict(record.scores)

    @property
    def frames(self) -> Frame:
        """All frames, decoded from the file at each call: uint8 RGB [T, H, W, 3].

        Raises InvalidMedia when the file is gone or broken.
        """
        from kinoloom.media.reader import read_video

        return read_video(self.path)[0]

    @property
    def seconds(self) -> float:
        """How long the clip plays."""
        return self.record.frames / self.fps

    def as_dict(self) -> dict[str, Any]:
        """The record as JSON-ready data."""
        return self.record.as_dict()

    def __repr__(self) -> str:
        width, height = self.size
        return f"Clip({str(self.path)!r}, {width}x{height}, {self.record.frames} frames)"
