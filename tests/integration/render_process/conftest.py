from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from children import Start
from kinoloom.config import Settings
from kinoloom.jobs.render_process import RenderProcess


@pytest.fixture
def settings(tmp_path: Path, tiny_cards: Path) -> Settings:
    return Settings(home=tmp_path / "home", models=tiny_cards, default_model="tiny", device="cpu")


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """A function that starts a light process, or with `light=False` one that renders."""
    started: list[RenderProcess] = []

    def starting(*, light: bool = True, silence: float = 60.0, **changes: Any) -> RenderProcess:
        process = RenderProcess(
            settings.model_copy(update=changes), light=light, threads=1, silence=silence
        )
        started.append(process)
        return process

    yield starting
    for process in started:
        process.close()


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    Image.new("RGB", (64, 48), (200, 30, 30)).save(file)
    return file
