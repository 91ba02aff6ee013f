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
from itertools import accumulate, zip_longest
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
    - crossfade: the last frames of what is before and the first from this piece on are shown mixed,
      so the film gets that many frames shorter.
    - fade: through black, within the pieces' own frames. The first half (rounded down) darkens the
      end of what is before, its last frame being black; the second brightens what begins with this
      piece. Before the first piece there is only the second half.

    Where a piece is shorter than that, the transition reaches over pieces beside it, up to the next
    transition: see `Stretch`.

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
        """How many frames it and those behind it share with what is before."""
        return self.transition_frames if self.transition == "crossfade" else 0

    @property
    def darkening(self) -> int:
        """How many frames at the end of what is before are faded out."""
        return self.transition_frames // 2 if self.transition == "fade" else 0

    @property
    def brightening(self) -> int:
        """How many frames from its beginning on are faded in."""
        return self.transition_frames - self.darkening if self.transition == "fade" else 0


@dataclass(frozen=True)
class Stretch:
    """What lies between two transitions: pieces that follow each other by plain cuts.

    `pieces` are their numbers; `start` is the film's frame at which the first of them begins, and
    `frames` how many they have together, what they share with the stretches beside them included.
    At its beginning `overlap` frames are mixed with the stretch before and `brightening` are faded
    in; at its end `shared` are mixed with the stretch behind it and `darkening` are faded out. The
    two ends never reach into each other, so a frame of the film shows one stretch or two.
    """

    pieces: range
    start: int
    frames: int
    overlap: int
    brightening: int
    shared: int
    darkening: int

    @property
    def end(self) -> int:
        """The film's frame behind its last one."""
        return self.start + self.frames

    @property
    def opening(self) -> int:
        """How many frames at its beginning a transition changes."""
        return self.overlap + self.brightening

    @property
    def closing(self) -> int:
        """How many frames at its end a transition changes."""
        return self.shared + self.darkening


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
    one frame, transitions that overlap each other, an odd or unusable size.
    """

    pieces: tuple[Piece, ...]
    fps: Fraction
    size: tuple[int, int]
    bed: Bed | None = None

    def __post_init__(self) -> None:
        problems = [*_problems_of_film(self), *_problems_of_pieces(self.pieces)]
        if self.pieces:
            problems += _problems_of_stretches(self)
        if problems:
            raise InvalidRequest(problems)

    @cached_property
    def stretches(self) -> tuple[Stretch, ...]:
        """The film from transition to transition, in order."""
        firsts = [n for n, p in enumerate(self.pieces) if not n or p.transition_frames]
        found, end = [], 0
        for first, behind in zip_longest(firsts, firsts[1:], fillvalue=len(self.pieces)):
            numbers, piece, after = range(first, behind), self.pieces[first], self.after(behind - 1)
            start = end - piece.overlap
            frames = sum(self.pieces[number].frames for number in numbers)
            found.append(
                Stretch(
                    pieces=numbers,
                    start=start,
                    frames=frames,
                    overlap=piece.overlap,
                    brightening=piece.brightening,
                    shared=after.overlap if after is not None else 0,
                    darkening=after.darkening if after is not None else 0,
                )
            )
            end = start + frames
        return tuple(found)

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """The film's frame at which each piece begins, its transition included.

        In a crossfade the pieces of both sides run beside each other, so these do not always rise.
        """
        return tuple(
            stretch.start + before
            for stretch in self.stretches
            for before in accumulate(
                (self.pieces[n].frames for n in stretch.pieces[:-1]), initial=0
            )
        )

    @property
    def frames(self) -> int:
        """The film's number of frames: those of its pieces less what crossfades share."""
        return self.stretches[-1].end

    def end(self, index: int) -> int:
        """The film's frame behind the last one of a piece."""
        return self.starts[index] + self.pieces[index].frames

    def stretch_of(self, index: int) -> Stretch:
        """The stretch that a piece is in."""
        return self.stretches[bisect_right(self.stretches, index, key=_first_of) - 1]

    def shown_at(self, frame: int) -> tuple[int, ...]:
        """The pieces that a frame of the film shows: one, or two in a crossfade."""
        last = bisect_right(self.stretches, frame, key=_start_of) - 1
        here = self._piece_at(self.stretches[last], frame)
        if last and frame < self.stretches[last - 1].end:
            return self._piece_at(self.stretches[last - 1], frame), here
        return (here,)

    def _piece_at(self, stretch: Stretch, frame: int) -> int:
        first, behind = stretch.pieces.start, stretch.pieces.stop
        return bisect_right(self.starts, frame, first, behind) - 1

    def sample(self, frame: int) -> int:
        """The sample at which a frame of the film begins."""
        return round(Fraction(frame * SAMPLE_RATE) / self.fps)

    def after(self, index: int) -> Piece | None:
        """The piece behind a piece."""
        return self.pieces[index + 1] if index + 1 < len(self.pieces) else None

    def chapters(self) -> list[tuple[int, int, str]]:
        """The chapters as (first frame, frame behind the last one, title).

        A piece without a title continues the chapter before; one before the first title is in none.
        A chapter that would begin when the next one has begun already, in a crossfade, is left out.
        """
        found: list[tuple[int, int, str]] = []
        end = self.frames
        for start, piece in zip(reversed(self.starts), reversed(self.pieces), strict=True):
            if piece.title and start < end:
                found.append((start, end, piece.title))
                end = start
        return found[::-1]


def _first_of(stretch: Stretch) -> int:
    return stretch.pieces.start


def _start_of(stretch: Stretch) -> int:
    return stretch.start


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
    return problems


def _problems_of_stretches(cut: Cut) -> list[Problem]:
    problems: list[Problem] = []
    for stretch in cut.stretches:
        taken = stretch.opening + stretch.closing
        if taken > stretch.frames > 0:
            first, last = stretch.pieces[0], stretch.pieces[-1]
            where = f"pieces[{first}]" if first == last else f"pieces[{first}] to pieces[{last}]"
            problems.append(
                Problem(
                    f"{where}.frames",
                    stretch.frames,
                    f"{taken} or more, which the transitions at both ends take",
                    taken,
                )
            )
    return problems


def _problem_of_gain(field: str, gain: float) -> list[Problem]:
    if math.isfinite(gain) and abs(gain) <= MAX_GAIN_DB:
        return []
    return [Problem(field, gain, f"-{MAX_GAIN_DB:g} to {MAX_GAIN_DB:g} dB")]
