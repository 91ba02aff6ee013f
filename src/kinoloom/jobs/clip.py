"""How does one plan become one finished clip?

Check the output, read the inputs, render, score, write, record: each step is a function, and the
clip exists only when the last one is done. Whatever stops it in between, an error or the user,
leaves no partial file behind.
"""

from __future__ import annotations

import platform
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from kinoloom.backends.base import Backend, Frames, Lora, Rendered, Take
from kinoloom.catalog.card import ModelCard
from kinoloom.jobs.media import keep_inputs, read_inputs
from kinoloom.jobs.naming import output_path
from kinoloom.jobs.progress import Listener, Reporter
from kinoloom.jobs.reuse import find_again
from kinoloom.media.audio import AudioTrack
from kinoloom.media.output import check_writable
from kinoloom.media.pictures import poster
from kinoloom.media.sequence import check_sequence_place
from kinoloom.media.writer import write_video
from kinoloom.planner.plan import Plan
from kinoloom.quality.score import Scores, score
from kinoloom.store.cache.bytes import HITS, MISSES
from kinoloom.store.clips import ClipRecord
from kinoloom.store.ids import new_id
from kinoloom.store.measurements import Measurement
from kinoloom.store.store import Store

# Generous bounds of what the encoders need, for the check of free space.
_BITS_A_PIXEL = {"mp4": 2, "webm": 2, "gif": 6, "png": 12}


@dataclass(frozen=True)
class Made:
    """A finished clip's record, and whether it was there already."""

    record: ClipRecord
    reused: bool = False


@dataclass(frozen=True)
class _Attempt:
    """A take that was rendered: its plan, with its own seed, and what came out."""

    plan: Plan
    rendered: Rendered
    scores: Scores


