"""Which frames of which files follow each other in a film, and how does one become the next?

All positions are frames of the film: its frames are its clock. Samples are derived from them by
rounding the time of the frame itself, never by adding up what was rounded before.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import zip_longest
from pathlib import Path
from typing import Literal, TypeAlias

from kinoloom.errors import InvalidRequest, Problem
from kinoloom.media.rates import exact_rate
from kinoloom.media.reader import MAX_PIXELS, MAX_SIDE

TransitionKind: TypeAlias = Literal["cut", "crossfade", "fade"]

SAMPLE_RATE = 48_000
"""Hz of a film's sound: that of video, and the one that Opus works at."""

MAX_GAIN_DB = 60.0


@dataclass(frozen=True)
class Piece:
    """A run of frames of one file.

    Of `video`, seen at the film's rate, `skip` frames are left out (one where it begins with the
    boundary frame that it shares with the piece before) and the next `frames` are taken.

    `transition` leads into this piece and is `transition_frames` long:

    - cut: none; its length is 0.
    - crossfade: the last frames of the piece before and the first of this one are shown mixed, so
      the film gets that many frames shorter.
    - fade: through black, within the pieces' own frames. The first half (rounded down) darkens the
      end of the piece before, its last frame being black; the second brightens the beginning of
      this one. Before the first piece there is only the second half.

    Its sound is that of the file `audio` from `audio_offset` seconds on, else, with `keep_sound`,
    that of `video`, else silence; `gain_db` makes it louder or quieter. A `title` begins a chapter.
    """

    video: Path
    frames: int
    skip: int = 0
    transition: TransitionKind = "cut"
    transition_frames: int = 0
    title: str = ""
    audio: Path | None = None
    audio_offset: float = 0.0
    gain_db: float = 0.0
    keep_sound: bool = True

    @property
    def overlap(self) -> int:
        """How many frames it shares with the piece before."""
        return self.transition_frames if self.transition == "crossfade" else 0

    @property
    def darkening(self) -> int:
        """How many frames at the end of the piece before are faded out."""
        return self.transition_frames // 2 if self.transition == "fade" else 0

    @property
    def brightening(self) -> int:
        """How many frames at its beginning are faded in."""
        return self.transition_frames - self.darkening if self.transition == "fade" else 0


@dataclass(frozen=True)
class Bed:
    """Sound under the whole film, fading in and out over `fade` seconds; silence where it ends."""

    file: Path
    gain_db: float = -12.0
    fade: float = 1.0


@dataclass(frozen=True)
class Cut:
    """A film: its pieces in order, frames a second and size (width, height) in even pixels.

    Raises InvalidRequest, with every mistake, for what cannot be a film: no pieces, lengths below
    one frame, transitions that meet or overlap within a piece, an odd or unusable size.
    """

    pieces: tuple[Piece, ...]
    fps: Fraction
    size: tuple[int, int]
    bed: Bed | None = None

    def __post_init__(self) -> None:
        problems = [*_problems_of_film(self), *_problems_of_pieces(self.pieces)]
        if problems:
            raise InvalidRequest(problems)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The film's frame at which each piece begins, its transition included."""
        starts, end = [], 0
        for piece in self.pieces:
            starts.append(end - piece.overlap)
            end = starts[-1] + piece.frames
        return tuple(starts)

    @property
    def frames(self) -> int:
        """The film's number of frames: those of its pieces less what crossfades share."""
        return self.starts[-1] + self.pieces[-1].frames

    def end(self, index: int) -> int:
        """The film's frame behind the last one of a piece."""
        return self.starts[index] + self.pieces[index].frames

    def shown_at(self, frame: int) -> tuple[int, ...]:
        """The pieces that a frame of the film shows: one, or two in a crossfade."""
        last = bisect_right(self.starts, frame) - 1
        return (last - 1, last) if last and frame < self.end(last - 1) else (last,)

    def sample(self, frame: int) -> int:
        """The sample at which a frame of the film begins."""
        return round(Fraction(frame * SAMPLE_RATE) / self.fps)

    def after(self, index: int) -> Piece | None:
        """The piece behind a piece, whose transition ends it."""
        return self.pieces[index + 1] if index + 1 < len(self.pieces) else None

    def chapters(self) -> list[tuple[int, int, str]]:
        """The chapters as (first frame, frame behind the last one, title).

        A piece without a title continues the chapter before; one before the first title is in none.
        """
        titled = [(s, p.title) for s, p in zip(self.starts, self.pieces, strict=True) if p.title]
        ends = [*(start for start, _ in titled), self.frames][1:]
        return [(start, end, title) for (start, title), end in zip(titled, ends, strict=True)]


def _problems_of_film(cut: Cut) -> list[Problem]:
    problems: list[Problem] = []
    try:
        rate = exact_rate(cut.fps)
    except InvalidRequest as error:
        problems += error.problems
    else:
        if rate != cut.fps:  # what people round to 23.976 is another rate than 24000/1001
            problems.append(Problem("fps", str(cut.fps), "an exact rate", str(rate)))
    width, height = cut.size
    if (
        not (2 <= width <= MAX_SIDE and 2 <= height <= MAX_SIDE)
        or width * height > MAX_PIXELS
        or width % 2
        or height % 2
    ):
        # H.264 and VP9 keep one colour for 2x2 pixels.
        problems.append(Problem("size", f"{width}x{height}", f"even numbers, 2 to {MAX_SIDE}"))
    if not cut.pieces:
        problems.append(Problem("pieces", 0, "at least one"))
    if cut.bed is not None:
        problems += _problem_of_gain("bed.gain_db", cut.bed.gain_db)
        if not (math.isfinite(cut.bed.fade) and cut.bed.fade >= 0):
            problems.append(Problem("bed.fade", cut.bed.fade, "0 or more seconds"))
    return problems


def _problems_of_pieces(pieces: tuple[Piece, ...]) -> list[Problem]:
    problems: list[Problem] = []
    for number, piece in enumerate(pieces):
        where = f"pieces[{number}]"
        for name, value, least in (
            ("frames", piece.frames, 1),
            ("skip", piece.skip, 0),
            ("transition_frames", piece.transition_frames, 0),
        ):
            if value < least:
                problems.append(Problem(f"{where}.{name}", value, f"{least} or more", least))
        if piece.transition == "cut" and piece.transition_frames:
            problems.append(
                Problem(f"{where}.transition_frames", piece.transition_frames, "0 at a cut", 0)
            )
        problems += _problem_of_gain(f"{where}.gain_db", piece.gain_db)
        if not (math.isfinite(piece.audio_offset) and piece.audio_offset >= 0):
            problems.append(
                Problem(f"{where}.audio_offset", piece.audio_offset, "0 or more seconds")
            )
    if pieces and pieces[0].overlap:
        problems.append(Problem("pieces[0].transition", "crossfade", "cut or fade", "cut"))
    for number, (piece, after) in enumerate(zip_longest(pieces, pieces[1:])):
        taken = piece.overlap + piece.brightening
        if after is not None:
            taken += after.overlap + after.darkening
        if taken > piece.frames > 0:
            problems.append(
                Problem(
                    f"pieces[{number}].frames",
                    piece.frames,
                    f"{taken} or more, which its transitions take",
                    taken,
                )
            )
    return problems


def _problem_of_gain(field: str, gain: float) -> list[Problem]:
    if math.isfinite(gain) and abs(gain) <= MAX_GAIN_DB:
        return []
    return [Problem(field, gain, f"-{MAX_GAIN_DB:g} to {MAX_GAIN_DB:g} dB")]
