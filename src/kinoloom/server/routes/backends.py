"""What can make clips, and if something cannot, why?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from kinoloom import readiness
from kinoloom.server.deps import Reader, SettingsDep
from kinoloom.server.schemas import Backend, Backends

router = APIRouter(prefix="/api/backends", tags=["backends"])


@router.get("", operation_id="list_backends", summary="List backends")
def list_backends(
    key: Reader,
    settings: SettingsDep,
    check: Annotated[
        bool, Query(description="Try each service's key with one call that costs nothing.")
    ] = False,
) -> Backends:
    """Every backend, the models that it can run now, and what keeps it from running any.

    It answers within seconds: a server that does not answer by then is not ready.
    """
    rows = readiness.list_backends(settings, verify=check)
    return Backends(items=[Backend.model_validate(row) for row in rows])
