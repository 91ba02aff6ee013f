"""How are clips asked for, found, watched and deleted?"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Header, Query
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kinoloom.errors import Forbidden, NotFound
from kinoloom.jobs.naming import slug
from kinoloom.request import Format, Task
from kinoloom.server.bodies import Fields
from kinoloom.server.clip_document import CLIP_BODY
from kinoloom.server.clip_removal import remove_clip
from kinoloom.server.clip_request import read_clip_request
from kinoloom.server.deps import Reader, Service, SettingsDep, StoreDep, Writer, owner_of
from kinoloom.server.files import MEDIA_TYPES, asset_content, clip_content, send
from kinoloom.server.problems import problem_docs
from kinoloom.server.routes.parameters import ByBackend, ByModel, ClipId, Cursor, Limit, Search
from kinoloom.server.schemas import Clip, Job, Page, without_places
from kinoloom.server.submission import submit_once
from kinoloom.store.clips import ClipRecord
from kinoloom.store.store import Store

router = APIRouter(prefix="/api/clips", tags=["clips"])

_ONE = problem_docs(404)


def sends(*types: str, part: bool = False) -> dict[int | str, dict[str, Any]]:
    """The `responses=` of a route that sends a file of one of these media types."""
    content = {name: {"schema": {"type": "string", "format": "binary"}} for name in types}
    tag = {"description": "Changes when the file does.", "schema": {"type": "string"}}
    found: dict[int | str, dict[str, Any]] = {
        200: {"description": "The whole file.", "content": content, "headers": {"ETag": tag}},
        304: {"description": "It is still the file that `If-None-Match` names."},
    }
    if part:
        found[206] = {
            "description": "The bytes that `Range` asks for.",
            "content": content,
            "headers": {"Content-Range": {"schema": {"type": "string"}}, "ETag": tag},
        }
        found |= problem_docs(409, 416)
    return found | problem_docs(404)


@router.post(
    "",
    operation_id="create_clip",
    summary="Make a clip",
    status_code=202,
    response_model=Job,
    responses={
        200: {"model": Job, "description": "The job that this idempotency key has made before."},
        202: {
            "headers": {
                "Location": {
                    "description": "Where the job is.",
                    "schema": {"type": "string", "format": "uri-reference"},
                }
            }
        },
        **problem_docs(402, 404, 409, 415, 502, 503, 504, 507),
    },
    openapi_extra=CLIP_BODY,
)
def create_clip(
    key: Writer,
    service: Service,
    store: StoreDep,
    settings: SettingsDep,
    fields: Fields,
    idempotency_key: Annotated[
        str | None,
        Header(
            pattern=r"^[\x21-\x7e]{1,255}$",
            description="A word of your own for this request: sent again with the same body it "
            "gives the same job, with another body 409.",
            examples=["b4d2c0de-0f4e-4d0e-9d3b-6f0a2a7c9a11"],
        ),
    ] = None,
) -> JSONResponse:
    """Queue a job that makes a clip, and answer at once with the job.

    The body is JSON, or a form whose files are `image`, `last_image`, `video`, `mask`, `references`
    (several) and `keyframes[FRAME]`, beside either one part `request` with all else as JSON or a
    part for each field. A request with mistakes is answered with every one of them.
    """
    asked = read_clip_request(fields, store, settings)
    record, new = submit_once(asked, service, store, key=key, again=idempotency_key)
    return _created(Job.of(record), again=not new)


def _created(job: Job, *, again: bool = False) -> JSONResponse:
    headers = {"Location": job.links.self}
    if again:
        headers["Idempotent-Replay"] = "true"
    return JSONResponse(job.model_dump(mode="json"), 200 if again else 202, headers)


@router.get("", operation_id="list_clips", summary="List clips")
def list_clips(
    key: Reader,
    store: StoreDep,
    limit: Limit = 50,
    cursor: Cursor = None,
    search: Search = "",
    model: ByModel = None,
    backend: ByBackend = None,
    task: Annotated[Task | None, Query(description="Only of this task.")] = None,
    format: Annotated[Format | None, Query(description="Only in this format.")] = None,  # noqa: A002
) -> Page[Clip]:
    """The finished clips that this key may see, the newest first."""
    found = store.clips.list(
        limit + 1,
        cursor,
        search,
        model=model,
        backend=backend,
        task=task,
        format=format,
        owner=owner_of(key),
    )
    more = found[limit - 1].id if len(found) > limit else None
    return Page(items=[_shown(record) for record in found[:limit]], next=more)


@router.get("/{clip}", operation_id="get_clip", summary="Look at a clip", responses=_ONE)
def get_clip(key: Reader, store: StoreDep, clip_id: ClipId) -> Clip:
    """One clip: what it shows, how it was made, how good it is, and where its files are."""
    return _shown(_clip(store, clip_id, owner_of(key)))


@router.delete(
    "/{clip}",
    operation_id="delete_clip",
    summary="Delete a clip",
    status_code=204,
    responses=problem_docs(404, 409),
)
def delete_clip(key: Writer, store: StoreDep, clip_id: ClipId) -> Response:
    """Forget a clip, and delete those of its files that nothing else needs.

    A file that a command wrote to a folder of its user stays there.
    """
    record, owner = _clip(store, clip_id, owner_of(key)), owner_of(key)
    if owner is not None and record.owner != owner:
        raise Forbidden(
            f"The clip {clip_id} was made for somebody else, and is not yours to delete.",
            cause="Your job asked for the very same clip, so it was not made twice.",
        )
    if not remove_clip(record, store):
        raise _no_clip(clip_id)
    return Response(status_code=204)


_VIDEO = tuple(MEDIA_TYPES[name] for name in ("mp4", "webm", "gif"))
_FILE: dict[str, Any] = {
    "operation_id": "get_clip_file",
    "summary": "Watch or download a clip",
    "response_class": Response,
    "responses": sends(*_VIDEO, part=True),
}


@router.get("/{clip}/file", **_FILE)
@router.head("/{clip}/file", **_FILE | {"operation_id": "head_clip_file"})
def get_clip_file(
    key: Reader,
    store: StoreDep,
    request: Request,
    clip_id: ClipId,
    download: Annotated[
        bool, Query(description="Whether a browser is to save it rather than to show it.")
    ] = False,
) -> Response:
    """The video, whole or the one range of bytes that is asked for."""
    record = _clip(store, clip_id, owner_of(key))
    content = clip_content(store, record)
    return send(request, content, name=_file_name(record), attachment=download)


@router.get(
    "/{clip}/thumbnail",
    operation_id="get_clip_thumbnail",
    summary="See a picture of a clip",
    response_class=Response,
    responses=sends(MEDIA_TYPES["png"]),
)
def get_clip_thumbnail(key: Reader, store: StoreDep, request: Request, clip_id: ClipId) -> Response:
    """One picture of the clip."""
    record = _clip(store, clip_id, owner_of(key))
    if record.poster is None:
        raise NotFound(f"The clip {clip_id} has no picture.", cause="None was kept with it.")
    content = asset_content(store, record.poster, MEDIA_TYPES["png"])
    return send(request, content, name=_file_name(record, "png"))


@router.get(
    "/{clip}/preview",
    operation_id="get_clip_preview",
    summary="See a clip as a small moving picture",
    response_class=Response,
    responses=sends(MEDIA_TYPES["gif"]) | problem_docs(409, 503, 504, 507),
)
def get_clip_preview(
    key: Reader, service: Service, store: StoreDep, request: Request, clip_id: ClipId
) -> Response:
    """A small GIF of the clip; made when it is asked for first, then kept."""
    record = _clip(store, clip_id, owner_of(key))
    clip_content(store, record)  # what is gone has no preview either
    content = asset_content(store, service.preview_gif(record), MEDIA_TYPES["gif"])
    return send(request, content, name=_file_name(record, "gif"))


@router.get(
    "/{clip}/record",
    operation_id="get_clip_record",
    summary="See everything that is known of a clip",
    responses=_ONE,
)
def get_clip_record(key: Reader, store: StoreDep, clip_id: ClipId) -> dict[str, Any]:
    """The whole record: request, plan, seconds by phase, scores, versions, inputs and takes."""
    return without_places(_clip(store, clip_id, owner_of(key)).as_dict())


def _clip(store: Store, clip_id: str, owner: str | None) -> ClipRecord:
    """The clip of that id, if the owner that is named may see it: its own, or one that a job of
    its own was given since it was there already. Raises NotFound."""
    record = store.clips.get(clip_id)
    if record is None:
        raise _no_clip(clip_id)
    mine = owner is None or record.owner == owner
    if not mine and not store.jobs.with_clip(clip_id, owner=owner):
        raise _no_clip(clip_id)
    return record


def _no_clip(clip_id: str) -> NotFound:
    hint = "GET /api/clips shows the clips there are."
    return NotFound(f"There is no clip {clip_id!r}.", hints=[hint])


def _shown(record: ClipRecord) -> Clip:
    return Clip.of(record, _file_name(record))


def _file_name(record: ClipRecord, suffix: str | None = None) -> str:
    """What a download is called: plain letters, whatever the prompt has."""
    return f"{slug(record.prompt) or record.task}-{record.seed}.{suffix or record.format}"
