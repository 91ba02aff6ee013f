"""What does an OpenAI client get to see of a job, a page of jobs and a model?

The fields are those that the official client's types name. What Kinoloom has to say beyond them
stands in the field `kinoloom`, which such a client keeps and ignores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from kinoloom.catalog.card import ModelCard
from kinoloom.server.openai.progress import percent
from kinoloom.store.job_record import JobRecord, JobState

Status = Literal["queued", "in_progress", "completed", "failed"]

STATUS: Mapping[JobState, Status] = {
    "held": "queued",
    "queued": "queued",
    "running": "in_progress",
    "succeeded": "completed",
    "failed": "failed",
    "dead": "failed",
    # Nothing will come of it any more, so that nobody has to wait for the worker to let go.
    "cancelling": "failed",
    "cancelled": "failed",
}

_PREFIX = "video_"
_EXAMPLE_ID = f"{_PREFIX}0197b3a2-5f1c-7e04-9c1d-3c5a1b2f6e88"
# Clips are kept until somebody deletes them, and the shape has no other word for "never".
_NEVER = None
_SHORTEST_POLL, _LONGEST_POLL, _USUAL_POLL = 100, 10_000, 1000
_POLLS_A_JOB = 20


class VideoError(BaseModel):
    """Why a video failed: a stable word and a sentence."""

    code: str = Field(examples=["insufficient_vram"])
    message: str


class Extra(BaseModel):
    """What Kinoloom knows beyond OpenAI's shape: the job behind the video and its clip, the
    Idempotency-Key with which it was asked for, what the plan changed of what was asked and why,
    and what the user should know."""

    job: str
    idempotency_key: str | None
    state: JobState
    clip: str | None
    reused: bool
    task: str
    backend: str
    adjustments: list[dict[str, Any]]
    warnings: list[str]


class Video(BaseModel):
    """A video that is made, or was. Times are seconds since 1970, `progress` is in percent."""

    id: str = Field(examples=[_EXAMPLE_ID])
    object: Literal["video"] = "video"
    model: str = Field(examples=["spark"])
    status: Status
    progress: int = Field(ge=0, le=100)
    created_at: int
    completed_at: int | None
    expires_at: int | None
    prompt: str
    seconds: str = Field(examples=["2.083"])
    size: str = Field(examples=["256x160"])
    remixed_from_video_id: str | None
    error: VideoError | None
    kinoloom: Extra


class VideoList(BaseModel):
    """A page of videos; the next one is asked for with `after` = `last_id`."""

    object: Literal["list"] = "list"
    data: list[Video]
    first_id: str | None
    last_id: str | None
    has_more: bool


class VideoDeleted(BaseModel):
    """Whether the video is gone now; see the documentation of the route."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: bool


class VideoModel(BaseModel):
    """A model that a video can be asked of. `created` is 0: the cards do not say when it was."""

    id: str = Field(examples=["spark"])
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = Field(examples=["spark"])
    shutdown_date: str | None


class VideoModelList(BaseModel):
    """Every model that there is a card of, by id."""

    object: Literal["list"] = "list"
    data: list[VideoModel]


def video_id(job_id: str) -> str:
    """The name of a job's video."""
    return _PREFIX + job_id


def job_id(video: str) -> str | None:
    """The job of a video's name; None when it is no such name."""
    return video.removeprefix(_PREFIX) if video.startswith(_PREFIX) else None


def video_of(job: JobRecord) -> Video:
    """A job as a video."""
    plan: Mapping[str, Any] = job.plan or {}
    status = STATUS[job.state]
    return Video(
        id=video_id(job.id),
        model=job.model,
        status=status,
        progress=_progress(job, status),
        created_at=int(job.created_at.timestamp()),
        completed_at=int(job.finished_at.timestamp()) if job.finished_at is not None else None,
        expires_at=_NEVER,
        prompt=job.prompt,
        seconds=_seconds(job, plan),
        size=_size(job, plan),
        remixed_from_video_id=None if job.remixed_from is None else video_id(job.remixed_from),
        error=_error(job) if status == "failed" else None,
        kinoloom=Extra(
            job=job.id,
            idempotency_key=job.idempotency_key,
            state=job.state,
            clip=job.clip_id,
            reused=job.reused,
            task=job.task,
            backend=job.backend,
            adjustments=[dict(change) for change in plan.get("adjustments", ())],
            warnings=list(plan.get("warnings", ())),
        ),
    )


def model_of(card: ModelCard) -> VideoModel:
    """A model card as a model."""
    shutdown = None if card.retirement is None else card.retirement.isoformat()
    return VideoModel(id=card.id, owned_by=card.family, shutdown_date=shutdown)


def poll_after(job: JobRecord) -> int:
    """After how many milliseconds a client should ask again.

    A twentieth of what the plan expects, since the official client keeps to the first answer it
    gets for as long as it waits.
    """
    estimate: float | None = ((job.plan or {}).get("estimate") or {}).get("seconds")
    if estimate is None:
        return _USUAL_POLL
    wait = round(estimate * 1000 / _POLLS_A_JOB)
    return min(max(wait, _SHORTEST_POLL), _LONGEST_POLL)


def _progress(job: JobRecord, status: Status) -> int:
    if status == "completed":
        return 100
    return percent(job.progress) if job.progress is not None and status != "queued" else 0


def _seconds(job: JobRecord, plan: Mapping[str, Any]) -> str:
    """How long the clip plays, as far as it is decided."""
    if plan:
        seconds = plan["frames"] / plan["fps"]
    else:
        seconds = job.request.get("duration") or 0
    return f"{seconds:.3f}".rstrip("0").rstrip(".")


def _size(job: JobRecord, plan: Mapping[str, Any]) -> str:
    asked = job.request.get("size") or (0, 0)
    width, height = (plan["width"], plan["height"]) if plan else asked
    return f"{width}x{height}"


def _error(job: JobRecord) -> VideoError:
    if job.state in ("cancelled", "cancelling"):
        return VideoError(code="cancelled", message="The video was cancelled.")
    error: Mapping[str, Any] = job.error or {}
    parts = [error.get("message") or "The video could not be made.", error.get("cause") or ""]
    hints = error.get("hints") or ()
    message = " ".join(part for part in [*parts, *hints[:1]] if part)
    return VideoError(code=str(error.get("kind") or "unknown"), message=message)
