from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from kinoloom.errors import InvalidRequest
from kinoloom.film.stitch import Bed, Cut, Piece

FILE = Path("a.mp4")


def film(*pieces: Piece, fps: Fraction = Fraction(24), **more: Any) -> Cut:
    return Cut(pieces, fps, more.pop("size", (64, 48)), **more)


def test_crossfades_share_frames_and_fades_do_not() -> None:
    cut = film(
        Piece(FILE, 10),
        Piece(FILE, 10, transition="crossfade", transition_frames=4),
        Piece(FILE, 10, transition="fade", transition_frames=5),
    )
    assert cut.starts == (0, 6, 16)
    assert cut.frames == 26
    assert [cut.shown_at(f) for f in (0, 5, 6, 9, 10, 15, 16, 25)] == [
        (0,),
        (0,),
        (0, 1),
        (0, 1),
        (1,),
        (1,),
        (2,),
        (2,),
    ]


def test_a_transition_reaches_over_pieces_that_are_shorter_than_it() -> None:
    cut = film(
        Piece(FILE, 10),
        Piece(FILE, 2),
        Piece(FILE, 1, transition="crossfade", transition_frames=5),
        Piece(FILE, 2),
        Piece(FILE, 8),
        Piece(FILE, 3, transition="fade", transition_frames=4),
    )
    assert cut.frames == 10 + 2 + 1 + 2 + 8 + 3 - 5
    assert cut.starts == (0, 10, 7, 8, 10, 18)
    assert [cut.shown_at(f) for f in range(6, 13)] == [
        (0,),
        (0, 2),
        (0, 3),
        (0, 3),
        (1, 4),
        (1, 4),
        (4,),
    ]
    assert [stretch.pieces for stretch in cut.stretches] == [range(2), range(2, 5), range(5, 6)]
    assert [(s.opening, s.closing) for s in cut.stretches] == [(0, 5), (5, 2), (2, 0)]
    assert [cut.stretch_of(n).start for n in range(6)] == [0, 0, 7, 7, 7, 18]


def test_samples_come_from_the_clock_and_do_not_drift() -> None:
    cut = film(*(Piece(FILE, 7) for _ in range(1000)), fps=Fraction(24000, 1001))
    assert cut.sample(7000) == 7000 * 2002
    odd = film(*(Piece(FILE, 1) for _ in range(1000)), fps=Fraction(30000, 1001))
    assert [odd.sample(f) for f in (1, 2, 3, 5)] == [1602, 3203, 4805, 8008]
    assert all(abs(odd.sample(f) - f * 1601.6) <= 0.5 for f in range(1001))


def test_chapters_begin_at_titles() -> None:
    cut = film(
        Piece(FILE, 3), Piece(FILE, 4, title="One"), Piece(FILE, 5), Piece(FILE, 6, title="2")
    )
    assert cut.chapters() == [(3, 12, "One"), (12, 18, "2")]
    assert film(Piece(FILE, 3)).chapters() == []


def test_a_chapter_that_begins_within_the_next_one_is_left_out() -> None:
    cut = film(
        Piece(FILE, 9, title="One"),
        Piece(FILE, 2, title="Late"),
        Piece(FILE, 9, title="Two", transition="crossfade", transition_frames=4),
    )
    assert cut.chapters() == [(0, 7, "One"), (7, 16, "Two")]


def test_a_first_piece_may_fade_in_from_black() -> None:
    piece = film(Piece(FILE, 3, transition="fade", transition_frames=6)).pieces[0]
    assert (piece.darkening, piece.brightening, piece.overlap) == (3, 3, 0)


@pytest.mark.parametrize(
    ("pieces", "more", "fields"),
    [
        ((), {}, ["pieces"]),
        ((Piece(FILE, 0),), {}, ["pieces[0].frames"]),
        ((Piece(FILE, 1, skip=-1),), {}, ["pieces[0].skip"]),
        ((Piece(FILE, 1, transition_frames=2),), {}, ["pieces[0].transition_frames"]),
        (
            (Piece(FILE, 9, transition="crossfade", transition_frames=2),),
            {},
            ["pieces[0].transition"],
        ),
        (
            (Piece(FILE, 3), Piece(FILE, 9, transition="crossfade", transition_frames=4)),
            {},
            ["pieces[0].frames"],
        ),
        (
            (
                Piece(FILE, 9),
                Piece(FILE, 5, transition="crossfade", transition_frames=3),
                Piece(FILE, 9, transition="fade", transition_frames=6),
            ),
            {},
            ["pieces[1].frames"],
        ),
        (
            (
                Piece(FILE, 9),
                Piece(FILE, 2, transition="crossfade", transition_frames=3),
                Piece(FILE, 3),
                Piece(FILE, 9, transition="fade", transition_frames=6),
            ),
            {},
            ["pieces[1] to pieces[2].frames"],
        ),
        ((Piece(FILE, 1, gain_db=float("nan")),), {}, ["pieces[0].gain_db"]),
        ((Piece(FILE, 1, audio_offset=-1),), {}, ["pieces[0].audio_offset"]),
        ((Piece(FILE, 1),), {"size": (63, 48)}, ["size"]),
        ((Piece(FILE, 1),), {"size": (64, 0)}, ["size"]),
        ((Piece(FILE, 1),), {"fps": Fraction(0)}, ["fps"]),
        ((Piece(FILE, 1),), {"fps": Fraction("23.976")}, ["fps"]),
        ((Piece(FILE, 1),), {"bed": Bed(FILE, 100, -1)}, ["bed.gain_db", "bed.fade"]),
        ((Piece(FILE, -1), Piece(FILE, 1, skip=-1)), {}, ["pieces[0].frames", "pieces[1].skip"]),
    ],
)
def test_every_mistake_is_named(
    pieces: tuple[Piece, ...], more: dict[str, Any], fields: list[str]
) -> None:
    with pytest.raises(InvalidRequest) as error:
        film(*pieces, **more)
    assert [problem.field for problem in error.value.problems] == fields
