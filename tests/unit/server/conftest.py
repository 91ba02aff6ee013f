from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import Request

from kinoloom.config import Settings
from kinoloom.server.app import create_app
from kinoloom.server.deps import Admin, Reader, Writer, owner_of
from kinoloom.store.store import Store


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    with Store.of(settings) as store:
        yield store


@pytest.fixture
def shell(settings: Settings, store: Store) -> Callable[..., FastAPI]:
    """A function (settings that differ..., require_key=) -> the server with routes of the tests.

    Those show the shell around them: who calls, with which scope, and what was sent.
    """

    def make(*, require_key: bool = False, **changes: Any) -> FastAPI:
        changed = settings.model_copy(update=changes)
        app = create_app(changed, store, None, require_key=require_key)  # type: ignore[arg-type]

        @app.get("/test/read")
        def read(key: Reader) -> dict[str, Any]:
            return {"key": key and key.name, "owner": owner_of(key)}

        @app.post("/test/write")
        def write(key: Writer, body: dict[str, Any]) -> dict[str, Any]:
            return body

        @app.get("/test/admin")
        def admin(key: Admin) -> dict[str, Any]:
            return {"owner": owner_of(key)}

        @app.post("/test/form")
        async def form(key: Writer, request: Request) -> dict[str, Any]:
            async with request.form() as fields:
                return {"names": list(fields)}

        return app

    return make
