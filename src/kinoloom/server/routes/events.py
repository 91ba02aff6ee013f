"""How does a client hear of what happens to jobs?"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, FastAPI, Header, Query, WebSocket
from starlette.requests import Request
from starlette.responses import Response

from kinoloom.errors import NotAuthenticated
from kinoloom.server.auth import caller_of
from kinoloom.server.deps import Reader, check_scope, owner_of
from kinoloom.server.hub import Batch, Hub, HubClosed
from kinoloom.server.problems import problem_docs
from kinoloom.server.schemas import Answer
from kinoloom.server.sse import MEDIA_TYPE, EventStream
from kinoloom.server.websocket import JOB_ID, MAX_NUMBER, Conversation
from kinoloom.store.events import EventType

MAX_WAIT = 30


@asynccontextmanager
async def _until_the_end(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.hub.close()


router = APIRouter(tags=["events"], lifespan=_until_the_end)


class Event(Answer):
    """Something that happened to a job; `data` has the form of its `type`."""

    number: int
    job: str
    type: EventType
    at: datetime
    data: dict[str, Any]


class Events(Answer):
    """Events in order; ask again with `after` = `last`."""

    events: list[Event]
    last: int


_DESCRIPTION = f"""What happened to the jobs that this key may see, in order of the events' numbers.

- As JSON it answers with the events after the number `after`, or waits for the first one up to
  `wait` seconds.
- With `Accept: {MEDIA_TYPE}` it is a stream that goes on, and resumes after `Last-Event-ID`
  or `after`; without either it begins now.
- As a websocket, under the same address, it sends the same in batches.

Where many progress events wait for a stream, the newest of each job is sent; every other event
always is."""

_EXAMPLE = {
    "events": [
        {
            "number": 4711,
            "job": "019aa4a6-2f7c-7d3e-8a51-6c1f0e5b9d21",
            "type": "progress",
            "at": "2026-11-21T16:20:00.250000+00:00",
            "data": {"phase": "denoise", "step": 3, "steps": 16, "elapsed": 4.2, "eta": 17.1},
        }
    ],
    "last": 4711,
}


@router.get(
    "/api/events",
    operation_id="list_events",
    summary="Follow what happens",
    description=_DESCRIPTION,
    response_model=Events,
    responses={
        200: {
            "description": "The events, or a stream of them.",
            "content": {
                "application/json": {"example": _EXAMPLE},
                MEDIA_TYPE: {"schema": {"type": "string"}},
            },
        },
        **problem_docs(404),
    },
)
async def list_events(
    request: Request,
    key: Reader,
    job: Annotated[
        str | None, Query(pattern=JOB_ID, description="Only the events of this job.")
    ] = None,
    after: Annotated[
        int | None,
        Query(ge=0, le=MAX_NUMBER, description="Only events with a higher number than this."),
    ] = None,
    limit: Annotated[
        int, Query(ge=1, le=500, description="The most events of an answer; not of a stream.")
    ] = 100,
    wait: Annotated[
        float,
        Query(ge=0, le=MAX_WAIT, description="Seconds to wait for the first event; no stream's."),
    ] = 0,
    last_event_id: Annotated[
        int | None,
        Header(ge=0, le=MAX_NUMBER, description="Where a stream goes on; stronger than `after`."),
    ] = None,
) -> Response:
    """Answer once, or with a stream."""
    hub: Hub = request.app.state.hub
    owner = owner_of(key)
    try:
        if job is not None:
            await hub.call(lambda: request.app.state.service.get(job, owner=owner))
        if MEDIA_TYPE in request.headers.get("accept", ""):
            start = after if last_event_id is None else last_event_id
            return EventStream(hub, job=job, owner=owner, after=start)
        after = after or 0
        entries = await hub.read(after, job=job, owner=owner, limit=limit)
        if not entries and wait:
            await _something(hub, job, owner, after, wait)
            entries = await hub.read(after, job=job, owner=owner, limit=limit)
    except HubClosed:
        entries = []  # the server stops; the client asks the next one
    batch = Batch(entries, entries[-1].number if entries else after or 0)
    return Response(batch.as_json(), media_type="application/json")


async def _something(
    hub: Hub, job: str | None, owner: str | None, after: int, seconds: float
) -> None:
    """Wait until there is an event after that number, but not longer."""
    try:
        async with (
            asyncio.timeout(seconds),
            hub.listen("poll", job=job, owner=owner, after=after) as feed,
        ):
            await feed.next()
    except TimeoutError:
        pass


@router.websocket("/api/events")
async def hear_events(websocket: WebSocket) -> None:
    """The same as a websocket; `server.websocket` says what is said on it."""
    hub: Hub = websocket.app.state.hub
    key = caller_of(websocket.scope).key
    owner = owner_of(key)

    def look(job: str | None) -> None:
        check_scope(key, "read")
        if key is not None and not any(
            known.id == key.id and known.revoked_at is None
            for known in websocket.app.state.store.keys.list()
        ):
            raise NotAuthenticated("The API key is not valid any more.", cause="It was revoked.")
        if job is not None:
            websocket.app.state.service.get(job, owner=owner)

    async def check(job: str | None) -> None:
        await hub.call(lambda: look(job))

    conversation = Conversation(websocket, hub, owner=owner, check=check)
    await conversation.run(websocket.query_params)
