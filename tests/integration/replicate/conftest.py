from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fakes.replicate import FakeReplicate
from integration.replicate.asking import settings_of
from kinoloom.backends.replicate.backend import ReplicateBackend


@pytest.fixture
def fake() -> Iterator[FakeReplicate]:
    with FakeReplicate() as fake:
        yield fake


@pytest.fixture
def pauses() -> list[float]:
    return []


@pytest.fixture
def backend(fake: FakeReplicate, tmp_path: Path, pauses: list[float]) -> ReplicateBackend:
    return ReplicateBackend(settings_of(fake, tmp_path), sleep=pauses.append)
