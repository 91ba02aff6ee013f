"""Which frames of the film are copied as they are, and which must be encoded?

Copied is what lies between two places where a stream can be cut, is shown unchanged and is of the
one kind that the film's stream has. A piece that begins behind its first frame or that a transition
changes at an end is encoded there up to the next such place; the rest of it is still copied.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kinoloom.film.stitch.cut import Cut
from kinoloom.film.stitch.source import Kind, Source


@dataclass(frozen=True)
class Span:
    """The film's frames `first` to `end` (left out).

    Copied from the source of piece `piece`, where its frame `source_first` is the first; encoded if
    `piece` is None.
    """

    first: int
    end: int
    piece: int | None = None
    source_first: int = 0


def spans_of(
    cut: Cut, sources: Sequence[Source], encoded_kind: Callable[[], Kind], codec: str, pixels: str
) -> list[Span]:
    """The film from its first frame to its last as spans; no two encoded ones follow each other.

    Only streams of `codec` with `pixels` are copied. If everything can be copied and is of one
    kind, whoever made it, it is. Else what is copied must be of the kind that is encoded here,
    which `encoded_kind` finds out.
    """
    candidates = [_copy(cut, sources, i, codec, pixels) for i in range(len(cut.pieces))]
    found = [span for span in candidates if span is not None]
    if not found:
        return [Span(0, cut.frames)]
    kinds = {sources[i].kind for i, span in enumerate(candidates) if span is not None}
    whole = _with_gaps(found, cut.frames)
    if whole == found and len(kinds) == 1:
        return whole
    ours = encoded_kind()
    kept = [s for s in found if s.piece is not None and sources[s.piece].kind == ours]
    return _with_gaps(kept, cut.frames)


def _copy(cut: Cut, sources: Sequence[Source], index: int, codec: str, pixels: str) -> Span | None:
    """The most of a piece that could be copied."""
    piece, stretch, source = cut.pieces[index], cut.stretch_of(index), sources[index]
    kind = source.kind
    if kind is None or (kind.codec, kind.pixels) != (codec, pixels):
        return None
    if (kind.width, kind.height) != cut.size:
        return None
    skipped = piece.skip - cut.starts[index]  # from a frame of the film to one of the source
    begin = max(cut.starts[index], stretch.start + stretch.opening)
    found = source.copyable(
        begin + skipped, min(cut.end(index), stretch.end - stretch.closing) + skipped, cut.fps
    )
    if found is None:
        return None
    first, end = (number - skipped for number in found)
    return Span(first, end, index, found[0])


def _with_gaps(copied: Sequence[Span], frames: int) -> list[Span]:
    """The copied spans, with encoded ones where something is missing."""
    spans, at = [], 0
    for span in copied:
        if span.first > at:
            spans.append(Span(at, span.first))
        spans.append(span)
        at = span.end
    if at < frames:
        spans.append(Span(at, frames))
    return spans
