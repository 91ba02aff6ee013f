"""How does one plan become one finished clip?

Check the output, read the inputs, render, score, write, record: the clip exists only when the last
one is done. Whatever stops it in between, an error or the user, leaves no partial file behind.
All happens in this process; a durable job takes the same steps (`steps`, `record`) one by one.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kinoloom.backends.base import Rendered, Renderer
from kinoloom.catalog.card import ModelCard
from kinoloom.jobs.media import keep_inputs, read_inputs
from kinoloom.jobs.naming import output_path
from kinoloom.jobs.progress import Listener, Reporter
from kinoloom.jobs.record import (
    RenderFacts,
    clip_record,
    measurement_of,
    settings_of,
    take_settings,
)
from kinoloom.jobs.reuse import find_again
from kinoloom.jobs.room import check_place
from kinoloom.jobs.steps import encode_clip, poster_png, render_take, score_frames
from kinoloom.jobs.takes import plan_of_take
from kinoloom.planner.inputs import file_digest
from kinoloom.planner.plan import Plan
from kinoloom.quality.score import Scores
from kinoloom.store.clips import ClipRecord
from kinoloom.store.ids import new_id
from kinoloom.store.measurements import Measurement
from kinoloom.store.statistics import REUSED
from kinoloom.store.store import Store


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
    backend: Renderer,
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
        store.statistics.add(REUSED)
        return Made(found, reused=True)
    started = time.perf_counter()
    report = Reporter(listener, plan.estimate.seconds, plan.candidates)
    path = output_path(plan, outputs)
    check_place(plan, path)
    inputs = read_inputs(plan)
    kept = keep_inputs(plan, store)  # now, since a temporary file may be gone after the render

    measured: list[Measurement] = []
    counted: Counter[str] = Counter()

    def render(take: Plan) -> Rendered:
        rendered = render_take(take, card, backend, inputs, report)
        facts = RenderFacts.of(rendered)
        measured.append(measurement_of(take, facts))
        counted.update(facts.counters)
        return rendered

    takes: list[dict[str, Any]] = []
    if plan.candidates == 1:
        best, scores = plan, None
        rendered = render(plan)
    else:
        chosen, takes = _best(plan, render, store, report)
        best, rendered, scores = chosen.plan, chosen.rendered, chosen.scores
    clip_id = new_id()
    facts = RenderFacts.of(rendered)
    report.tell("score")
    # Before the file appears, so that nothing but its record can fail afterwards.
    picture = store.assets.put_bytes(poster_png(rendered.frames), "poster").digest
    # The frames are scored while they are encoded, each on a core of its own.
    with ThreadPoolExecutor(1, "kinoloom-score") as pool:
        scoring = pool.submit(lambda: scores or score_frames(rendered.frames, best.fps))
        report.tell("write", 0, best.frames)
        encode_clip(
            path,
            best,
            rendered.frames,
            rendered.audio,
            lambda: settings_of(clip_id, best, scoring.result().as_dict(), facts.all_versions),
            best.request.format,
            lambda done: report.tell("write", done, best.frames),
        )
    record = clip_record(
        clip_id,
        path,
        best,
        facts,
        scoring.result().as_dict(),
        total=time.perf_counter() - started,
        inputs=kept,
        poster=picture,
        digest=file_digest(path) if path.is_file() else None,
        takes=takes,
    )
    store.record_clip(record, measurements=measured, counters=counted)
    return Made(record)


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
        take = plan_of_take(plan, number)
        rendered = render(take)
        scores = score_frames(rendered.frames, take.fps)
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
    plan, rendered = attempt.plan, attempt.rendered
    with tempfile.TemporaryDirectory(prefix="kinoloom-") as folder:
        file = Path(folder) / "take.mp4"
        encode_clip(file, plan, rendered.frames, rendered.audio, take_settings(plan), "mp4")
        return store.assets.put_file(file, "take").digest