def make_clip(
    plan: Plan,
    card: ModelCard,
    *,
    backend: Backend,
    store: Store,
    outputs: Path,
    listener: Listener | None = None,
) -> Made:
    """Render `plan`, or find the clip that it made before, and give its record.

    With several candidates the one that scores best is the clip; the others are kept in the store
    and named in its record. Raises KinoloomError, and whatever `listener` raises, which stops the
    work.
    """
    if (found := find_again(plan, store)) is not None:
        store.statistics.add("clips.reused")
        return Made(found, reused=True)
    started = time.perf_counter()
    report = Reporter(listener, plan.estimate.seconds, plan.candidates)
    path = output_path(plan, outputs)
    pixels = plan.width * plan.height * plan.frames
    check_place = check_sequence_place if plan.request.format == "png" else check_writable
    check_place(path, pixels * _BITS_A_PIXEL[plan.request.format] // 8)
    inputs = read_inputs(plan)
    kept = keep_inputs(plan, store)  # now, since a temporary file may be gone after the render

    measured: list[Measurement] = []

    def render(take: Plan) -> Rendered:
        rendered = backend.render(take_of(take), card, inputs, report)
        measured.append(_measurement(take, rendered))
        return rendered

    takes: list[dict[str, Any]] = []
    if plan.candidates == 1:
        best, scores = plan, None
        rendered = render(plan)
    else:
        chosen, takes = _best(plan, render, store, report)
        best, rendered, scores = chosen.plan, chosen.rendered, chosen.scores
    clip_id = new_id()
    versions = _versions(rendered)
    report.tell("score")
    # Before the file appears, so that nothing but its record can fail afterwards.
    picture = store.assets.put_bytes(_png(poster(rendered.frames)), "poster").digest
    # The frames are scored while they are encoded, each on a core of its own.
    with ThreadPoolExecutor(1, "kinoloom-score") as pool:
        scoring = pool.submit(lambda: scores or score(rendered.frames, best.fps))
        report.tell("write", 0, best.frames)
        _write(
            path,
            best,
            rendered,
            lambda: settings_of(clip_id, best, scoring.result(), versions),
            lambda done: report.tell("write", done, best.frames),
        )
    scored = scoring.result()
    seconds = rendered.seconds | {"total": time.perf_counter() - started}
    record = ClipRecord(
        id=clip_id,
        path=path.absolute(),
        plan_key=best.key,
        task=best.task,
        model=best.model,
        backend=best.backend,
        seed=best.seed,
        width=best.width,
        height=best.height,
        frames=best.frames,
        fps=best.fps,
        format=best.request.format,
        request=best.request.model_dump(mode="json"),
        plan=best.model_dump(mode="json"),
        timings={k: round(v, 4) for k, v in seconds.items()},
        scores=scored.as_dict(),
        versions=versions,
        warnings=(*best.warnings, *rendered.notes, *scored.notes),
        inputs=kept,
        poster=picture,
        takes=tuple(takes),
    )
    store.clips.add(record)
    if rendered.embeddings is not None:
        store.statistics.add(HITS if rendered.embeddings == "hit" else MISSES)
    for measurement in measured:
        store.measurements.add(measurement)
    return Made(record)


def take_of(plan: Plan) -> Take:
    """What a backend needs to know of a plan."""
    memory = plan.memory
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
        shift=plan.shift,
        timesteps=plan.timesteps,
        scheduler=plan.scheduler,
        loras=tuple(Lora(x.name, x.path, x.weight, x.component) for x in plan.loras),
        speed=plan.speed,
        placement=memory.placement if memory is not None else "resident",
        tiling=memory.tiling if memory is not None else False,
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


def _best(
    plan: Plan, render: Callable[[Plan], Rendered], store: Store, report: Reporter
) -> tuple[_Attempt, list[dict[str, Any]]]:
    """Render every candidate; the one with the best score, and what is kept of all of them.

    Only one is held in memory beside the one that is being made.
    """
    best: _Attempt | None = None
    takes = []
    for number in range(plan.candidates):
        report.take(number)
        take = plan.with_seed(plan.seed + number)
        rendered = render(take)
        scores = score(rendered.frames, take.fps)
        attempt = _Attempt(take, rendered, scores)
        takes.append(
            {"seed": take.seed, "scores": scores.as_dict(), "asset": _kept(attempt, store)}
        )
        if best is None or scores.overall > best.scores.overall:
            best = attempt
    assert best is not None  # there is at least one candidate
    return best, takes


def _kept(attempt: _Attempt, store: Store) -> str:
    """The digest of a take's video in the store, so that another one can be chosen later."""
    with tempfile.TemporaryDirectory(prefix="kinoloom-") as folder:
        file = Path(folder) / "take.mp4"
        settings = {"plan": attempt.plan.model_dump(mode="json")}
        _write(file, attempt.plan, attempt.rendered, lambda: settings, None, "mp4")
        return store.assets.put_file(file, "take").digest


def _write(
    path: Path,
    plan: Plan,
    rendered: Rendered,
    settings: Callable[[], dict[str, Any]],
    on_frame: Callable[[int], None] | None,
    format: Any = None,  # noqa: A002 - the word users know
) -> None:
    sound = rendered.audio
    write_video(
        path,
        rendered.frames,
        plan.fps,
        format=format or plan.request.format,
        settings=settings,
        audio=AudioTrack(sound.samples, sound.rate) if sound is not None else None,
        on_frame=on_frame,
    )


def _versions(rendered: Rendered) -> dict[str, str]:
    return {
        "kinoloom": metadata.version("kinoloom"),
        "python": platform.python_version(),
        **rendered.versions,
        "dtype": rendered.dtype,
        "placement": rendered.placement,
    }


def _png(frame: Frames) -> bytes:
    import cv2

    _, encoded = cv2.imencode(".png", cv2.cvtColor(frame, cv2.COLOR_RGB2BGR))
    return encoded.tobytes()


def _measurement(plan: Plan, rendered: Rendered) -> Measurement:
    """What this render teaches for later estimates; loading is not part of it."""
    around = sum(rendered.seconds[name] for name in ("encode", "denoise", "decode"))
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
        overhead_seconds=max(0.0, around - plan.steps * rendered.seconds["step"]),
        peak_bytes=rendered.peak_bytes,
        placement=rendered.placement,
        tiling=rendered.tiling,
        acceleration=plan.request.acceleration,
    )
