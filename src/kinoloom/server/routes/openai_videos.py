"""How are videos made by a client that speaks OpenAI's videos API?

The official client decides what is right here: its paths, its forms, its types. A video is a job,
named ``video_`` and the job's id; docs/openai.md says what each route makes of it.
"""

from __future__ import annotations

from typing import Annotated, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response

from kinoloom.catalog.loader import Catalog
from kinoloom.errors import InvalidRequest, NotFound, Problem
from kinoloom.server.clip_request import ClipRequest
from kinoloom.server.deps import Reader, Service, SettingsDep, StoreDep, Writer, owner_of
from kinoloom.server.files import MEDIA_TYPES, asset_content, clip_content, send
from kinoloom.server.openai import documents
from kinoloom.server.openai.asking import fields_of, in_their_words, read_request
from kinoloom.server.openai.body import Sent
from kinoloom.server.openai.derived import edit_of, extension_of, remix_of
from kinoloom.server.openai.media import (
    MASK,
    REFERENCE,
    VIDEO,
    find,
    finished_clip,
    mask_of,
    picture_of,
    source_of,
)
from kinoloom.server.openai.removal import remove
from kinoloom.server.openai.shapes import (
    Video,
    VideoDeleted,
    VideoList,
    VideoModel,
    VideoModelList,
    job_id,
    model_of,
    poll_after,
    video_id,
    video_of,
)
from kinoloom.server.problems import problem_docs
from kinoloom.server.routes.parameters import ModelId
from kinoloom.server.submission import submit_once
from kinoloom.store.job_record import JobRecord
from kinoloom.store.keys import ApiKey

router = APIRouter(prefix="/v1", tags=["OpenAI"])

Variant = Literal["video", "thumbnail", "spritesheet"]
Order = Literal["asc", "desc"]
VideoId = Annotated[
    str,
    Path(
        alias="video",
        description="The id of a video.",
        pattern=r"^[0-9A-Za-z_-]{1,100}$",
        examples=["video_019aa4a6-2f7c-7d3e-8a51-6c1f0e5b9d21"],
    ),
]
Again = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        max_length=255,
        pattern=r"^[\x20-\x7e]+$",
        description="A word of the client's: the same one again makes no second video.",
    ),
]

_POLL = "openai-poll-after-ms"
_ONE = problem_docs(404, openai=True)
_MADE = problem_docs(402, 404, 409, 415, 501, 502, 503, 504, 507, openai=True)


@router.post(
    "/videos",
    operation_id="create_video",
    summary="Create a video",
    responses=_MADE,
    openapi_extra=documents.CREATE,
)
def create_video(
    key: Writer,
    service: Service,
    store: StoreDep,
    settings: SettingsDep,
    body: Sent,
    response: Response,
    again: Again = None,
) -> Video:
    """Queue a video. What the model cannot do as asked is adjusted, and `kinoloom` says so."""
    fields = fields_of(body.values, body.files, media=(REFERENCE,))
    if (picture := picture_of(body, store, settings)) is not None:
        fields["image"] = picture
    return _submitted(read_request(fields, store, settings), service, store, key, again, response)


@router.post(
    "/videos/extensions",
    operation_id="extend_video",
    summary="Continue a video",
    responses=_MADE,
    openapi_extra=documents.EXTEND,
)
def extend_video(
    key: Writer,
    service: Service,
    store: StoreDep,
    settings: SettingsDep,
    body: Sent,
    response: Response,
    again: Again = None,
) -> Video:
    """Queue a video that goes on from the end of another, which begins with its last frames."""
    asked = fields_of(body.values, body.files, media=(VIDEO,))
    source = source_of(body, store, settings, service, owner_of(key))
    wanted = extension_of(source, asked, service, store, settings)
    return _submitted(wanted, service, store, key, again, response)


@router.post(
    "/videos/edits",
    operation_id="edit_video",
    summary="Make parts of a video anew",
    responses=_MADE,
    openapi_extra=documents.EDIT,
)
def edit_video(
    key: Writer,
    service: Service,
    store: StoreDep,
    settings: SettingsDep,
    body: Sent,
    response: Response,
    again: Again = None,
) -> Video:
    """Queue a video that is another one, made anew where a mask is white."""
    asked = fields_of(body.values, body.files, media=(VIDEO, MASK))
    mask = mask_of(body, store, settings)
    source = source_of(body, store, settings, service, owner_of(key))
    wanted = read_request(edit_of(source, mask, asked, settings), store, settings)
    return _submitted(wanted, service, store, key, again, response)


@router.post(
    "/videos/{video}/remix",
    operation_id="remix_video",
    summary="Make a video again after other words",
    responses=_MADE,
    openapi_extra=documents.REMIX,
)
def remix_video(
    key: Writer,
    service: Service,
    store: StoreDep,
    settings: SettingsDep,
    body: Sent,
    response: Response,
    video: VideoId,
    again: Again = None,
) -> Video:
    """Queue a video with the plan of another, its seed included, and a new prompt."""
    asked = fields_of(body.values, body.files)
    if not asked.get("prompt"):
        raise InvalidRequest([Problem("prompt", asked.get("prompt"), "the words of the remix")])
    job = find(video, service, owner_of(key))
    wanted = read_request(remix_of(finished_clip(job, store), asked), store, settings)
    return _submitted(wanted, service, store, key, again, response, remixed_from=job.id)


