"""How are jobs listed, followed and steered?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from kinoloom.errors import NotFound
from kinoloom.request import Task
from kinoloom.server.deps import Reader, Service, StoreDep, Writer, owner_of
from kinoloom.server.problems import problem_docs
from kinoloom.server.routes.parameters import (
    ByBackend,
    ByModel,
    ByQueue,
    Cursor,
    JobId,
    Limit,
    Search,
)
from kinoloom.server.schemas import Job, Page
from kinoloom.store.job_record import JobState

router = APIRouter(prefix="/api/jobs", tags=["jobs"])


class Resolution(BaseModel):
    """What became of an order of which nobody knew whether the service has it: one of the two."""

    model_config = ConfigDict(extra="forbid")

    remote_id: str | None = Field(
        default=None, max_length=500, description="It has the order, and calls it this."
    )
    not_accepted: bool = Field(default=False, description="It does not have the order.")


_ONE = problem_docs(404)
_STEERED = problem_docs(404, 409)


@router.get("", operation_id="list_jobs", summary="List jobs")
def list_jobs(
    key: Reader,
    service: Service,
    limit: Limit = 50,
    cursor: Cursor = None,
    state: Annotated[
        list[JobState] | None,
        Query(max_length=8, description="Only in this state; may be given several times."),
    ] = None,
    queue: ByQueue = None,
    model: ByModel = None,
    backend: ByBackend = None,
    task: Annotated[Task | None, Query(description="Only of this task.")] = None,
    search: Search = "",
) -> Page[Job]:
    """The jobs that this key may see, the newest first."""
    found = service.list(
        limit=limit + 1,
        before=cursor,
        states=tuple(state or ()),
        queue=queue,
        model=model,
        backend=backend,
        task=task,
        owner=owner_of(key),
        search=search,
    )
    more = found[limit - 1].id if len(found) > limit else None
    return Page(items=[Job.of(record) for record in found[:limit]], next=more)


@router.get("/{job}", operation_id="get_job", summary="Look at a job", responses=_ONE)
def get_job(key: Reader, service: Service, job_id: JobId) -> Job:
    """One job: its state, its plan, how far it is, and why it failed if it did."""
    return Job.of(service.get(job_id, owner=owner_of(key)))


@router.post("/{job}/cancel", operation_id="cancel_job", summary="Cancel", responses=_STEERED)
def cancel_job(key: Writer, service: Service, job_id: JobId) -> Job:
    """Stop a job: one that waits never runs, one that runs stops within a step.

    The state is `cancelling` until the worker has let go.
    """
    return Job.of(service.cancel(job_id, owner=owner_of(key)))


@router.post("/{job}/hold", operation_id="hold_job", summary="Hold", responses=_STEERED)
def hold_job(key: Writer, service: Service, job_id: JobId) -> Job:
    """Take a job out of its queue until it is released; what is finished of it is kept."""
    return Job.of(service.hold(job_id, owner=owner_of(key)))


@router.post("/{job}/release", operation_id="release_job", summary="Release", responses=_STEERED)
def release_job(key: Writer, service: Service, job_id: JobId) -> Job:
    """Put a held job back into its queue."""
    return Job.of(service.release(job_id, owner=owner_of(key)))


@router.post("/{job}/retry", operation_id="retry_job", summary="Try again", responses=_STEERED)
def retry_job(key: Writer, service: Service, job_id: JobId) -> Job:
    """Queue a failed, cancelled or dead job again; its finished steps do not run again."""
    return Job.of(service.retry(job_id, owner=owner_of(key)))


@router.post(
    "/{job}/resolve",
    operation_id="resolve_job",
    summary="Say what became of an uncertain order",
    responses=problem_docs(404, 409, 422),
)
def resolve_job(key: Writer, service: Service, job_id: JobId, body: Resolution) -> Job:
    """Settle an order that got no answer from its service, which cannot be asked for it either.

    Look there whether it came about; the job then goes on without paying twice.
    """
    return Job.of(
        service.resolve(
            job_id,
            remote_id=body.remote_id,
            not_accepted=body.not_accepted,
            owner=owner_of(key),
        )
    )


@router.get(
    "/{job}/preview",
    operation_id="get_job_preview",
    summary="See what is being rendered",
    response_class=Response,
    responses={
        200: {
            "description": "A small, rough picture of the render so far.",
            "content": {"image/jpeg": {"schema": {"type": "string", "format": "binary"}}},
        },
        **_ONE,
    },
)
def get_job_preview(key: Reader, service: Service, store: StoreDep, job_id: JobId) -> Response:
    """The newest preview of a running job; a finished job has none, but a clip."""
    record = service.get(job_id, owner=owner_of(key))
    jpeg = store.events.preview(job_id)
    if jpeg is None:
        raise NotFound(
            f"The job {job_id} has no preview.",
            cause=f"It is {record.state}.",
            hints=["A preview comes with the first steps of a render, and goes with its end."],
        )
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "no-store"})
