"""What may a route ask for: the service, the store, the settings, and who is calling?

Who is calling was settled by `auth.Gate` before any of the body was read; here only the scope is
checked that a route needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, Security
from fastapi.openapi.models import HTTPBearer as BearerModel
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection

from kinoloom.config import Settings
from kinoloom.errors import Forbidden
from kinoloom.jobs.service import JobService
from kinoloom.server.auth import caller_of
from kinoloom.store.keys import ApiKey
from kinoloom.store.store import Store


class _BearerKey(SecurityBase):
    """The security scheme as the documentation names it; `auth.Gate` is what applies it."""

    def __init__(self) -> None:
        self.model = BearerModel(
            description="An API key, made with `kinoloom keys create`. A server that only this "
            "machine can reach needs none, unless it was started with `--require-key`. Browsers "
            "open a websocket with the subprotocols `kinoloom` and `kinoloom.key.KEY`."
        )
        self.scheme_name = "ApiKey"

    async def __call__(self, connection: HTTPConnection) -> ApiKey | None:
        """The key that the request came with; None on a server that needs none."""
        return caller_of(connection.scope).key


_bearer = _BearerKey()


def check_scope(key: ApiKey | None, scope: str) -> None:
    """Raises Forbidden unless the caller may do what needs that scope."""
    if key is not None and not {scope, "admin"} & key.scopes:
        raise Forbidden(
            "This key may not do that.",
            cause=f"It has the scope {', '.join(sorted(key.scopes))}; this needs {scope}.",
            hints=[f"Use a key with the scope {scope}: kinoloom keys create NAME --scope ..."],
        )


def _needs(scope: str) -> Callable[[Any], Any]:
    async def check(key: Annotated[ApiKey | None, Security(_bearer)]) -> ApiKey | None:
        check_scope(key, scope)
        return key

    return check


async def _service(connection: HTTPConnection) -> JobService:
    service: JobService = connection.app.state.service
    return service


async def _store(connection: HTTPConnection) -> Store:
    store: Store = connection.app.state.store
    return store


async def _settings(connection: HTTPConnection) -> Settings:
    settings: Settings = connection.app.state.settings
    return settings


Service = Annotated[JobService, Depends(_service)]
StoreDep = Annotated[Store, Depends(_store)]
SettingsDep = Annotated[Settings, Depends(_settings)]

Reader = Annotated[ApiKey | None, Security(_needs("read"))]
"""The calling key, which may read; None on a server that needs no key."""
Writer = Annotated[ApiKey | None, Security(_needs("write"))]
"""The calling key, which may make, change and delete."""
Admin = Annotated[ApiKey | None, Security(_needs("admin"))]
"""The calling key, which may see and do everything."""


def owner_of(key: ApiKey | None) -> str | None:
    """Whose jobs and clips this caller may see: its own by the id of its key, or None for all.

    Keys with the scope admin, and everyone on a server that needs no key, see all.
    """
    return None if key is None or "admin" in key.scopes else key.id
