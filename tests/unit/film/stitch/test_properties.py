from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kinoloom.film.stitch import Cut, FilmFormat, Piece, TransitionKind, stitch
from unit.film.stitch.conftest import FPS, SIZE, Make, Material, assert_shows


@pytest.fixture(scope="module")
def materials(make: Make) -> list[Material]:
    return [
        make(1, 40),
        make(2, 31, hertz=300),
        make(3, 9),
        make(4, 26, format="webm"),
        make(5, 20, size=(80, 48)),
        make(6, 30, fps=Fraction(10)),
        make(7, 12, fps=Fraction(4), format="webm"),
    ]


@st.composite
def cuts(draw: st.DrawFn, materials: list[Material]) -> tuple[Cut, list[Material]]:
    """A film of up to eight pieces, with transitions that fit between them, or over several."""
    pieces: list[Piece] = []
    chosen: list[Material] = []
    for _ in range(draw(st.integers(1, 8))):
        material = draw(st.sampled_from(materials))
        there = int(len(material.frames) * FPS / material.fps) - 1
        skip = draw(st.integers(0, min(13, there - 2)))
        frames = draw(st.integers(1, min(4, there - skip)) | st.integers(1, there - skip))
        pieces.append(Piece(material.path, frames, skip))
        chosen.append(material)
    # Where a transition leads into, and how many frames there are up to the next one.
    numbers = range(1, len(pieces))
    firsts = [0, *(n for n in numbers if draw(st.booleans()))]
    ends = [*firsts[1:], len(pieces)]
    rooms = [sum(p.frames for p in pieces[n:m]) for n, m in zip(firsts, ends, strict=True)]
    left = 0  # frames of those before that no transition has taken
    for first, room in zip(firsts, rooms, strict=True):
        kind: TransitionKind = draw(st.sampled_from(["cut", "crossfade", "fade"]))
        if first == 0 and kind == "crossfade":
            kind = "cut"
        most = {
            "cut": 0,
            "crossfade": min(room, left),
            "fade": min(2 * left + 1 if first else 99, 2 * room - 1),
        }[kind]
        length = draw(st.integers(0, min(most, 9)))
        pieces[first] = replace(pieces[first], transition=kind, transition_frames=length)
        # One of no length is a cut, and what is before it is still there for the next one.
        taken = pieces[first].overlap + pieces[first].brightening
        left = room - taken + (0 if length else left)
    return Cut(tuple(pieces), FPS, SIZE), chosen


@given(data=st.data(), kind=st.sampled_from(["mp4", "mp4", "webm", "prores", "png"]))
@settings(
    max_examples=20,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_any_film_shows_what_it_must(
    tmp_path_factory: pytest.TempPathFactory,
    materials: list[Material],
    data: st.DataObject,
    kind: FilmFormat,
) -> None:
    cut, chosen = data.draw(cuts(materials))
    target = tmp_path_factory.mktemp("film") / "film"
    made = stitch(cut, target, format=kind)
    assert_shows(target, cut, chosen)
    assert made.copied + made.encoded == len(cut.pieces)
    assert 0 <= made.copied_frames <= cut.frames
