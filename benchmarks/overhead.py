"""How much longer does `kinoloom.generate` take than the bare diffusers pipeline it calls?

Target: at most 1.03 times as long, for spark's default clip, with both warm. Ours finds the
prompt's embeddings in its cache, and makes previews, a score, the file and the record besides.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr
from io import StringIO
from typing import Any

import numpy as np

import kinoloom
from benchmarks.effort import repeats
from benchmarks.machine import machine_line
from benchmarks.place import own_place
from kinoloom.catalog.loader import Catalog

TARGET = 1.03
PAIRS = repeats(7)
PROMPT = "a red ball rolling to the right on green grass"


def bare_call(plan: dict[str, Any]) -> Callable[[], np.ndarray]:
    """The pipeline as a user of diffusers would load and call it, with the plan's arguments."""
    import torch
    from diffusers import LTXConditionPipeline

    card = Catalog.load().get("spark")
    with redirect_stderr(StringIO()):
        pipe = LTXConditionPipeline.from_pretrained(str(card.source.folder), dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)

    def call() -> np.ndarray:
        return pipe(
            prompt=plan["prompt"],
            width=plan["width"],
            height=plan["height"],
            num_frames=plan["frames"],
            frame_rate=plan["fps"],
            guidance_scale=plan["guidance"],
            timesteps=[1000 * s for s in card.schedule.sigmas(plan["steps"])],
            max_sequence_length=32,
            decode_timestep=0.0,
            image_cond_noise_scale=0.0,
            generator=torch.Generator("cpu").manual_seed(plan["seed"]),
            output_type="np",
        ).frames[0]

    return call


def timed(work: Callable[[], object]) -> tuple[float, float]:
    """Seconds of wall and of processor time, all threads together."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - wall, time.process_time() - processor


class Split:
    """Makes the clip and takes the time of what is done around the pipeline."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {}

    def __call__(self) -> None:
        marks: dict[str, float] = {"begin": time.perf_counter()}

        def listen(event: Any) -> None:
            marks[f"last {event.phase}"] = time.perf_counter()
            marks.setdefault(event.phase, time.perf_counter())

        clip = kinoloom.generate(PROMPT, seed=1, cache="bypass", on_progress=listen)
        end = time.perf_counter()
        inside = sum(clip.record.timings[k] for k in ("encode", "denoise", "decode"))
        for name, seconds in {
            "in the pipeline, previews and all": inside,
            "before it: plan, store, inputs": marks["encode"] - marks["begin"],
            "to uint8": marks["score"] - marks["encode"] - inside,
            "scoring": marks["write"] - marks["score"],
            "poster and encoding": marks["last write"] - marks["write"],
            "closing the file, record": end - marks["last write"],
        }.items():
            self.parts.setdefault(name, []).append(seconds)


def main() -> None:
    """Print the table."""
    with own_place():
        warm = kinoloom.generate(PROMPT, seed=1, format="png")
        call = bare_call(warm.record.plan)
        same = np.array_equal((np.clip(call(), 0, 1) * 255 + 0.5).astype(np.uint8), warm.frames)
        if not same:
            sys.exit("The bare call gives other frames: this would compare different work.")
        made = Split()
        walls, processors, bare = [], [], []
        for pair in range(PAIRS):
            if pair % 2:
                ours, theirs = timed(made), timed(call)
            else:
                theirs, ours = timed(call), timed(made)
            walls.append(ours[0] / theirs[0])
            processors.append(ours[1] / theirs[1])
            bare.append(theirs[0])
    plan = warm.record.plan
    work = f"{plan['frames']} frames, {plan['steps']} steps, median of {PAIRS} pairs"
    ratio, base = statistics.median(walls), statistics.median(bare)
    print(machine_line())
    print(f"{work:44s} {'seconds':>8s} {'share':>8s}")
    print(f"{'bare pipeline call':44s} {base:8.3f} {1:8.1%}")
    for name, seconds in made.parts.items():
        part = statistics.median(seconds)
        print(f"{name:44s} {part:8.3f} {part / base:8.1%}")
    print(
        f"{'generate : pipeline, wall time':44s} {ratio:8.3f} ({min(walls):.3f}-{max(walls):.3f})"
    )
    print(f"{'generate : pipeline, processor time':44s} {statistics.median(processors):8.3f}")
    print(f"target {TARGET}: {'met' if ratio <= TARGET else 'MISSED'}; the same frames: yes")


if __name__ == "__main__":
    main()