@router.get("/videos", operation_id="list_videos", summary="List videos")
def list_videos(
    key: Reader,
    store: StoreDep,
    after: Annotated[
        str | None,
        Query(pattern=r"^video_[0-9A-Za-z-]{1,64}$", description="`last_id` of the page before."),
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100, description="The most videos of a page.")] = 20,
    order: Annotated[Order, Query(description="desc: the newest first.")] = "desc",
) -> VideoList:
    """The videos that this key may see, finished or not."""
    last = None if after is None else job_id(after)
    found = store.jobs.list(
        limit=limit + 1,
        before=last if order == "desc" else None,
        after=last if order == "asc" else None,
        oldest_first=order == "asc",
        owner=owner_of(key),
    )
    videos = [video_of(job) for job in found[:limit]]
    return VideoList(
        data=videos,
        first_id=videos[0].id if videos else None,
        last_id=videos[-1].id if videos else None,
        has_more=len(found) > limit,
    )


@router.get(
    "/videos/{video}", operation_id="retrieve_video", summary="Look at a video", responses=_ONE
)
def retrieve_video(key: Reader, service: Service, response: Response, video: VideoId) -> Video:
    """A video and how far it is. One that failed is an answer like any other, with its `error`."""
    return _shown(find(video, service, owner_of(key)), response)


@router.delete(
    "/videos/{video}",
    operation_id="delete_video",
    summary="Delete a video",
    responses=problem_docs(404, 409, 502, 503, 507, openai=True),
)
def delete_video(key: Writer, service: Service, store: StoreDep, video: VideoId) -> VideoDeleted:
    """Delete a video and its content; one that is still made is cancelled.

    `deleted` is false where the render has not stopped yet, which it will: delete it again then.
    """
    job = find(video, service, owner_of(key))
    return VideoDeleted(id=video_id(job.id), deleted=remove(job, service, store))


@router.get(
    "/videos/{video}/content",
    operation_id="download_video_content",
    summary="Download a video",
    response_class=Response,
    responses={
        200: {
            "description": "The video, its picture or a sheet of its frames.",
            "content": {
                name: {"schema": {"type": "string", "format": "binary"}}
                for name in sorted(set(MEDIA_TYPES.values()))
            },
        },
        206: {"description": "The range that was asked for."},
        304: {"description": "It is what the client has."},
        **problem_docs(404, 409, 416, 502, 503, 504, 507, openai=True),
    },
)
def download_content(
    request: Request,
    key: Reader,
    service: Service,
    store: StoreDep,
    video: VideoId,
    variant: Annotated[Variant, Query(description="What of it.")] = "video",
) -> Response:
    """The content of a completed video, whole or a range of it."""
    job = find(video, service, owner_of(key))
    clip = finished_clip(job, store)
    if variant != "thumbnail":
        content = clip_content(store, clip)  # what is gone has no sheet of frames either
        if variant == "video":
            return send(request, content, name=f"{video}.{clip.format}")
        sheet = asset_content(store, service.spritesheet(clip), MEDIA_TYPES["jpg"])
        return send(request, sheet, name=f"{video}-frames.jpg")
    if clip.poster is None:
        raise NotFound("This video has no thumbnail.")
    picture = asset_content(store, clip.poster, MEDIA_TYPES["png"])
    return send(request, picture, name=f"{video}.png")


@router.get("/models", operation_id="list_openai_models", summary="List models")
def list_models(key: Reader, settings: SettingsDep) -> VideoModelList:
    """Every model that there is a card of. `/api/models` says which of them are ready."""
    return VideoModelList(data=[model_of(card) for card in Catalog.load(settings.models)])


@router.get(
    "/models/{model}",
    operation_id="retrieve_openai_model",
    summary="Look at a model",
    responses=_ONE,
)
def retrieve_model(key: Reader, settings: SettingsDep, model: ModelId) -> VideoModel:
    """One model by its id."""
    return model_of(Catalog.load(settings.models).get(model))


def _submitted(
    wanted: ClipRequest,
    service: Service,
    store: StoreDep,
    key: ApiKey | None,
    again: str | None,
    response: Response,
    *,
    remixed_from: str | None = None,
) -> Video:
    """The video of a job for this request. Raises KinoloomError."""
    try:
        job, _ = submit_once(
            wanted, service, store, key=key, again=again, remixed_from=remixed_from
        )
    except InvalidRequest as error:  # of the planner, in Kinoloom's words
        raise in_their_words(error) from error
    return _shown(job, response)


def _shown(job: JobRecord, response: Response) -> Video:
    response.headers[_POLL] = str(poll_after(job))
    return video_of(job)
