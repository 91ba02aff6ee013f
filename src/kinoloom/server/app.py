"""What is the server made of?"""

from __future__ import annotations

import re
from importlib.metadata import version
from itertools import chain
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from kinoloom.config import Settings
from kinoloom.errors import KinoloomError
from kinoloom.jobs.service import JobService
from kinoloom.server.auth import Gate
from kinoloom.server.headers import SafeAnswers
from kinoloom.server.hub import Hub
from kinoloom.server.limits import BodyLimit, RateLimit
from kinoloom.server.metrics import Measured, Metrics
from kinoloom.server.problems import (
    ALWAYS,
    SCHEMAS,
    HttpFailure,
    error_response,
    invalid_request,
    problem_docs,
)
from kinoloom.server.routes import (
    assets,
    backends,
    clips,
    costs,
    events,
    films,
    health,
    hooks,
    jobs,
    metrics,
    models,
    openai_videos,
    plan,
    queues,
    statistics,
)
from kinoloom.store.store import Store

_ROUTERS = (
    plan.router,
    clips.router,
    films.router,
    films.plan_router,
    assets.router,
    jobs.router,
    models.router,
    backends.router,
    queues.router,
    statistics.router,
    costs.router,
    events.router,
    health.router,
    metrics.router,
    hooks.router,
)

_DESCRIPTION = """Makes video from a prompt or a picture, on whatever can.

A clip is made by a job: `POST /api/clips` plans it, puts it into a queue and answers at once;
`/api/events` tells how it goes on, and what is finished is a clip. A film is a storyboard under
`/api/films`, whose shots are clips. The routes under `/v1` speak the shape of OpenAI's videos API
over the same jobs.

Errors are problem documents (RFC 9457) with a `kind` that programs may match on, a `cause`, and
`hints` that say what to do next; under `/v1` they have OpenAI's shape. Lists are pages: give `next`
as `cursor` to go on. A server that only its own machine reaches needs no key; any other takes
`Authorization: Bearer kl_...`."""

_TAGS = [
    {"name": "clips", "description": "Plan clips, make them, and get what was made."},
    {"name": "films", "description": "Storyboards of any length, made shot by shot."},
    {"name": "jobs", "description": "How far is what was asked for? Stop it, hold it, try again."},
    {"name": "events", "description": "What happens, as it happens."},
    {"name": "models", "description": "What can generate, and what it needs."},
    {"name": "backends", "description": "What runs the models."},
    {"name": "queues", "description": "What waits for whom."},
    {"name": "statistics", "description": "What was made, how fast, and at what cost."},
    {"name": "health", "description": "For supervisors and monitoring."},
    {"name": "OpenAI", "description": "The shape of OpenAI's videos API."},
]


def create_app(
    settings: Settings, store: Store, service: JobService, *, require_key: bool = False
) -> FastAPI:
    """The server as an ASGI application, documented at ``/api/openapi.json``.

    Without `require_key` it needs no API key, and answers only to requests from this machine; see
    `auth.Gate`. Whoever gives the store and the service closes them.
    """
    app = FastAPI(
        title="Kinoloom",
        description=_DESCRIPTION,
        version=version("kinoloom"),
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        openapi_tags=_TAGS,
        openapi_url="/api/openapi.json",
        docs_url=None,
        redoc_url=None,
    )
    app.state.settings = settings
    app.state.store = store
    app.state.service = service
    app.state.hub = Hub(store)
    app.state.metrics = Metrics(store, app.state.hub)
    for router in _ROUTERS:
        app.include_router(router, responses=problem_docs(*ALWAYS))
    app.include_router(openai_videos.router, responses=problem_docs(*ALWAYS, openai=True))
    app.add_exception_handler(KinoloomError, _known)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    _document(app)

    # The last one that is added sees a request first.
    app.add_middleware(
        Gate,
        store=store,
        rate=RateLimit(settings.rate_limit),
        require_key=require_key,
        origins=settings.cors_origins,
    )
    app.add_middleware(BodyLimit, max_upload=settings.max_upload)
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "DELETE"],
            allow_headers=["Authorization", "Idempotency-Key", "Last-Event-ID", "Range"],
            expose_headers=[
                *("Content-Range", "ETag", "Idempotent-Replay", "Location", "Retry-After")
            ],
        )
    app.add_middleware(SafeAnswers)
    app.add_middleware(Measured, metrics=app.state.metrics)
    return app


async def _known(request: Request, error: Exception) -> Response:
    assert isinstance(error, KinoloomError)
    return error_response(error, request.url.path)


async def _http(request: Request, error: Exception) -> Response:
    """What the framework refuses; a known error that it wrapped while reading the body counts."""
    assert isinstance(error, HTTPException)
    if isinstance(error.__cause__, KinoloomError):
        return error_response(error.__cause__, request.url.path)
    headers = dict(error.headers or {})
    if error.status_code == 405 and (methods := _methods(request)):
        headers["Allow"] = ", ".join(methods)
    return error_response(
        HttpFailure(error.status_code, str(error.detail)),
        request.url.path,
        status=error.status_code,
        headers=headers,
    )


def _methods(request: Request) -> list[str]:
    """What the path takes: the framework names only the methods of the first of its routes."""
    found: set[str] = set()
    for path, methods in request.app.openapi()["paths"].items():
        literal = re.split(r"\{\w+\}", path)
        if re.fullmatch("[^/]+".join(map(re.escape, literal)), request.url.path):
            found |= {method.upper() for method in methods}
    return sorted(found)


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return error_response(invalid_request(error.errors()), request.url.path)


def _document(app: FastAPI) -> None:
    """Put the shapes of errors into the OpenAPI document, and say null only where JSON can."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = generated()
        for operation in chain.from_iterable(map(dict.values, document["paths"].values())):
            for parameter in operation.get("parameters", ()):
                _without_null(parameter["schema"])
        schemas = document.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(SCHEMAS)
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return document

    app.openapi = openapi  # type: ignore[method-assign]


def _without_null(schema: dict[str, Any]) -> None:
    """A parameter is left out or has a value: its default None is no value that it can have."""
    ways = [way for way in schema.get("anyOf", ()) if way != {"type": "null"}]
    if len(ways) == 1:
        del schema["anyOf"]
        schema.update(ways[0])
