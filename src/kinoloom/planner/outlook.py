"""What can be said of each model for a request, before one of them is planned for?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinoloom.backends import registry
from kinoloom.backends.base import Readiness
from kinoloom.catalog.card import ModelCard
from kinoloom.config import Settings
from kinoloom.errors import KinoloomError
from kinoloom.planner.cost import Cost, cost_of
from kinoloom.planner.estimate import Measurements, estimate, estimate_elsewhere
from kinoloom.planner.inputs import Inputs
from kinoloom.planner.peak import Kind, kind_of
from kinoloom.planner.settle import (
    Notes,
    settle_audio,
    settle_context,
    settle_fps,
    settle_frames,
    settle_size,
)
from kinoloom.request import VideoRequest

Readinesses = Callable[[ModelCard], Readiness]
"""What says whether a model can run now."""
Durations = Callable[[str, str], Sequence[float]]
"""What gives the seconds that a backend's model took of late, by their names."""


@dataclass(frozen=True)
class Machine:
    """Where a plan will run: the device as its measurements are recorded, and its free memory.

    `free` bytes of the device and `ram` of main memory count what this process would give back;
    None where they are not known. `dtype_bytes` is the width of the numbers computed with.
    """

    device: str
    free: int | None = None
    ram: int | None = None
    dtype_bytes: int = 4

    @property
    def kind(self) -> Kind:
        """The kind of device."""
        return kind_of(self.device)


class Draft:
    """One request's look at the models; see `routing.Outlook`.

    `media` reads the given media when they are first needed.
    """

    def __init__(
        self,
        request: VideoRequest,
        settings: Settings,
        machine: Machine,
        media: Callable[[], Inputs],
        readiness: Readinesses | None,
        durations: Durations | None,
        measurements: Measurements | None,
    ) -> None:
        self._request = request
        self._settings = settings
        self._machine = machine
        self._media = media
        self._readiness = readiness
        self._durations = durations
        self._measurements = measurements

    def ready(self, card: ModelCard) -> Readiness:
        return Readiness(True) if self._readiness is None else self._readiness(card)

    def usable(self, backend: str) -> bool:
        return registry.usable(backend, self._settings)

    def cost(self, card: ModelCard) -> Cost:
        try:
            size, frames, fps = self._draft(card)
        except KinoloomError as error:  # which the plan would tell, if this were the one
            return Cost(basis=error.message)
        audio = settle_audio(self._request, card, Notes())
        takes = self._request.candidates
        return cost_of(card, size=size, frames=frames, fps=fps, audio=audio, takes=takes)

    def seconds(self, card: ModelCard) -> float | None:
        if card.remote is not None:
            known = self._durations(card.backend, card.id) if self._durations else ()
            return estimate_elsewhere(known).seconds
        try:
            size, frames, _ = self._draft(card)
        except KinoloomError:
            return None
        return estimate(
            card,
            device=self._machine.device,
            size=size,
            frames=frames,
            steps=card.steps.standard,
            guidance=card.guidance.default,
            measurements=self._measurements,
        ).seconds

    def _draft(self, card: ModelCard) -> tuple[tuple[int, int], int, float]:
        """Size, frames and frame rate as a plan would have them."""
        request, found, notes = self._request, self._media(), Notes()
        fps = settle_fps(request, card, found, notes)
        size = settle_size(request, card, found, notes)
        context = settle_context(request.task, card, found, notes)
        return size, settle_frames(request, card, fps, context, found, notes), fps
