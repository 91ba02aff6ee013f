"""What does each frame of the film show?

Crossfades and fades mix the values of RGB as they are stored, which follow the eye, as editors do
by default: a fade then looks even from end to end. In linear light the brighter shot would stand
over the darker one for most of the time, and a fade to black would hang before it falls.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import closing

import numpy as np

from kinoloom.errors import InvalidMedia
from kinoloom.film.stitch.cut import Cut
from kinoloom.film.stitch.source import Source
from kinoloom.media.frames import Frame
from kinoloom.media.images import fit
from kinoloom.media.reader import read_frames


def film_frames(
    cut: Cut, sources: Sequence[Source], first: int = 0, end: int | None = None
) -> Iterator[Frame]:
    """The film's frames `first` to `end` (left out), uint8 RGB [H, W, 3] of the film's size.

    `sources[k]` is that of piece k. At most two files are open at a time. Raises InvalidMedia, also
    when a file has fewer frames than its piece takes.
    """
    running: dict[int, Generator[Frame]] = {}
    try:
        for number in range(first, cut.frames if end is None else end):
            shown = cut.shown_at(number)
            for index in [index for index in running if index not in shown]:
                running.pop(index).close()
            for index in shown:
                if index not in running:
                    begin = number - cut.starts[index]
                    running[index] = _piece_frames(cut, sources[index], index, begin)
            pictures = [next(running[index]) for index in shown]
            if len(pictures) == 2:
                yield _mixed(pictures[0], pictures[1], incoming_share(cut, shown[1], number))
            else:
                yield _dimmed(pictures[0], light(cut, shown[0], number))
    finally:
        for left in running.values():
            left.close()


def incoming_share(cut: Cut, index: int, frame: int) -> float:
    """How much of a piece is in a frame of the film, in the crossfade that leads into its stretch.

    Of n frames the i-th (from 0) has (i + 1) / (n + 1): no frame of a crossfade is one of the two
    alone, which the frames beside it are already.
    """
    stretch = cut.stretch_of(index)
    return (frame - stretch.start + 1) / (stretch.overlap + 1)


def light(cut: Cut, index: int, frame: int) -> float:
    """How bright a piece is in a frame of the film: 1 outside fades, 0 in their one black frame."""
    stretch = cut.stretch_of(index)
    number = frame - stretch.start
    if number < stretch.brightening:
        return (number + 1) / (stretch.brightening + 1)
    left = stretch.frames - 1 - number
    return left / stretch.darkening if left < stretch.darkening else 1.0


def check_length(cut: Cut, index: int, source: Source) -> None:
    """Raise InvalidMedia unless the file of a piece has all the frames that it takes."""
    piece = cut.pieces[index]
    if source.shown(piece.skip + piece.frames - 1, cut.fps) is None:
        raise InvalidMedia(
            f"The video {piece.video} is too short for its place in the film.",
            cause=f"It has {source.frames} frames at {float(source.rate):g} fps; "
            f"{piece.skip + piece.frames} at {float(cut.fps):g} fps are needed.",
            hints=("Take fewer frames of it.", "Make it again."),
        )


def _piece_frames(cut: Cut, source: Source, index: int, first: int) -> Generator[Frame]:
    """The frames of a piece from its frame `first` on, resampled by time and fitted to the film."""
    piece = cut.pieces[index]
    with closing(_forwards(source)) as decoded:
        at, fitted = -1, None
        for number in range(piece.skip + first, piece.skip + piece.frames):
            wanted = source.shown(number, cut.fps)
            while wanted is not None and at < wanted:
                fitted = None
                at, frame = next(decoded, (wanted, None))
                if frame is None:
                    wanted = None
                elif at == wanted:
                    fitted = fit(frame, *cut.size)
            if wanted is None or fitted is None:
                raise InvalidMedia(
                    f"The video {source.path} has fewer frames than it names.",
                    cause="Some of its frames cannot be decoded; it may be damaged.",
                    hints=("Make it again.",),
                )
            yield fitted


def _forwards(source: Source) -> Generator[tuple[int, Frame]]:
    yield from enumerate(read_frames(source.path))


def _mixed(before: Frame, after: Frame, share: float) -> Frame:
    mixed = before * np.float32(1 - share) + after * np.float32(share)
    return np.asarray(np.rint(mixed), dtype=np.uint8)


def _dimmed(frame: Frame, brightness: float) -> Frame:
    if brightness == 1:
        return frame
    return np.asarray(np.rint(frame * np.float32(brightness)), dtype=np.uint8)
