"""What does a storyboard say?

These are the checked values; `kinoloom.film.storyboard` reads and checks them. Of a shot, None
means that nothing is said there, and what the film's defaults or the film say counts (see
`kinoloom.film.shots`).
"""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from kinoloom.request import Tier

Mode = Literal["keyframe", "chaining"]
TransitionKind = Literal["cut", "crossfade", "fade"]
OnFailure = Literal["wait", "fallback", "fail"]
"""What happens when a shot cannot be made; see `Storyboard`."""

MAX_SHOTS = 1000
DEFAULT_FPS = 24.0
DEFAULT_DURATION = 5.0
"""Seconds of a shot that says no length; every video model of today makes as much in one go."""
DEFAULT_TRANSITION = 0.5
"""Seconds of a crossfade or a fade that says no duration."""


class Part(BaseModel):
    """A part of a storyboard: it does not change, and knows every field."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Character(Part):
    """Somebody or something that looks the same in every shot that names it.

    `description` goes before the prompts of those shots and `trigger`, a LoRA's word, before it;
    `references` are pictures for the models that take some.
    """

    references: tuple[Path, ...] = ()
    description: str = ""
    trigger: str = ""


class ShotAudio(Part):
    """Sound of one shot: from `offset` seconds into the file, louder or softer by `gain_db`."""

    file: Path
    gain_db: float = 0.0
    offset: float = 0.0


class FilmAudio(Part):
    """Sound under the whole film, faded in and out over `fade` seconds.

    `keep_shots`: whether the sound that models or shots have is heard too.
    """

    bed: Path | None = None
    gain_db: float = -12.0
    fade: float = 1.0
    keep_shots: bool = True


class Transition(Part):
    """How a shot follows the one before it.

    A `cut` shares one frame with it and lasts no time; a `crossfade` shares `duration` seconds with
    it; a `fade` goes through black, half of it at either side, and shares nothing.
    """

    kind: TransitionKind = "cut"
    duration: float = 0.0


class ShotDefaults(Part):
    """What holds for every shot that does not say it itself.

    `duration` is in seconds and excludes `frames`. A `seed` here is that of every shot, while the
    film's own counts up from shot to shot.
    """

    duration: float | None = None
    frames: int | None = None
    seed: int | None = None
    negative: str | None = None
    model: str | None = None
    backend: str | None = None
    steps: int | None = None
    guidance: float | None = None
    tier: Tier | None = None
    characters: tuple[str, ...] | None = None
    transition: Transition | None = None
    candidates: int | None = None
    on_failure: OnFailure | None = None


class ShotSpec(ShotDefaults):
    """One shot as it is written.

    `start`, `end`, `keyframe`: pictures. In the mode `keyframe` the first and the last frame of the
    shot, where `keyframe` is another word for `start`; in the mode `chaining` what the shot begins
    with instead of the last frame before it: `start` at the first shot, `keyframe` at any.
    `transition` leads into this shot; `title` names its chapter.
    """

    id: str
    prompt: str = ""
    start: Path | None = None
    end: Path | None = None
    keyframe: Path | None = None
    audio: ShotAudio | None = None
    title: str | None = None


class Storyboard(Part):
    """A film as the user asks for it; `model_dump(mode="json")` builds the same one again.

    `size` is None where the model is to decide it; `budget` is the most that all of it may cost;
    `keyframe_model` makes the pictures at boundaries for which none is given.

    `on_failure` says what happens with a shot that cannot be made, while the others are: the film
    may `wait` for its user, another backend may make the shot (`fallback`; where none can, the film
    waits), or the film may `fail`.
    """

    title: str = "Untitled"
    mode: Mode = "chaining"
    model: str | None = None
    backend: str | None = None
    size: tuple[int, int] | None = None
    fps: float = DEFAULT_FPS
    seed: int | None = None
    budget: Decimal | None = None
    keyframe_model: str | None = None
    on_failure: OnFailure = "wait"
    defaults: ShotDefaults = ShotDefaults()
    characters: dict[str, Character] = {}
    audio: FilmAudio = FilmAudio()
    shots: tuple[ShotSpec, ...] = ()

    @property
    def media(self) -> tuple[Path, ...]:
        """Every file that it names, each once: pictures and sound."""
        found = [path for one in self.characters.values() for path in one.references]
        for shot in self.shots:
            sound = shot.audio.file if shot.audio is not None else None
            found += [p for p in (shot.start, shot.end, shot.keyframe, sound) if p is not None]
        return tuple(dict.fromkeys([*found, *([self.audio.bed] if self.audio.bed else [])]))

    def to_json(self) -> str:
        """The storyboard as JSON, which `Storyboard.model_validate_json` reads again."""
        return self.model_dump_json(exclude_none=True)
