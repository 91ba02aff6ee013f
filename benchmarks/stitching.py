"""How long does it take to join the pieces of a film, and what does a longer film cost?

Each film is joined in a process of its own, from files of its own. Copied pieces are of the film's
size, rate and codec; those that are encoded begin with a frame that the film has already, as the
segments of a chain do. Target: a minute of the longest film takes at most 1.2 times the processor
time of a minute of one a sixteenth as long, and joining it at most 1.2 times the memory.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import numpy as np

from benchmarks.effort import repeats
from benchmarks.machine import machine_line

TARGET = 1.2
LENGTHS = (10, 40, 160, 640)
ROUNDS = repeats(3)
FRAMES, SIZE, FPS = 13, (192, 112), Fraction(24)
KINDS = ("copied", "encoded")


def material(folder: Path) -> None:
    """As many files as the longest film has pieces, of ten different clips with sound."""
    from kinoloom.media.audio import AudioTrack
    from kinoloom.media.writer import write_video

    width, height = SIZE
    at = np.arange(FRAMES * 2000) / 48_000
    for number in range(10):
        drawn = np.random.default_rng(number).integers(0, 256, (height, 4 * width, 3), np.uint8)
        wide = drawn.astype(np.float32)
        for axis in (0, 1):  # soft enough to be encoded as pictures are
            wide = np.mean([np.roll(wide, step, axis) for step in range(-6, 7)], axis=0)
        frames = np.stack([wide[:, 4 * n : 4 * n + width] for n in range(FRAMES)])
        wave = 0.2 * np.sin(2 * np.pi * (200 + 40 * number) * at)
        sound = AudioTrack(np.stack([wave, wave]).astype(np.float32), 48_000)
        write_video(
            folder / f"{number}.mp4", frames.astype(np.uint8), FPS, format="mp4", audio=sound
        )
    for number in range(10, max(LENGTHS)):
        shutil.copyfile(folder / f"{number % 10}.mp4", folder / f"{number}.mp4")


def join(folder: Path, pieces: int, kind: str) -> None:
    """Join a film and print what that took: seconds, processor seconds, MiB at most, its frames."""
    from kinoloom.film.stitch import Cut, Piece, stitch

    skip = 0 if kind == "copied" else 1
    cut = Cut(
        tuple(Piece(folder / f"{n}.mp4", FRAMES - skip, skip) for n in range(pieces)), FPS, SIZE
    )
    wall, processor = time.perf_counter(), time.process_time()
    made = stitch(cut, folder / f"{os.getpid()}.mp4", format="mp4")
    wall, processor = time.perf_counter() - wall, time.process_time() - processor
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1])
    made.path.unlink()
    if made.copied != (pieces if kind == "copied" else 0):
        sys.exit(f"{made.copied} of {pieces} pieces were copied: this is other work.")
    print(json.dumps([wall, processor, peak / 1024, made.frames]))


def measured(folder: Path, pieces: int, kind: str) -> Sequence[float]:
    """What `join` prints in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.stitching", str(folder), str(pieces), kind]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(done.stderr)
    found: list[float] = json.loads(done.stdout)
    return found


def main() -> None:
    """Print the table."""
    if not Path("/proc/self/status").exists():
        print("Only Linux tells how much of a process was in memory.")
        sys.exit()
    rows: dict[tuple[str, int], list[Sequence[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        material(folder)
        for _ in range(ROUNDS):
            for pieces in LENGTHS:
                for kind in KINDS:
                    rows.setdefault((kind, pieces), []).append(measured(folder, pieces, kind))
    print(machine_line())
    print(f"pieces of {FRAMES} frames {SIZE[0]}x{SIZE[1]} with sound, median of {ROUNDS}")
    print(
        f"{'':8s} {'pieces':>7s} {'minutes':>8s} {'seconds':>8s} {'processor':>10s}"
        f" {'a minute':>9s} {'MiB at most':>12s}"
    )
    spent: dict[tuple[str, int], float] = {}
    peaks: dict[tuple[str, int], float] = {}
    for kind in KINDS:
        for pieces in LENGTHS:
            wall, processor, peak, frames = (
                statistics.median(column) for column in zip(*rows[kind, pieces], strict=True)
            )
            minutes = frames / float(FPS) / 60
            spent[kind, pieces], peaks[kind, pieces] = processor / minutes, peak
            print(
                f"{kind:8s} {pieces:7d} {minutes:8.2f} {wall:8.2f} {processor:10.2f}"
                f" {processor / minutes:9.2f} {peak:12.1f}"
            )
    longest, other = LENGTHS[-1], LENGTHS[1]
    for kind in KINDS:
        ratio = spent[kind, longest] / spent[kind, other]
        exponent = 1 + math.log(ratio) / math.log(longest / other)
        memory = peaks[kind, longest] / peaks[kind, other]
        print(
            f"{kind}: from {other} to {longest} pieces the time grows with the length to the power"
            f" of {exponent:.2f}, the memory to {memory:.2f} of what it was"
        )
    slowest = max(spent[kind, longest] / spent[kind, other] for kind in KINDS)
    largest = max(peaks[kind, longest] / peaks[kind, other] for kind in KINDS)
    verdict = "met" if max(slowest, largest) <= TARGET else "MISSED"
    print(
        f"target {TARGET} times the time of a minute, and the memory, at {longest // other} times"
        f" the length: {slowest:.2f} and {largest:.2f}, {verdict}"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        join(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
    else:
        main()
