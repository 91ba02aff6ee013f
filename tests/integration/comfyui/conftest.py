from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fakes.comfyui import FakeComfyUI
from kinoloom.backends.comfyui.backend import ComfyUIBackend
from kinoloom.config import Settings

Make = Callable[..., ComfyUIBackend]


@pytest.fixture(params=["old", "new"])
def fake(request: pytest.FixtureRequest) -> Iterator[FakeComfyUI]:
    with FakeComfyUI(request.param) as server:
        yield server


@pytest.fixture
def new() -> Iterator[FakeComfyUI]:
    with FakeComfyUI("new") as server:
        yield server


@pytest.fixture
def two() -> Iterator[tuple[FakeComfyUI, FakeComfyUI]]:
    with ExitStack() as stack:
        yield stack.enter_context(FakeComfyUI("new")), stack.enter_context(FakeComfyUI("old"))


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A backend, as a process that starts has it; it waits a hundredth as long as asked."""

    def one(*servers: FakeComfyUI | str) -> ComfyUIBackend:
        urls = [s if isinstance(s, str) else s.url for s in servers]
        settings = Settings(home=tmp_path, backends={"comfyui": {"servers": urls}})  # type: ignore[arg-type]
        return ComfyUIBackend(settings, sleep=lambda seconds: time.sleep(seconds / 100))

    return one
