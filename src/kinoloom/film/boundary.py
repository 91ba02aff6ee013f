"""Which frames does the next segment start from?

The last ones that the segment before shows, without any loss: as the model made them, before
encoding, where its frames are still there, else as the video decodes to. One is written as a PNG
without a colour profile, several as a lossless video of RGB, so that every reader gets the same
numbers back.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from pathlib import Path

import numpy as np

from kinoloom.errors import InvalidMedia, InvalidRequest, Problem
from kinoloom.media.frames import Frame
from kinoloom.media.images import save_png
from kinoloom.media.localfile import check_file
from kinoloom.media.lossless import save_lossless
from kinoloom.media.reader import check_size, last_frame, read_frames

MAX_FRAMES = 64
"""No model takes more frames of context; the largest in the catalogue takes 17."""

MAX_BYTES = 1_000_000_000
"""Of memory for the frames held at once: 64 frames of 2560x1440, 10 of 8K."""


def last_frames(frames: Path, count: int, *, video: bool, shown: int | None = None) -> list[Frame]:
    """The last `count` frames [H, W, 3] of `frames`, oldest first.

    With `video` these are a video or a folder of PNG frames, else an array of uint8 [T, H, W, 3] in
    NumPy's format. `shown` is how many of them the film shows, when the rest is trimmed off; the
    next segment goes on from the last one shown. Raises InvalidRequest for a number out of range or
    more than there is, InvalidMedia when the file is damaged, no video, or too large.
    """
    if not 1 <= count <= MAX_FRAMES:
        raise InvalidRequest([Problem("count", count, f"1 to {MAX_FRAMES} boundary frames")])
    taken = _of_video if video else _of_array
    return taken(frames, count, shown)


def write_boundary(target: Path, frames: Sequence[Frame], fps: float) -> None:
    """Write what a segment goes on from: one frame as a picture, several as a video of `fps`.

    Raises InvalidMedia and OutputFailed.
    """
    if len(frames) == 1:
        save_png(target, frames[0])
    else:
        save_lossless(target, frames, fps)


def _of_array(file: Path, count: int, shown: int | None) -> list[Frame]:
    found = check_file(file, "frames file")
    try:
        # Mapped: only the pages of the last frames are ever read. No pickle can be mapped.
        array = np.lib.format.open_memmap(found, mode="r")
    except Exception as error:
        # NumPy parses the header as Python; what a crafted one raises is not written down anywhere.
        raise _damaged(file, str(error)) from error
    if array.ndim != 4 or array.dtype != np.uint8 or array.shape[3] != 3:
        raise _damaged(file, f"It holds {array.dtype} {array.shape}, not uint8 RGB frames.")
    _check_enough(file, len(array), count, shown)
    check_size(file, array.shape[2], array.shape[1])
    _check_memory(file, count * array[:1].nbytes)
    end = len(array) if shown is None else shown
    return [np.array(frame) for frame in array[end - count : end]]


def _of_video(file: Path, count: int, shown: int | None) -> list[Frame]:
    if count == 1 and shown is None:
        return [last_frame(file)]
    kept: deque[Frame] = deque(maxlen=count)
    seen = 0
    for frame in islice(read_frames(file), shown):
        _check_memory(file, count * frame.nbytes)
        kept.append(frame)
        seen += 1
    _check_enough(file, seen, count, shown)
    return list(kept)


def _check_enough(file: Path, there: int, count: int, shown: int | None) -> None:
    wanted = count if shown is None else shown
    if wanted < count or there < wanted:
        raise InvalidRequest(
            [Problem("count", count, f"at most the {min(wanted, there)} frames that are shown")],
            message=f"{file} has too few frames: the last {count} of {wanted} are needed, "
            f"it has {there}.",
            hints=("Make the segment longer, or take fewer overlap frames.",),
        )


def _check_memory(file: Path, needed: int) -> None:
    if needed > MAX_BYTES:
        raise InvalidMedia(
            f"The last frames of {file} are too large to be held in memory.",
            cause=f"They take {needed / 1e6:,.0f} MB, allowed are {MAX_BYTES / 1e6:,.0f} MB.",
            hints=("Take fewer overlap frames.",),
        )


def _damaged(file: Path, cause: str) -> InvalidMedia:
    return InvalidMedia(
        f"The frames of {file} cannot be read.",
        cause=cause,
        hints=("Make the segment again.",),
    )
