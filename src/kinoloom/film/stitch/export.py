"""How does a cut become the file of a film?"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from kinoloom.film.stitch.cut import Cut
from kinoloom.film.stitch.encode import RECIPES, FileFormat, encode_part, encoded_kind
from kinoloom.film.stitch.join import Part, join, write_wav
from kinoloom.film.stitch.mix import Voice, mixed, voices_of
from kinoloom.film.stitch.picture import check_length, film_frames
from kinoloom.film.stitch.source import Source, read_source
from kinoloom.film.stitch.spans import Span, spans_of
from kinoloom.media.frames import Frame
from kinoloom.media.output import check_writable, disk_errors, whole_file
from kinoloom.media.sequence import write_sequence
from kinoloom.media.settings_tag import encode_settings

FilmFormat: TypeAlias = Literal["mp4", "webm", "prores", "png"]


@dataclass(frozen=True)
class Stitched:
    """A finished film: its file or folder, frames and seconds.

    `copied` pieces are in it without having been encoded again, `encoded` ones were at least in
    part; `copied_frames` counts the frames. `notes` say what was made to fit, a sentence each.
    `sound` is the file beside a folder of PNGs, if the film has sound.
    """

    path: Path
    frames: int
    seconds: float
    copied: int
    encoded: int
    copied_frames: int
    notes: tuple[str, ...]
    sound: Path | None = None


def stitch(
    cut: Cut,
    target: Path,
    *,
    format: FilmFormat,  # noqa: A002 - the word users know
    settings: Mapping[str, Any] | None = None,
    on_frame: Callable[[int], None] | None = None,
    check: Callable[[], None] = lambda: None,
    mark: str = "",
) -> Stitched:
    """Make the film of a cut: exactly its frames at its rate and size, whole or not at all.

    - mp4: H.264 and AAC, index at the front; webm: VP9 and Opus; prores: QuickTime with ProRes 422
      HQ and 24-bit PCM. Pieces that are of the film's size, rate and codec already are copied
      packet by packet; what a transition or a skipped frame changes is encoded, once.
    - png: a folder of lossless frames with a manifest, and `<folder>.wav` beside it.

    A piece of another size is scaled to cover the film's and cropped to its centre; one of another
    rate is resampled by time. Sound is mixed at 48 kHz in stereo; a film none of whose files has
    any is silent. `settings` are embedded as in clips. What is encoded waits beside the target
    until everything is joined; after a kill, the next one with the same `mark` removes it.

    `on_frame` hears the number of frames done, up to the film's; `check` is called between frames.
    What either raises stops the work, passes through and leaves nothing behind.
    Raises InvalidMedia (a file is unusable or too short), OutputFailed, ValueError (settings).
    """
    target = Path(target)
    comment = encode_settings(settings)
    check_writable(target, folder=format == "png")
    sources = _read_all(cut, check)
    voices = voices_of(cut, sources)
    progress = _Progress(on_frame, check)
    notes = _notes(cut, sources)
    if format == "png":
        sound = _write_frames(cut, sources, voices, target, comment, progress, mark)
        spans = [Span(0, cut.frames)]
    else:
        sound = None
        spans = _write_file(cut, sources, voices, target, format, comment, progress, mark)
    copied = [s for s in spans if s.piece is not None]
    whole = sum(1 for s in copied if s.piece is not None and _is_whole(cut, s, s.piece))
    return Stitched(
        path=target,
        frames=cut.frames,
        seconds=float(cut.frames / cut.fps),
        copied=whole,
        encoded=len(cut.pieces) - whole,
        copied_frames=sum(s.end - s.first for s in copied),
        notes=notes,
        sound=sound,
    )


class _Progress:
    """Counts frames of the film, whether encoded or copied."""

    def __init__(self, on_frame: Callable[[int], None] | None, check: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self.check = check
        self._done = 0

    def step(self, _: int = 0) -> None:
        self._done += 1
        self.check()
        if self._on_frame is not None:
            self._on_frame(self._done)


def _read_all(cut: Cut, check: Callable[[], None]) -> list[Source]:
    """The sources of all pieces, each file read once. Raises InvalidMedia."""
    known: dict[Path, Source] = {}
    for index, piece in enumerate(cut.pieces):
        check()
        if piece.video not in known:
            known[piece.video] = read_source(piece.video)
        check_length(cut, index, known[piece.video])
    return [known[piece.video] for piece in cut.pieces]


def _write_file(
    cut: Cut,
    sources: Sequence[Source],
    voices: Sequence[Voice],
    target: Path,
    form: FileFormat,
    comment: str,
    progress: _Progress,
    mark: str,
) -> list[Span]:
    recipe = RECIPES[form]
    with _workplace(target, mark) as work:
        spans = spans_of(
            cut,
            sources,
            lambda: encoded_kind(work, cut.size, cut.fps, form),
            recipe.codec,
            recipe.pixels,
        )
        parts = []
        for number, span in enumerate(spans):
            count = span.end - span.first
            if span.piece is not None:
                parts.append(Part(sources[span.piece], span.source_first, count, copied=True))
                continue
            path = work / f"{number}.{recipe.container}"
            frames = film_frames(cut, sources, span.first, span.end)
            encode_part(path, frames, cut.fps, form, progress.step)
            parts.append(Part(read_source(path), 0, count, copied=False))
        with whole_file(target, mark) as part:
            sound = mixed(voices, cut.sample(cut.frames)) if voices else None
            join(
                parts,
                cut,
                sound,
                part,
                target,
                recipe,
                comment,
                progress.step,
                progress.check,
            )
    return spans


def _write_frames(
    cut: Cut,
    sources: Sequence[Source],
    voices: Sequence[Voice],
    target: Path,
    comment: str,
    progress: _Progress,
    mark: str,
) -> Path | None:
    def write() -> None:
        frames: Iterator[Frame] = film_frames(cut, sources)
        write_sequence(target, frames, float(cut.fps), comment, progress.step)

    if not voices:
        write()
        return None
    beside = target.with_name(target.name + ".wav")
    with whole_file(beside, mark) as part:
        write_wav(part, beside, mixed(voices, cut.sample(cut.frames)), progress.check)
        write()
    return beside


@contextmanager
def _workplace(target: Path, mark: str) -> Iterator[Path]:
    """A hidden folder beside `target` for what is encoded; it is gone at the end."""
    prefix = f".kinoloom-{mark}-" if mark else ".kinoloom-"
    if mark:
        for left in target.parent.glob(f"{prefix}*.parts"):
            shutil.rmtree(left, ignore_errors=True)
    with disk_errors(target):
        work = Path(tempfile.mkdtemp(dir=target.parent, prefix=prefix, suffix=".parts"))
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _is_whole(cut: Cut, span: Span, index: int) -> bool:
    return (span.first, span.end) == (cut.starts[index], cut.end(index))


def _notes(cut: Cut, sources: Sequence[Source]) -> tuple[str, ...]:
    """What the film makes of files that are of another size or rate, in the order of the pieces."""
    notes: dict[str, None] = {}
    for source in sources:
        if source.size != cut.size:
            width, height = source.size
            notes[
                f"{source.path.name} is {width}x{height}: scaled to cover "
                f"{cut.size[0]}x{cut.size[1]}, its centre kept."
            ] = None
        if source.rate != cut.fps:
            notes[
                f"{source.path.name} has {float(source.rate):g} fps: resampled by time to "
                f"{float(cut.fps):g}."
            ] = None
    return tuple(notes)
