from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings
from kinoloom.planner import resolve
from kinoloom.planner.plan import Plan
from kinoloom.planner.resolve import Machine
from kinoloom.request import VideoRequest
from kinoloom.store.store import Store


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "home") as opened:
        yield opened


@pytest.fixture
def make_plan(tiny_cards: Path, tmp_path: Path) -> Callable[..., Plan]:
    """A plan for the tiny model from the fields of a request."""
    catalog = Catalog.load(tiny_cards)

    def make(measurements: object = None, **values: object) -> Plan:
        request = VideoRequest.checked(**({"prompt": "a red ball rolling", "seed": 7} | values))
        return resolve.plan(
            request,
            catalog=catalog,
            settings=Settings(home=tmp_path / "home", default_model="tiny"),
            machine=Machine("cpu x1"),
            measurements=measurements,  # type: ignore[arg-type]
        )

    return make
