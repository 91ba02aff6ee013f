"""How do rendered frames and their sound lie on the disk between two steps?

Frames as one ``.npy`` of uint8 [T, H, W, 3], so that a later step maps them into memory instead of
reading them; sound as ``.npz`` with its samples [channels, n] and their rate. Both appear whole or
not at all.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from kinoloom.backends.base import Audio, Frames
from kinoloom.errors import InvalidMedia
from kinoloom.media.output import disk_errors, whole_file


def save_frames(file: Path, frames: Frames) -> None:
    """Write uint8 frames [T, H, W, 3]. Raises OutputFailed."""
    with whole_file(file) as part, disk_errors(file), part.open("wb") as opened:
        np.save(opened, frames, allow_pickle=False)


def load_frames(file: Path) -> Frames:
    """The frames, mapped read-only. Raises InvalidMedia when the file does not hold any."""
    try:
        frames: Frames = np.load(file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # Python's own parser reads the header, and raises what it likes
        raise _damaged(file, error) from error
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8:
        raise _damaged(file, f"It holds {frames.dtype} {frames.shape}.")
    return frames


def save_audio(file: Path, audio: Audio) -> None:
    """Write the sound. Raises OutputFailed."""
    with whole_file(file) as part, disk_errors(file), part.open("wb") as opened:
        np.savez(opened, samples=audio.samples, rate=np.int64(audio.rate))


def load_audio(file: Path) -> Audio:
    """The sound. Raises InvalidMedia when the file does not hold any."""
    try:
        with np.load(file, allow_pickle=False) as held:
            return Audio(held["samples"], int(held["rate"]))
    except (OSError, ValueError, EOFError, KeyError, TypeError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, cause: object) -> InvalidMedia:
    return InvalidMedia(
        f"What was rendered cannot be read from {file}.",
        cause=str(cause),
        hints=("Run the job again.",),
    )
