"""How is a clip made from a picture by moving over it?

The example of a backend for Kinoloom that renders in its process: a class with a few methods, a
model card beside it, and an entry point in ``pyproject.toml``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata, util
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, ClassVar

from kinoloom.backends.base import Inputs, Progress, Readiness, Rendered, Take
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.reading import read_cards
from kinoloom.errors import InvalidMedia, MissingPackage

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from kinoloom.catalog.loader import Catalog
    from kinoloom.config import Settings

_INSTALL = "pip install numpy"
# How much of the picture the window shows at its smallest, as a share of each side.
_CLOSEST, _FARTHEST = 0.6, 0.85


class PanningBackend:
    """A `kinoloom.backends.base.Renderer`: it renders in the process that it is called in.

    Whoever plans makes one too and asks it for its cards, so nothing heavy is imported before
    something is rendered.
    """

    name = "panning"
    remote: ClassVar[bool] = False

    def __init__(self, settings: Settings) -> None:
        """`settings` are Kinoloom's. This backend needs none of them."""

    def cards(self, known: Catalog) -> Sequence[ModelCard]:
        """The one model; `known` are the cards that Kinoloom has already."""
        return _cards()

    def readiness(self, card: ModelCard) -> Readiness:
        """Whether a clip could be made now; looked up without importing anything."""
        if util.find_spec("numpy") is None:
            return Readiness(False, ("numpy is not installed",), (_INSTALL,))
        return Readiness(True)

    def render(
        self, take: Take, card: ModelCard, inputs: Inputs, report: Callable[[Progress], None]
    ) -> Rendered:
        """The frames of a take. What `report` raises passes through: it cancels the work.

        Raises MissingPackage without numpy, InvalidMedia without a picture.
        """
        if not self.readiness(card).ready:
            raise MissingPackage("The panning backend needs numpy.", hints=[_INSTALL])
        if inputs.image is None:
            raise InvalidMedia(
                "Panning needs a picture.", cause="none was given", hints=["Give --image FILE."]
            )
        import numpy as np

        report(Progress("load"))
        started = perf_counter()
        route = _route(take)
        frames = np.empty((take.frames, take.height, take.width, 3), np.uint8)
        for number in range(take.frames):
            moment = _eased(number / max(1, take.frames - 1))
            frames[number] = _window(inputs.image, route.at(moment), take.width, take.height)
            report(Progress("denoise", number + 1, take.frames))
        return Rendered(
            frames=frames,
            seconds={"denoise": perf_counter() - started},
            device=take.device,
            dtype="uint8",
            versions={
                "numpy": np.__version__,
                "kinoloom-panning": metadata.version("kinoloom-panning"),
            },
        )


@dataclass(frozen=True)
class _View:
    """A window on a picture: its middle, 0 to 1 on each axis, and the share of a side it shows."""

    x: float
    y: float
    share: float


@dataclass(frozen=True)
class _Route:
    """From where to where the window goes."""

    start: _View
    end: _View

    def at(self, moment: float) -> _View:
        """The window at a moment from 0 to 1."""
        pairs = zip(vars(self.start).values(), vars(self.end).values(), strict=True)
        return _View(*(a + (b - a) * moment for a, b in pairs))


def _route(take: Take) -> _Route:
    """Where the words send the window; the seed says how close it gets."""
    words = take.prompt.lower()
    near = _CLOSEST + (_FARTHEST - _CLOSEST) * (take.seed % 1000) / 1000
    wide = "zoom out" not in words and not any(w in words for w in ("left", "right", "up", "down"))
    start, end = (1.0, near) if wide or "zoom in" in words else (near, near)
    if "zoom out" in words:
        start, end = near, 1.0
    x = ("right" in words) - ("left" in words)
    y = ("down" in words) - ("up" in words)
    return _Route(_towards(-x, -y, start), _towards(x, y, end))


def _towards(x: int, y: int, share: float) -> _View:
    """The window moved to a side, -1 or 1 on each axis, as far as the picture goes."""
    room = (1 - share) / 2
    return _View(0.5 + x * room, 0.5 + y * room, share)


def _eased(moment: float) -> float:
    """A moment from 0 to 1 that begins and ends slowly."""
    return moment * moment * (3 - 2 * moment)


def _window(image: NDArray[np.uint8], view: _View, width: int, height: int) -> NDArray[np.uint8]:
    """What the window shows of an RGB picture [H, W, 3], at the clip's size, bilinear."""
    import numpy as np

    def places(
        size: int, middle: float, count: int
    ) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
        # The middles of the pixels of the window, in pixels of the picture.
        steps = (np.arange(count) + 0.5) / count - 0.5
        exact = np.clip((middle + steps * view.share) * size - 0.5, 0, size - 1)
        lower = np.minimum(exact.astype(np.intp), max(0, size - 2))
        return lower, (exact - lower).astype(np.float32)

    rows, down = places(image.shape[0], view.y, height)
    columns, right = places(image.shape[1], view.x, width)
    next_rows = np.minimum(rows + 1, image.shape[0] - 1)
    next_columns = np.minimum(columns + 1, image.shape[1] - 1)
    weights = right[None, :, None]
    upper = image[rows][:, columns] * (1 - weights) + image[rows][:, next_columns] * weights
    lower = (
        image[next_rows][:, columns] * (1 - weights) + image[next_rows][:, next_columns] * weights
    )
    mixed = upper * (1 - down[:, None, None]) + lower * down[:, None, None]
    result: NDArray[np.uint8] = np.rint(mixed).astype(np.uint8)
    return result


@cache
def _cards() -> tuple[ModelCard, ...]:
    return read_cards(Path(__file__).parent / "panning.yaml")
