"""How long does writing and reading a clip take in each format, how large and how good is it?"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import get_args

import numpy as np

from benchmarks.machine import machine_line
from benchmarks.scoring import FRAMES, HEIGHT, WIDTH, moving_texture
from kinoloom.media.reader import last_frame, read_frames
from kinoloom.media.writer import VideoFormat, write_video


def main() -> None:
    """Print the table; wall time, all threads that the encoders take."""
    clip = moving_texture()
    print(machine_line())
    print(f"{FRAMES} frames {WIDTH}x{HEIGHT}, everything textured and moving (hard to compress)")
    print(f"{'format':8s} {'write s':>8s} {'read s':>8s} {'last s':>8s} {'MB':>8s} {'PSNR dB':>8s}")
    with tempfile.TemporaryDirectory() as folder:
        for kind in get_args(VideoFormat):
            path = Path(folder) / f"clip.{kind}"
            begin = time.perf_counter()
            write_video(path, clip, 24, format=kind)
            written = time.perf_counter()
            frames = np.stack(list(read_frames(path)))
            read = time.perf_counter()
            last_frame(path)
            last = time.perf_counter()
            size = sum(p.stat().st_size for p in ([path] if path.is_file() else path.iterdir()))
            print(
                f"{kind:8s} {written - begin:8.2f} {read - written:8.2f} {last - read:8.2f} "
                f"{size / 1e6:8.2f} {psnr(clip, frames):8.1f}"
            )


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal-to-noise ratio in dB; infinite for equal clips."""
    error = np.mean(
        [np.square(a.astype(np.float32) - b).mean() for a, b in zip(first, second, strict=True)]
    )
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


if __name__ == "__main__":
    main()
