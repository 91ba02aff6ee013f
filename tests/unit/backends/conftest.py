from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kinoloom.backends.base import Inputs, Progress, Take, WhatFits
from kinoloom.backends.local.backend import LocalBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import Settings

MakeTake = Callable[..., Take]


@pytest.fixture
def make_take() -> MakeTake:
    """A take of the tiny model, with changes."""

    def make(**changes: object) -> Take:
        values: dict[str, object] = {
            "task": "t2v",
            "prompt": "a red ball rolling",
            "negative": "",
            "width": 64,
            "height": 64,
            "frames": 9,
            "fps": 12.0,
            "steps": 3,
            "guidance": 2.0,
            "seed": 7,
            "device": "cpu x1",
        }
        return Take(**(values | changes))  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def warm(tmp_path_factory: pytest.TempPathFactory) -> LocalBackend:
    """A backend that keeps its pipeline from test to test. Not to be changed."""
    return LocalBackend(Settings(home=tmp_path_factory.mktemp("home")))


@pytest.fixture
def new_backend(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., LocalBackend]:
    """A backend that knows nothing yet: no pipeline is loaded, no embeddings are cached."""

    def make(what_fits: WhatFits | None = None, **settings: object) -> LocalBackend:
        values = {"home": tmp_path_factory.mktemp("home")} | settings
        return LocalBackend(Settings(**values), what_fits=what_fits)  # type: ignore[arg-type]

    return make


@pytest.fixture
def own_copy(tiny_cards: Path, tmp_path: Path) -> Callable[[], ModelCard]:
    """A function that gives the card of the model in ``tmp_path/tiny``, a copy to be damaged."""
    for name in ("tiny.yaml", "tiny"):
        source, target = tiny_cards / name, tmp_path / name
        shutil.copytree(source, target) if source.is_dir() else shutil.copy(source, target)
    return lambda: Catalog.load(tmp_path).get("tiny")


@pytest.fixture
def silent() -> Callable[[Progress], None]:
    return lambda _: None


@pytest.fixture
def nothing() -> Inputs:
    return Inputs()


@pytest.fixture
def loaded() -> Callable[[LocalBackend], Any]:
    """A function that gives the pipeline that rendered last, with what was done to it."""

    def find(backend: LocalBackend) -> Any:
        assert backend._state is not None
        resident = backend._state._resident
        keys = [key for key in resident.held if not key.startswith("words ")]
        return resident._held[keys[-1]]

    return find
