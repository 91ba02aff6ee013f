"""What can render here, and if something cannot, why?"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fastapi import APIRouter

from kinoloom import models
from kinoloom.backends.local import hardware
from kinoloom.config import Settings
from kinoloom.server.deps import Reader, SettingsDep
from kinoloom.server.schemas import Backend, Backends

router = APIRouter(prefix="/api/backends", tags=["backends"])

_SHOWN = 10  # reasons; a machine without any model has one for each of them


@router.get("", operation_id="list_backends", summary="List backends")
def list_backends(key: Reader, settings: SettingsDep) -> Backends:
    """Every backend, the models that it can run now, and what keeps it from running any."""
    rows, _ = models.list_models(settings)
    names = sorted({row["backend"] for row in rows})
    items = [
        _backend(name, [row for row in rows if row["backend"] == name], settings) for name in names
    ]
    return Backends(items=items)


def _backend(name: str, rows: Sequence[Mapping[str, Any]], settings: Settings) -> Backend:
    ready = [row["id"] for row in rows if row["ready"]]
    device = hardware.device_label(settings.device) if name == "local" else None
    memory = hardware.memory(device) if device is not None else None
    return Backend(
        name=name,
        ready=bool(ready),
        device=device,
        memory_free=None if memory is None else memory[0],
        memory_total=None if memory is None else memory[1],
        models=ready,
        reasons=[] if ready else _first(row["reasons"] for row in rows),
        hints=[] if ready else _first(row["hints"] for row in rows),
    )


def _first(lists: Iterable[Sequence[str]]) -> list[str]:
    """The different lines of several lists, as many as a person reads."""
    return list(dict.fromkeys(line for lines in lists for line in lines))[:_SHOWN]
