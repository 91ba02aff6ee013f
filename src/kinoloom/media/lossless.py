"""How are a few frames kept in one file that gives the very same frames back?

As FFV1 (RFC 9043) in RGB, in Matroska (RFC 9559). The same frames make the same bytes each time, so
that the file's digest stands for what it shows.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain
from pathlib import Path

import av

from kinoloom.errors import OutputFailed
from kinoloom.media.frames import Frame, checked_frames
from kinoloom.media.output import disk_errors, whole_file
from kinoloom.media.rates import exact_rate

# Without "bitexact" the container has a random number in it, and the codec's version. Slices are
# what FFmpeg shares out between its threads; as many as it has cores would be other bytes.
_CONTAINER = {"fflags": "+bitexact"}
_CODEC = {
    "flags": "+bitexact",
    "threads": "1",
    "level": "3",
    "slices": "4",
    "slicecrc": "1",
    "g": "1",
}


def save_lossless(path: str | Path, frames: Iterable[Frame] | Frame, fps: float) -> None:
    """Write uint8 RGB frames [H, W, 3] as a Matroska video without any loss, whole or not at all.

    Raises InvalidMedia (no frames, unequal), InvalidRequest (fps) and OutputFailed.
    """
    path, rate = Path(path), exact_rate(fps)
    checked = checked_frames(frames)
    first = next(checked)
    with (
        whole_file(path) as part,
        disk_errors(path),
        # The "file:" keeps FFmpeg from reading a name such as "pipe:1" as an address.
        av.open(f"file:{part}", "w", format="matroska", options=_CONTAINER) as container,
    ):
        stream = container.add_stream("ffv1", rate=rate, options=_CODEC)
        if not isinstance(stream, av.VideoStream):  # tells mypy what the codec's name implies
            raise OutputFailed("ffv1 is not a video encoder.")
        stream.height, stream.width = first.shape[:2]
        stream.pix_fmt = "bgr0"
        stream.codec_context.time_base = 1 / rate
        for number, frame in enumerate(chain((first,), checked)):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24").reformat(format="bgr0")
            picture.pts, picture.time_base = number, 1 / rate
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
