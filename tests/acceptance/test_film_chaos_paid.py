"""Is a film paid once and just what it should be, whoever is killed while a service makes it?

The same storyboards are rendered twice: undisturbed, and by workers that are killed. Then one shot
of each film gets other words.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from acceptance.film_chaos import FilmPlace, storyboard
from acceptance.stage import Stage
from fakes.filmed import CARDS, Asked, FilmedRunway
from fakes.runway import KEY
from kinoloom.film.board import Mode

pytestmark = [pytest.mark.slow]

SHOTS = int(os.environ.get("FILM_SHOTS", "3"))
KILLS = int(os.environ.get("FILM_KILLS", "3"))
"""While clips are made; one more for each film while it is joined."""
MODES: tuple[Mode, ...] = ("keyframe", "chaining")
EDITED = (SHOTS + 1) // 2
"""The number of the shot that gets other words, from 1."""


@pytest.fixture
def seed() -> int:
    """Of the moments and of who is killed; CHAOS_SEED repeats those of a run that failed."""
    seed = int(os.environ.get("CHAOS_SEED", random.SystemRandom().randrange(10**6)))
    print(f"CHAOS_SEED={seed}")
    return seed


@dataclass
class Made:
    """What became of the films: their frames and all orders, before and after the edit."""

    frames: list[list[str]]
    ordered: Counter[Asked]
    edited_frames: list[list[str]]
    new: Counter[Asked]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's pictures, the same in every run."""
    return tmp_path_factory.mktemp("pictures")


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The user's cards of what the service films."""
    folder = tmp_path_factory.mktemp("cards")
    folder.joinpath("filmed.yaml").write_text(CARDS, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, cards: Path, pictures: Path) -> Made:
    """The films as they are when nobody is killed."""
    with studio(tmp_path_factory.mktemp("undisturbed"), cards) as place:
        return made(place, pictures)


@contextmanager
def studio(
    folder: Path,
    cards: Path,
    database: str | None = None,
    seed: int = 0,
) -> Iterator[FilmPlace]:
    """A fresh place, and a service that it alone pays."""
    with FilmedRunway() as service, pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUNWAYML_API_SECRET", KEY)
        patch.setenv("RUNWAYML_BASE_URL", service.url)
        with Stage(folder, cards, database_url=database, ttl=2) as stage:
            yield FilmPlace(stage, service, seed)


def made(place: FilmPlace, pictures: Path, kills: int = 0) -> Made:
    """Have both films made, and made again after an edit."""
    place.create([storyboard(mode, SHOTS, pictures) for mode in MODES])
    print(place.render(kills))
    frames = [place.frames(number) for number in range(len(MODES))]
    before = place.ordered
    for number, mode in enumerate(MODES):
        place.update(number, storyboard(mode, SHOTS, pictures, edited=f"shot-{EDITED}"))
    print(place.render())
    place.close()
    edited = [place.frames(number) for number in range(len(MODES))]
    return Made(frames, before, edited, place.ordered - before)


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_a_killed_film_is_paid_once_and_is_the_one_that_nobody_disturbed(
    tmp_path: Path,
    cards: Path,
    pictures: Path,
    undisturbed: Made,
    kind: str,
    seed: int,
    request: pytest.FixtureRequest,
) -> None:
    url = request.getfixturevalue("postgres") if kind == "postgres" else None
    with studio(tmp_path, cards, url, seed) as place:
        found = made(place, pictures, KILLS)
    assert set(found.ordered.values()) == {1}
    assert found.ordered == undisturbed.ordered
    assert found.frames == undisturbed.frames
    assert found.new == undisturbed.new
    assert found.edited_frames == undisturbed.edited_frames


def test_an_edit_orders_what_it_changed_and_nothing_else(undisturbed: Made) -> None:
    assert set(undisturbed.new.values()) == {1}
    words = {asked.prompt for asked in undisturbed.new}
    after = {f"chaining shot-{number}" for number in range(EDITED + 1, SHOTS + 1)}
    changed = {f"{mode} shot-{EDITED}, but otherwise" for mode in MODES}
    assert words == changed | after
    for before, now in zip(undisturbed.frames, undisturbed.edited_frames, strict=True):
        assert len(before) == len(now)
        assert before != now
