from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from event_server import Served, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "home") as served:
        yield served


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Served]:
    """A server that wants a key."""
    with serving(tmp_path / "home", require_key=True) as served:
        yield served
