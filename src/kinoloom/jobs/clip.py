"""How does one plan become one finished clip?

Check the output, read the inputs, render, score, write, record: each step is a function, and the
clip exists only when the last one is done. Whatever stops it in between, an error or the user,
leaves no partial file behind.
"""

from __future__ import annotations

import platform
import time
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from kinoloom.backends.base import Backend, Frames, Inputs, Rendered, Take
from kinoloom.catalog.card import ModelCard
from kinoloom.jobs.naming import output_path
from kinoloom.jobs.progress import Listener, Reporter
from kinoloom.media.images import fit, load_image
from kinoloom.media.output import check_writable
from kinoloom.media.pictures import poster
from kinoloom.media.reader import read_frames
from kinoloom.media.sequence import check_sequence_place
from kinoloom.media.writer import write_video
from kinoloom.planner.plan import Plan
from kinoloom.quality.score import Scores, score
from kinoloom.store.clips import ClipRecord
from kinoloom.store.ids import new_id
from kinoloom.store.measurements import Measurement
from kinoloom.store.store import Store

# Generous bounds of what the encoders need, for the check of free space.
_BITS_A_PIXEL = {"mp4": 2, "webm": 2, "gif": 6, "png": 12}


def make_clip(
    plan: Plan,
    card: ModelCard,
    *,
    backend: Backend,
    store: Store,
    outputs: Path,
    listener: Listener | None = None,
) -> ClipRecord:
    """Render `plan` and give the record of the finished clip.

    Raises KinoloomError, and whatever `listener` raises, which stops the work.
    """
    started = time.perf_counter()
    report = Reporter(listener, plan.estimate.seconds)
    path = output_path(plan, outputs)
    pixels = plan.width * plan.height * plan.frames
    check_place = check_sequence_place if plan.request.format == "png" else check_writable
    check_place(path, pixels * _BITS_A_PIXEL[plan.request.format] // 8)
    inputs = read_inputs(plan)
    kept = _keep_inputs(plan, store)  # now, since a temporary file may be gone after the render
    rendered = backend.render(take_of(plan), card, inputs, report)
    clip_id = new_id()
    versions = _versions(rendered)
    report.tell("score")
    # Before the file appears, so that nothing but its record can fail afterwards.
    picture = store.assets.put_bytes(_png(poster(rendered.frames)), "poster").digest
    # The frames are scored while they are encoded, each on a core of its own.
    with ThreadPoolExecutor(1, "kinoloom-score") as pool:
        scoring = pool.submit(score, rendered.frames, plan.fps)
        report.tell("write", 0, plan.frames)
        write_video(
            path,
            rendered.frames,
            plan.fps,
            format=plan.request.format,
            settings=lambda: settings_of(clip_id, plan, scoring.result(), versions),
            on_frame=lambda done: report.tell("write", done, plan.frames),
        )
    scores = scoring.result()
    seconds = rendered.seconds | {"total": time.perf_counter() - started}
    record = ClipRecord(
        id=clip_id,
        path=path.absolute(),
        plan_key=plan.key,
        task=plan.task,
        model=plan.model,
        backend=plan.backend,
        seed=plan.seed,
        width=plan.width,
        height=plan.height,
        frames=plan.frames,
        fps=plan.fps,
        format=plan.request.format,
        request=plan.request.model_dump(mode="json"),
        plan=plan.model_dump(mode="json"),
        timings={k: round(v, 4) for k, v in seconds.items()},
        scores=scores.as_dict(),
        versions=versions,
        warnings=(*plan.warnings, *scores.notes),
        inputs=kept,
        poster=picture,
    )
    store.clips.add(record)
    store.measurements.add(_measurement(plan, rendered, seconds))
    return record


def take_of(plan: Plan) -> Take:
    """What a backend needs to know of a plan."""
    return Take(
        task=plan.task,
        prompt=plan.prompt,
        negative=plan.negative,
        width=plan.width,
        height=plan.height,
        frames=plan.frames,
        fps=plan.fps,
        steps=plan.steps,
        guidance=plan.guidance,
        seed=plan.seed,
        device=plan.device,
    )


def read_inputs(plan: Plan) -> Inputs:
    """The plan's pictures at its size: covered and cut at the centre. Raises InvalidMedia."""
    found = plan.inputs
    size = plan.width, plan.height
    video: Frames | None = None
    if found.video is not None:
        tail = deque(read_frames(found.video.path), maxlen=plan.context_frames)
        video = np.stack([fit(frame, *size) for frame in tail])
    return Inputs(
        image=fit(load_image(found.image.path), *size) if found.image else None,
        last_image=fit(load_image(found.last_image.path), *size) if found.last_image else None,
        video=video,
    )


def settings_of(
    clip_id: str, plan: Plan, scores: Scores, versions: dict[str, str]
) -> dict[str, Any]:
    """What is embedded in the file: enough to show how it was made and to make it again."""
    return {
        "clip": clip_id,
        "plan": plan.model_dump(mode="json"),
        "scores": scores.as_dict(),
        "versions": versions,
    }


def _versions(rendered: Rendered) -> dict[str, str]:
    return {
        "kinoloom": metadata.version("kinoloom"),
        "python": platform.python_version(),
        **rendered.versions,
        "dtype": rendered.dtype,
    }


def _keep_inputs(plan: Plan, store: Store) -> dict[str, str]:
    """Put the given files into the store, so that the clip can be made again when they are gone.

    Gives their digests by field. A folder of frames stays where it is.
    """
    kept: dict[str, str] = {}
    for name in ("image", "last_image", "video"):
        found = getattr(plan.inputs, name)
        if found is not None and found.path.is_file():
            kept[name] = store.assets.put_file(found.path, "input").digest
    return kept


def _png(frame: Frames) -> bytes:
    import cv2

    _, encoded = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


def _measurement(plan: Plan, rendered: Rendered, seconds: dict[str, float]) -> Measurement:
    """What this render teaches for later estimates; loading is not part of it."""
    steps = plan.steps * rendered.seconds["step"]
    return Measurement(
        device=plan.device,
        model=plan.model,
        revision="",
        width=plan.width,
        height=plan.height,
        frames=plan.frames,
        steps=plan.steps,
        guided=plan.guidance > 1,
        seconds_per_step=rendered.seconds["step"],
        load_seconds=rendered.seconds["load"],
        overhead_seconds=max(0.0, seconds["total"] - rendered.seconds["load"] - steps),
        peak_bytes=rendered.peak_bytes,
    )
