from __future__ import annotations

from pathlib import Path

import pytest

from kinoloom.config import load_settings
from kinoloom.store.held import held_store
from kinoloom.store.store import Store
from unit.cli_film.storyteller import STORY, place


@pytest.fixture
def studio(tmp_path: Path, tiny_cards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place(tmp_path, tiny_cards, monkeypatch)
    return tmp_path


@pytest.fixture
def story(studio: Path) -> Path:
    file = studio / "film.yaml"
    file.write_text(STORY)
    return file


@pytest.fixture
def store(studio: Path) -> Store:
    return held_store(load_settings())
