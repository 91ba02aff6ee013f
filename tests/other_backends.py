"""How do tests add a backend of another package: a module and an entry point on the path?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kinoloom.backends import registry

PREFIX = "kinoloom_test_"
HEAD = """\
from kinoloom.backends.base import Readiness
from kinoloom.catalog.card import ModelCard

def card(id, backend, **more):
    return ModelCard.model_validate({
        "id": id, "title": id.title(), "family": "test", "summary": "A test.", "backend": backend,
        "source": {"service": "x"}, "pipelines": {"t2v": {"class": "X"}},
        "sizes": {"multiple_of": 8, "minimum": 64, "maximum": 640, "native": [[64, 64]],
                  "default": [64, 64]},
        "frames": {"multiple": 1, "offset": 0, "minimum": 1, "maximum": 99, "default": 9},
        "fps": {"default": 8, "minimum": 8, "maximum": 8}, "negative": False,
        "licence": {"id": "x", "url": "https://x.example"}, "remote": {}, **more,
    })

class Base:
    name, remote, poll_seconds = "base", True, 1.0
    def __init__(self, settings): self.settings = settings
    def cards(self, known): return [card(f"{self.name}-one", self.name, price="free")]
    def readiness(self, card): return Readiness(True)
"""

Add = Callable[..., None]


@contextmanager
def added(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Add]:
    """A function (name=source of a class `Backend(Base)`'s body, or of a whole module).

    Each becomes a package of its own with real metadata.
    """

    def add(**backends: str) -> None:
        for name, body in backends.items():
            module = PREFIX + name
            text = body if body.startswith("#") else HEAD + f"\nclass Backend(Base):\n{body}\n"
            (folder / f"{module}.py").write_text(text)
            info = folder / f"{module}-1.dist-info"
            info.mkdir()
            (info / "METADATA").write_text(f"Metadata-Version: 2.4\nName: {module}\nVersion: 1\n")
            (info / "entry_points.txt").write_text(
                f"[{registry.GROUP}]\n{name} = {module}:Backend\n"
            )
        monkeypatch.syspath_prepend(folder)
        registry._others.cache_clear()

    folder.mkdir()
    try:
        yield add
    finally:
        for module in [name for name in sys.modules if name.startswith(PREFIX)]:
            del sys.modules[module]
        registry._others.cache_clear()
