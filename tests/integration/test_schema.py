"""Does the server do what its OpenAPI document says, whatever is sent to it?"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import schemathesis
from schemathesis.config import SchemathesisConfig

from kinoloom.config import Settings
from kinoloom.jobs.service import JobService
from kinoloom.server.app import create_app
from kinoloom.store.store import Store
from serving import running


def _document() -> dict[str, Any]:
    """What `/api/openapi.json` answers; it is the same for every server."""
    with tempfile.TemporaryDirectory() as place:
        settings = Settings(home=Path(place))
        with Store.of(settings) as store:
            return create_app(settings, store, None).openapi()  # type: ignore[arg-type]


schema = schemathesis.openapi.from_dict(
    _document(),
    config=SchemathesisConfig.from_dict(
        {
            "seed": 1,
            "generation": {"max-examples": 10, "deterministic": True, "database": "none"},
        }
    ),
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    settings = Settings(home=tmp_path_factory.mktemp("described"), rate_limit=0)
    with Store.of(settings) as store:
        _, secret = store.keys.create("tests", frozenset({"admin"}), None)
        service = JobService(settings, store)
        try:
            app = create_app(settings, store, service, require_key=True)
            with running(app) as address:
                yield {"base_url": address, "headers": {"Authorization": f"Bearer {secret}"}}
        finally:
            service.close()


@schema.parametrize()
def test_every_answer_is_as_documented(case: schemathesis.Case, server: dict[str, Any]) -> None:
    if "wait" in case.query:
        case.query["wait"] = 0
    case.call_and_validate(**server)
