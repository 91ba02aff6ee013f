"""Does this server live, and can it do its work?"""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from importlib import metadata

from fastapi import APIRouter
from starlette.responses import JSONResponse

from kinoloom.config import Settings
from kinoloom.errors import KinoloomError
from kinoloom.jobs.dead import live_workers
from kinoloom.server.deps import SettingsDep, StoreDep
from kinoloom.server.schemas import Health, Readiness, ReadyCheck
from kinoloom.store.store import Store

router = APIRouter(tags=["health"])


@router.get("/health", operation_id="get_health", summary="Is the process alive?")
async def get_health() -> Health:
    """Answers as long as the process does; nothing else is looked at."""
    return Health(status="ok", version=metadata.version("kinoloom"))


@router.get(
    "/ready",
    operation_id="get_ready",
    summary="Will a job that is submitted now run?",
    response_model=Readiness,
    responses={503: {"model": Readiness, "description": "Not all is well; `checks` say what."}},
)
def get_ready(store: StoreDep, settings: SettingsDep) -> JSONResponse:
    """Whether the database answers, files can be kept, and a worker lives."""
    checks = [
        _check("database", lambda: _database(store)),
        _check("assets", lambda: _assets(store)),
        _check("worker", lambda: _worker(store, settings)),
    ]
    answer = Readiness(ready=all(check.ok for check in checks), checks=checks)
    return JSONResponse(answer.model_dump(), 200 if answer.ready else 503)


def _check(name: str, look: Callable[[], tuple[bool, str]]) -> ReadyCheck:
    try:
        ok, detail = look()
    except KinoloomError as error:
        ok, detail = False, f"{error.kind}: {error.message}"
    return ReadyCheck(name=name, ok=ok, detail=detail)


def _database(store: Store) -> tuple[bool, str]:
    store.events.last_number()
    return True, "it answers"


def _assets(store: Store) -> tuple[bool, str]:
    """Keeps a few bytes and lets go of them: a full or lost disk shows itself only so."""
    mark = f"kinoloom ready {socket.gethostname()} {os.getpid()}"
    store.assets.discard(store.assets.put_bytes(mark.encode(), "probe").digest)
    return True, "files can be kept"


def _worker(store: Store, settings: Settings) -> tuple[bool, str]:
    live = [worker for worker in live_workers(store, settings) if worker.queues]
    if not live:
        return False, "no worker lives; `kinoloom worker` starts one"
    queues = sorted({queue.name for worker in live for queue in worker.queues})
    return True, f"{len(live)} live, for the queues {', '.join(queues)}"
