"""What is remembered of a finished clip, and what does its render teach?

Numbers and words only: a process that records clips needs neither their frames nor the libraries
that hold them.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from kinoloom.backends.base import Placement, Rendered
from kinoloom.planner.plan import Plan
from kinoloom.store.cache.bytes import HITS, MISSES
from kinoloom.store.clips import ClipRecord
from kinoloom.store.measurements import Measurement


@dataclass(frozen=True)
class VideoFacts:
    """What a service's video is: pixels a side, number of frames, frames a second."""

    width: int
    height: int
    frames: int
    fps: float


@dataclass(frozen=True, kw_only=True)
class RenderFacts:
    """What a backend says of a render besides frames and sound; see `Rendered`.

    Of what a service made, `video` is what came, and nothing is known of numbers and placement.
    """

    seconds: Mapping[str, float]
    device: str
    versions: Mapping[str, str]
    notes: tuple[str, ...]
    dtype: str | None = None
    peak_bytes: int | None = None
    placement: Placement | None = None
    tiling: bool = False
    embeddings: Literal["hit", "miss"] | None = None
    video: VideoFacts | None = None

    @classmethod
    def of(cls, rendered: Rendered) -> RenderFacts:
        """The facts of a render."""
        return cls(
            seconds=rendered.seconds,
            device=rendered.device,
            dtype=rendered.dtype,
            versions=rendered.versions,
            peak_bytes=rendered.peak_bytes,
            placement=rendered.placement,
            tiling=rendered.tiling,
            notes=rendered.notes,
            embeddings=rendered.embeddings,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> RenderFacts:
        """The facts from their JSON."""
        video = data.get("video")
        known = VideoFacts(**video) if video is not None else None
        return cls(**{**data, "notes": tuple(data["notes"]), "video": known})

    def as_dict(self) -> dict[str, Any]:
        """The facts as JSON-ready data."""
        return asdict(self) | {"notes": list(self.notes)}

    @property
    def all_versions(self) -> dict[str, str]:
        """What the frames were made with: packages, number format, placement."""
        return {
            "kinoloom": metadata.version("kinoloom"),
            "python": platform.python_version(),
            **self.versions,
            **({} if self.dtype is None else {"dtype": self.dtype}),
            **({} if self.placement is None else {"placement": self.placement}),
        }

    @property
    def counters(self) -> dict[str, int]:
        """What the statistics count of this render."""
        return {} if self.embeddings is None else {_COUNTED[self.embeddings]: 1}


_COUNTED = {"hit": HITS, "miss": MISSES}


def settings_of(
    clip_id: str, plan: Plan, scores: Mapping[str, Any], versions: Mapping[str, str]
) -> dict[str, Any]:
    """What is embedded in the file: enough to show how it was made and to make it again."""
    return {
        "clip": clip_id,
        "plan": plan.model_dump(mode="json"),
        "scores": dict(scores),
        "versions": dict(versions),
    }


def take_settings(plan: Plan) -> dict[str, Any]:
    """What is embedded in the file of a candidate."""
    return {"plan": plan.model_dump(mode="json")}


def clip_record(
    clip_id: str,
    path: Path,
    plan: Plan,
    facts: RenderFacts,
    scores: Mapping[str, Any],
    *,
    total: float,
    inputs: Mapping[str, str],
    poster: str | None,
    digest: str | None,
    takes: Sequence[Mapping[str, Any]] = (),
    asset: str | None = None,
    owner: str | None = None,
    job_id: str | None = None,
    remarks: Sequence[str] = (),
    attempts: Sequence[Mapping[str, Any]] = (),
    charged: tuple[Decimal, str] | None = None,
    boundaries: Mapping[str, str] | None = None,
) -> ClipRecord:
    """The record of the clip at `path`, or of one that only the store keeps, as `asset`.

    `plan` is that of the chosen take, with its seed; `scores` are `Scores.as_dict()`; `total` the
    seconds of the whole job; `inputs` the digests of what was given, `poster` that of its picture,
    `digest` that of the file, None for a folder; `remarks` what the user should know beside what
    the plan, the render and the scores say, `attempts` what was tried, `charged` the amount and
    the currency of what it all cost, `boundaries` as in `ClipRecord`.
    """
    seconds = {**facts.seconds, "total": total}
    video = facts.video or VideoFacts(plan.width, plan.height, plan.frames, plan.fps)
    return ClipRecord(
        id=clip_id,
        path=path if asset is not None else path.absolute(),
        digest=digest,
        plan_key=plan.key,
        task=plan.task,
        model=plan.model,
        backend=plan.backend,
        seed=plan.seed,
        width=video.width,
        height=video.height,
        frames=video.frames,
        fps=video.fps,
        format=plan.request.format,
        request=plan.request.model_dump(mode="json"),
        plan=plan.model_dump(mode="json"),
        timings={name: round(value, 4) for name, value in seconds.items()},
        scores=dict(scores),
        versions=facts.all_versions,
        warnings=(*plan.warnings, *remarks, *facts.notes, *scores["notes"]),
        inputs=dict(inputs),
        poster=poster,
        takes=tuple(takes),
        asset=asset,
        boundaries=dict(boundaries or {}),
        owner=owner,
        job_id=job_id,
        attempts=tuple(attempts),
        cost=charged[0] if charged is not None else None,
        currency=charged[1] if charged is not None else None,
    )


def measurement_of(plan: Plan, facts: RenderFacts) -> Measurement:
    """What a render on this machine teaches for later estimates; loading is not part of it."""
    assert facts.placement is not None  # which only what is made elsewhere has not
    # A backend of another package tells of the phases that it has.
    told = facts.seconds
    around = sum(told.get(name, 0.0) for name in ("encode", "denoise", "decode"))
    step = told.get("step", 0.0)
    return Measurement(
        device=plan.device,
        model=plan.model,
        revision="",
        width=plan.width,
        height=plan.height,
        frames=plan.frames,
        steps=plan.steps,
        guided=plan.guidance > 1,
        seconds_per_step=step,
        load_seconds=told.get("load", 0.0),
        overhead_seconds=max(0.0, around - plan.steps * step),
        peak_bytes=facts.peak_bytes,
        placement=facts.placement,
        tiling=facts.tiling,
        acceleration=plan.request.acceleration,
    )
