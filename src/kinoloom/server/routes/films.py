"""How are films made, followed, changed shot by shot, and watched?"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import unquote

from fastapi import APIRouter, Body, Depends, Query
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kinoloom.errors import InvalidRequest, NotFound, Problem
from kinoloom.film.plan import FilmPlan
from kinoloom.jobs.film_names import board_of
from kinoloom.jobs.film_service import FilmService
from kinoloom.jobs.naming import slug
from kinoloom.planner.inputs import file_digest
from kinoloom.request_checks import MAX_CANDIDATES, MAX_PROMPT, MAX_SEED
from kinoloom.server.clip_request import MAX_ADDRESS
from kinoloom.server.deps import Reader, Service, SettingsDep, StoreDep, Writer, owner_of
from kinoloom.server.files import MEDIA_TYPES, asset_content, clip_content, send
from kinoloom.server.film_document import STORYBOARD_BODY
from kinoloom.server.film_request import Board
from kinoloom.server.film_schemas import Chosen, Film, FilmProgress, Shot, Shots, Take, Takes
from kinoloom.server.problems import problem_docs
from kinoloom.server.routes.clips import sends
from kinoloom.server.routes.parameters import Cursor, FilmId, Limit, ShotId
from kinoloom.server.schemas import Job, Page, without_places
from kinoloom.store.films import FilmRecord

router = APIRouter(prefix="/api/films", tags=["films"])
plan_router = APIRouter(prefix="/api/plan/film", tags=["films"])

_ONE = problem_docs(404)
_CHANGED = problem_docs(404, 409, 415)
_PLANNED = problem_docs(404, 409, 415, 502, 503, 504, 507)
_SHEET = "film-sheet"


async def _films(service: Service, store: StoreDep, settings: SettingsDep) -> FilmService:
    return FilmService(settings, store, service)


Films = Annotated[FilmService, Depends(_films)]


class RenderRequest(BaseModel):
    """What there is to say about rendering a film."""

    model_config = ConfigDict(extra="forbid", strict=True)

    unknown_price: bool = Field(
        default=False, description="The explicit yes to models whose price is not known."
    )
    webhook: str | None = Field(
        default=None,
        max_length=MAX_ADDRESS,
        pattern=r"^https?://[!-~]+$",
        description="An address that is told when the job has ended.",
    )


class RetakeRequest(BaseModel):
    """How the new takes of a shot differ from those that there are."""

    model_config = ConfigDict(extra="forbid", strict=True)

    seed: int | None = Field(
        default=None, ge=0, le=MAX_SEED, description="Of the first take; null: another one."
    )
    prompt: str | None = Field(
        default=None, min_length=1, max_length=MAX_PROMPT, description="Other words for the shot."
    )
    candidates: int = Field(default=1, ge=1, le=MAX_CANDIDATES, description="How many takes.")


class Choice(BaseModel):
    """Which take is to be in the film."""

    model_config = ConfigDict(extra="forbid", strict=True)

    take: int = Field(ge=1, le=1_000_000, description="Its number.")


@router.post(
    "",
    operation_id="create_film",
    summary="Begin a film",
    status_code=201,
    response_model=Film,
    responses={
        201: {
            "headers": {
                "Location": {
                    "description": "Where the film is.",
                    "schema": {"type": "string", "format": "uri-reference"},
                }
            }
        },
        **problem_docs(409, 415, 507),
    },
    openapi_extra=STORYBOARD_BODY,
)
def create_film(key: Writer, films: Films, board: Board) -> JSONResponse:
    """Keep a storyboard; nothing is rendered before `POST /api/films/ID/render`.

    A storyboard with mistakes is answered with every one of them. Its pictures and sounds are
    uploaded before, and named `{"asset": "sha256:..."}`.
    """
    film = Film.of(films.create(board, owner=None if key is None else key.id))
    return JSONResponse(film.model_dump(mode="json"), 201, {"Location": film.links.self})


@router.get("", operation_id="list_films", summary="List films")
def list_films(key: Reader, films: Films, limit: Limit = 50, cursor: Cursor = None) -> Page[Film]:
    """The films that this key may see, the newest first."""
    found = films.list(limit=limit + 1, before=cursor, owner=owner_of(key))
    more = found[limit - 1].id if len(found) > limit else None
    return Page(items=[Film.of(record) for record in found[:limit]], next=more)


@plan_router.post(
    "",
    operation_id="plan_film",
    summary="Analyse a storyboard without making anything",
    response_model=FilmPlan,
    responses=_PLANNED,
    openapi_extra=STORYBOARD_BODY,
)
def plan_film(key: Reader, films: Films, board: Board) -> JSONResponse:
    """What each shot would take and cost, and all of them together; nothing is kept or spent."""
    return _planned(films.plan(board))


@router.get("/{film}", operation_id="get_film", summary="Look at a film", responses=_ONE)
def get_film(key: Reader, films: Films, film_id: FilmId) -> FilmProgress:
    """One film: its storyboard, how far each shot is, what is done now, and the money spent."""
    return FilmProgress.of_status(films.status(film_id, owner=owner_of(key)))


@router.put(
    "/{film}",
    operation_id="update_film",
    summary="Change the storyboard",
    response_model=Film,
    responses=_CHANGED,
    openapi_extra=STORYBOARD_BODY,
)
def update_film(key: Writer, films: Films, film_id: FilmId, board: Board) -> Film:
    """Give a film another storyboard; shots that stay the same are not rendered again."""
    return Film.of(films.update(film_id, board, owner=owner_of(key)))


@router.delete(
    "/{film}",
    operation_id="delete_film",
    summary="Delete a film",
    status_code=204,
    responses=problem_docs(404, 409),
)
def delete_film(key: Writer, films: Films, film_id: FilmId) -> Response:
    """Forget a film and its takes; their clips stay, and are deleted like any others."""
    films.delete(film_id, owner=owner_of(key))
    return Response(status_code=204)


@router.post(
    "/{film}/plan",
    operation_id="plan_kept_film",
    summary="Analyse a film without rendering",
    response_model=FilmPlan,
    responses=problem_docs(404, 409, 502, 503, 504, 507),
)
def plan_kept_film(key: Reader, films: Films, film_id: FilmId) -> JSONResponse:
    """What rendering what is missing would take and cost, shot by shot; nothing is spent."""
    record = films.get(film_id, owner=owner_of(key))
    return _planned(films.plan(board_of(record), film_id=record.id))


@router.post(
    "/{film}/render",
    operation_id="render_film",
    summary="Render what is missing",
    status_code=202,
    response_model=Job,
    responses=problem_docs(402, 404, 409, 502, 503, 504, 507),
)
def render_film(
    key: Writer,
    films: Films,
    settings: SettingsDep,
    film_id: FilmId,
    body: Annotated[RenderRequest | None, Body()] = None,
) -> JSONResponse:
    """Queue a job that makes what is missing of a film and joins it, and answer with the job.

    While such a job is not finished it is the answer again. The job's events tell how the film
    goes on.
    """
    asked = body or RenderRequest()
    if asked.webhook is not None and settings.webhook_secret is None:
        allowed = "an address only where the settings have a webhook_secret to sign with"
        raise InvalidRequest([Problem("webhook", "***", allowed)])
    films.get(film_id, owner=owner_of(key))
    job = films.render(film_id, owner=key, webhook=asked.webhook, unknown_price=asked.unknown_price)
    shown = Job.of(job)
    return JSONResponse(shown.model_dump(mode="json"), 202, {"Location": shown.links.self})


@router.get("/{film}/shots", operation_id="list_shots", summary="Look at the shots", responses=_ONE)
def list_shots(key: Reader, films: Films, film_id: FilmId) -> Shots:
    """Every shot with its state, takes, jobs and clips."""
    status = films.status(film_id, owner=owner_of(key))
    return Shots(items=[Shot.of(shot) for shot in status.shots])


@router.post(
    "/{film}/shots/{shot}/takes",
    operation_id="retake_shot",
    summary="Ask for new takes of a shot",
    status_code=201,
    responses=problem_docs(404, 409),
)
def retake_shot(
    key: Writer,
    films: Films,
    film_id: FilmId,
    shot_id: ShotId,
    body: Annotated[RetakeRequest | None, Body()] = None,
) -> Takes:
    """Add takes to a shot, of which the first is chosen; the next render makes them.

    The takes that there are stay, and so do the other shots; in the mode chaining those after it
    are made again, since they go on from its last frame.
    """
    asked = body or RetakeRequest()
    takes = films.retake(
        film_id,
        shot_id,
        seed=asked.seed,
        prompt=asked.prompt,
        candidates=asked.candidates,
        owner=owner_of(key),
    )
    return Takes(items=[Take.of(take) for take in takes])


@router.put(
    "/{film}/shots/{shot}/chosen",
    operation_id="choose_take",
    summary="Choose the take that is in the film",
    responses=_ONE,
)
def choose_take(
    key: Writer, films: Films, film_id: FilmId, shot_id: ShotId, body: Choice
) -> Chosen:
    """Put another take of a shot into the film; the next render joins it without making it."""
    take, next_ = films.choose(film_id, shot_id, body.take, owner=owner_of(key))
    return Chosen(take=Take.of(take), next=next_)


_FILE: dict[str, Any] = {
    "operation_id": "get_film_file",
    "summary": "Watch or download a film",
    "response_class": Response,
    "responses": sends(MEDIA_TYPES["mp4"], part=True),
}


@router.get("/{film}/file", **_FILE)
@router.head("/{film}/file", **_FILE | {"operation_id": "head_film_file"})
def get_film_file(
    key: Reader,
    films: Films,
    store: StoreDep,
    request: Request,
    film_id: FilmId,
    download: Annotated[
        bool, Query(description="Whether a browser is to save it rather than to show it.")
    ] = False,
) -> Response:
    """The newest film, whole or the one range of bytes that is asked for."""
    record = films.get(film_id, owner=owner_of(key))
    clip = None if record.clip_id is None else store.clips.get(record.clip_id)
    if clip is None:
        raise _not_rendered(record)
    content = clip_content(store, clip)
    return send(request, content, name=_file_name(record, clip.format), attachment=download)


@router.get(
    "/{film}/sheet",
    operation_id="get_film_sheet",
    summary="See all shots in one picture",
    response_class=Response,
    responses=sends(MEDIA_TYPES["png"]) | problem_docs(409, 503, 504, 507),
)
def get_film_sheet(
    key: Reader, films: Films, store: StoreDep, request: Request, film_id: FilmId
) -> Response:
    """A contact sheet, a row of frames for each shot; made when it is asked for first."""
    record = films.get(film_id, owner=owner_of(key))
    if record.clip_id is None or store.clips.get(record.clip_id) is None:
        raise _not_rendered(record)
    digest = store.clips.derived(record.clip_id, _SHEET)
    if digest is None:
        with tempfile.TemporaryDirectory(prefix="kinoloom-") as folder:
            made = films.export(record.id, Path(folder) / "sheet.png", "sheet")
            digest = store.assets.put_file(made, _SHEET).digest
        store.clips.keep_derived(record.clip_id, _SHEET, digest)
    content = asset_content(store, digest, MEDIA_TYPES["png"])
    return send(request, content, name=_file_name(record, "png"))


@router.get(
    "/{film}/timeline",
    operation_id="get_film_timeline",
    summary="Go on in an editor",
    responses=problem_docs(404, 409, 503, 504, 507),
)
def get_film_timeline(
    key: Reader, films: Films, store: StoreDep, film_id: FilmId
) -> dict[str, Any]:
    """The film as OpenTimelineIO: its shots with their transitions, sounds and chapters.

    Media are named by their address on this server; `kinoloom film export` names files.
    """
    record = films.get(film_id, owner=owner_of(key))
    clip = None if record.clip_id is None else store.clips.get(record.clip_id)
    if clip is None:
        raise _not_rendered(record)
    parts = (store.clips.get(piece["clip"]) for piece in clip.plan["cut"]["pieces"])
    clips = {part.asset: part.id for part in parts if part is not None}
    with tempfile.TemporaryDirectory(prefix="kinoloom-") as folder:
        made = films.export(record.id, Path(folder) / "film.otio", "otio")
        timeline = _addressed(json.loads(made.read_text(encoding="utf-8")), Path(folder), clips)
    return without_places(timeline)


def _addressed(value: Any, folder: Path, clips: Mapping[str | None, str]) -> Any:
    """A timeline's JSON in which each medium has the address of its clip, or a bare name.

    Media are files that the timeline names relative to its `folder`; `clips` are ids by content.
    """
    if isinstance(value, list):
        return [_addressed(item, folder, clips) for item in value]
    if not isinstance(value, dict):
        return value
    shown = {key: _addressed(item, folder, clips) for key, item in value.items()}
    if "target_url" in shown:
        file = folder / unquote(str(shown["target_url"]))
        clip = clips.get(file_digest(file)) if file.is_file() else None
        shown["target_url"] = file.name if clip is None else f"/api/clips/{clip}/file"
    return shown


def _planned(plan: FilmPlan) -> JSONResponse:
    return JSONResponse(without_places(plan.model_dump(mode="json")))


def _not_rendered(record: FilmRecord) -> NotFound:
    return NotFound(
        f"The film {record.id} has no file yet.",
        cause="It was not rendered, or its file was deleted.",
        hints=[f"POST /api/films/{record.id}/render makes it."],
    )


def _file_name(record: FilmRecord, suffix: str) -> str:
    """What a download is called: plain letters, whatever the title has."""
    return f"{slug(record.title) or 'film'}.{suffix}"
