"""How is a backend added that only waits, so that the work around its clips can be measured?

It is a backend like any other (docs/backends.md), found by an entry point: workers load it, queue
for it and render with it in their child process, one clip at a time, as on a device of their own.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from kinoloom.backends.base import Inputs, Progress, Readiness, Rendered, Take
from kinoloom.catalog.card import ModelCard

if TYPE_CHECKING:
    from kinoloom.catalog.loader import Catalog
    from kinoloom.config import Settings

WAITS, AT_ONCE = "waits", "at-once"
"""The models: of one a clip takes `SECONDS`, of the other nothing."""
SECONDS = 4.0
SIZE, FPS = (320, 192), 24

_ROOT = Path(__file__).parents[1]
_STEPS = 20


def install(folder: Path) -> None:
    """Let this process, and those that it starts, find the backend."""
    about = folder / "waiting-0.dist-info"
    about.mkdir(parents=True)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: waiting\nVersion: 0\n")
    (about / "entry_points.txt").write_text(
        "[kinoloom.backends]\nwaiting = benchmarks.waiting:WaitingBackend\n"
    )
    paths = [str(folder), str(_ROOT)]
    sys.path[:0] = paths
    known = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([*paths, *([known] if known else [])])


class WaitingBackend:
    """A `kinoloom.backends.base.Renderer` whose frames go from one picture over into another."""

    name = "waiting"
    remote: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        """`settings` are Kinoloom's. This backend needs none of them."""

    def cards(self, known: Catalog) -> Sequence[ModelCard]:
        """Both models; `known` are the cards that Kinoloom has already."""
        return [ModelCard.model_validate(_card(name)) for name in (WAITS, AT_ONCE)]

    def readiness(self, card: ModelCard) -> Readiness:
        """It is always ready."""
        return Readiness(True)

    def render(
        self, take: Take, card: ModelCard, inputs: Inputs, report: Callable[[Progress], None]
    ) -> Rendered:
        """The frames of a take, after the time that its model takes."""
        import numpy as np

        report(Progress("load"))
        began = time.perf_counter()
        for step in range(_STEPS):
            if card.id == WAITS:
                time.sleep(max(0.0, began + (step + 1) * SECONDS / _STEPS - time.perf_counter()))
            report(Progress("denoise", step + 1, _STEPS))
        drawn = np.random.default_rng(take.seed).integers(0, 256, (2, 3, 4, 3), dtype=np.uint8)
        shape = (take.height // 3, take.width // 4, 1)
        whole = [np.kron(picture, np.ones(shape, np.uint8)) for picture in drawn]
        start = whole[0] if inputs.image is None else inputs.image
        end = whole[1] if inputs.last_image is None else inputs.last_image
        shares = np.linspace(0, 1, take.frames, dtype=np.float32)[:, None, None, None]
        return Rendered(
            frames=np.rint(start * (1 - shares) + end * shares).astype(np.uint8),
            seconds={"denoise": time.perf_counter() - began},
            device=take.device,
            dtype="uint8",
            versions={"waiting": "0"},
        )


def _card(name: str) -> dict[str, Any]:
    return {
        "id": name,
        "title": name,
        "family": "waiting",
        "summary": "Makes clips of nothing, for benchmarks.",
        "backend": "waiting",
        "source": {"service": name},
        "pipelines": {
            "t2v": {"class": "Wait"},
            "i2v": {"class": "Wait", "inputs": {"image": "image"}},
            "flf2v": {
                "class": "Wait",
                "inputs": {"image": "image", "last_image": "last_image"},
            },
        },
        "sizes": {
            "multiple_of": 16,
            "minimum": 64,
            "maximum": 640,
            "native": [list(SIZE)],
            "default": list(SIZE),
        },
        "frames": {"multiple": 1, "offset": 0, "minimum": 1, "maximum": 121, "default": 25},
        "fps": {"default": FPS, "minimum": 1, "maximum": 60},
        "negative": False,
        "licence": {"id": "Apache-2.0", "url": "https://www.apache.org/licenses/LICENSE-2.0"},
    }
