"""How does an editor continue with a film in another program?

An OpenTimelineIO file describes the film as a timeline whose media are the pieces' own files, with
their transitions, sounds, chapters and what made each shot. Resolve, Premiere, Kdenlive and others
read it or convert it; the schema is that of opentimelineio 0.17 and later.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any
from urllib.parse import quote

import opentimelineio as otio  # type: ignore[import-untyped]

from kinoloom.film.stitch.cut import SAMPLE_RATE, Bed, Cut, Piece, Stretch
from kinoloom.film.stitch.sound import sound_length
from kinoloom.film.stitch.source import Source, read_source
from kinoloom.media.output import disk_errors, whole_file

_FADE = "kinoloom_fade_through_black"
"""OpenTimelineIO names a type for dissolves only; other transitions are the application's."""


def write_timeline(
    cut: Cut,
    target: Path,
    *,
    title: str = "",
    about: Sequence[Mapping[str, Any]] = (),
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write the cut as an .otio file whose media are named relative to its folder.

    `about[k]` is what is known of piece k as JSON-ready data, such as its shot's `id`, `prompt`,
    `model` and `seed`: its `id` names the clip, and all of it stands in the clip's metadata under
    `kinoloom`, as `metadata` does in the timeline's. Chapters are markers.

    In a timeline, unlike in a cut, clips stand end to end: one meets the next in the middle of
    their crossfade, and what reaches over is named by the transition. Where a transition reaches
    over several pieces, those stand in a track within the track, which editors show as one clip.
    Raises InvalidMedia (a file is missing or unusable), OutputFailed.
    """
    target = Path(target)
    timeline = otio.schema.Timeline(
        name=title, global_start_time=otio.opentime.RationalTime(0, float(cut.fps))
    )
    timeline.metadata["kinoloom"] = {
        **(metadata or {}),
        "width": cut.size[0],
        "height": cut.size[1],
    }
    about = [*about, *({} for _ in range(len(about), len(cut.pieces)))]
    known = {file: read_source(file) for file in dict.fromkeys(p.video for p in cut.pieces)}
    sources = [known[piece.video] for piece in cut.pieces]
    writer = _Writer(cut, target.absolute().parent, sources, about)
    timeline.tracks.append(writer.pictures())
    if any(_sound_of(p, s) for p, s in zip(cut.pieces, sources, strict=True)):
        timeline.tracks.append(writer.sounds())
    if cut.bed is not None:
        timeline.tracks.append(writer.bed(cut.bed))
    with whole_file(target) as part, disk_errors(target):
        part.write_text(timeline.to_json_string(indent=2), encoding="utf-8")


class _Writer:
    """Turns a cut into tracks."""

    def __init__(
        self,
        cut: Cut,
        folder: Path,
        sources: Sequence[Source],
        about: Sequence[Mapping[str, Any]],
    ) -> None:
        self._cut = cut
        self._folder = folder
        self._sources = sources
        self._about = about
        self._samples: dict[Path, int] = {}
        self._items = [pieces for stretch in cut.stretches for pieces in _items_of(cut, stretch)]

    def pictures(self) -> otio.schema.Track:
        track = otio.schema.Track(name="Pictures", kind=otio.schema.TrackKind.Video)
        for pieces in self._items:
            self._add_transition(track, pieces[0])
            clips = [self._picture(index) for index in pieces]
            item = self._placed(pieces, clips, otio.schema.TrackKind.Video)
            for index, marked in zip(pieces, [item, *clips[1:]], strict=True):
                if title := self._cut.pieces[index].title:
                    marked.markers.append(self._marker(title, marked))
            track.append(item)
        return track

    def sounds(self) -> otio.schema.Track:
        """What is heard with the pieces, in step with the pictures."""
        track = otio.schema.Track(name="Sound", kind=otio.schema.TrackKind.Audio)
        heard_before = False
        for pieces in self._items:
            heard = any(self._heard(index) is not None for index in pieces)
            if heard and heard_before:  # a transition needs a clip on both sides
                self._add_transition(track, pieces[0])
            clips = [self._sound(index) for index in pieces]
            item = self._placed(pieces, clips, otio.schema.TrackKind.Audio)
            if not heard:
                item = otio.schema.Gap(source_range=self._range(0, item.duration().value))
            track.append(item)
            heard_before = heard
        return track

    def bed(self, bed: Bed) -> otio.schema.Track:
        """The sound under the whole film."""
        reference = self._audio(bed.file)
        frames = min(self._cut.frames, math.ceil(reference.available_range.duration.value))
        track = otio.schema.Track(name="Bed", kind=otio.schema.TrackKind.Audio)
        clip = otio.schema.Clip(
            name=bed.file.stem, media_reference=reference, source_range=self._range(0, frames)
        )
        clip.metadata["kinoloom"] = {"gain_db": bed.gain_db, "fade": bed.fade}
        track.append(clip)
        return track

    def _placed(self, pieces: range, clips: Sequence[otio.core.Item], kind: str) -> otio.core.Item:
        """Whole clips as one item, less what the items beside it stand for in crossfades."""
        stretch = self._cut.stretch_of(pieces[0])
        head = stretch.overlap // 2 if pieces[0] == stretch.pieces[0] else 0
        tail = stretch.shared - stretch.shared // 2 if pieces[-1] == stretch.pieces[-1] else 0
        item = clips[0]
        if len(clips) > 1:
            item = otio.schema.Track(name=clips[0].name, kind=kind, children=list(clips))
        whole = item.trimmed_range()
        item.source_range = otio.opentime.TimeRange(
            whole.start_time + self._time(head), whole.duration - self._time(head + tail)
        )
        return item

    def _picture(self, index: int) -> otio.schema.Clip:
        """The whole of a piece."""
        piece = self._cut.pieces[index]
        return self._clip(index, self._video(index), piece.skip, piece.frames)

    def _sound(self, index: int) -> otio.core.Item:
        """The sound of the whole of a piece, or as much silence."""
        piece, file = self._cut.pieces[index], self._heard(index)
        if file is None:
            return otio.schema.Gap(source_range=self._range(0, piece.frames))
        if piece.audio is None:
            clip = self._clip(index, self._video(index), piece.skip, piece.frames)
        else:
            begin = round(piece.audio_offset * self._cut.fps)
            clip = self._clip(index, self._audio(piece.audio), begin, piece.frames)
        clip.metadata["kinoloom"]["gain_db"] = piece.gain_db
        return clip

    def _heard(self, index: int) -> Path | None:
        return _sound_of(self._cut.pieces[index], self._sources[index])

    def _marker(self, title: str, item: otio.core.Item) -> otio.schema.Marker:
        """A chapter, at the first frame of an item."""
        return otio.schema.Marker(
            name=title,
            marked_range=self._range(item.source_range.start_time.value, 1),
            color=otio.schema.MarkerColor.GREEN,
        )

    def _add_transition(self, track: otio.schema.Track, index: int) -> None:
        piece = self._cut.pieces[index]
        if not index or not piece.transition_frames:
            return
        half = piece.transition_frames // 2
        cross = piece.transition == "crossfade"
        track.append(
            otio.schema.Transition(
                name="crossfade" if cross else "fade through black",
                transition_type=otio.schema.TransitionTypes.SMPTE_Dissolve if cross else _FADE,
                in_offset=self._time(half),
                out_offset=self._time(piece.transition_frames - half),
            )
        )

    def _clip(
        self, index: int, reference: otio.schema.ExternalReference, first: int, frames: int
    ) -> otio.schema.Clip:
        about = dict(self._about[index])
        clip = otio.schema.Clip(
            name=str(about.get("id") or self._cut.pieces[index].video.stem),
            media_reference=reference,
            source_range=self._range(first, frames),
        )
        clip.metadata["kinoloom"] = about
        return clip

    def _video(self, index: int) -> otio.schema.ExternalReference:
        source = self._sources[index]
        return self._reference(
            source.path,
            otio.opentime.TimeRange(
                otio.opentime.RationalTime(0, float(source.rate)),
                otio.opentime.RationalTime(source.frames, float(source.rate)),
            ),
        )

    def _audio(self, file: Path) -> otio.schema.ExternalReference:
        if file not in self._samples:
            self._samples[file] = sound_length(file)
        length = self._samples[file] * self._cut.fps / SAMPLE_RATE
        return self._reference(file, self._range(0, float(length)))

    def _reference(
        self, file: Path, available: otio.opentime.TimeRange
    ) -> otio.schema.ExternalReference:
        return otio.schema.ExternalReference(
            target_url=_url(file, self._folder), available_range=available
        )

    def _time(self, frames: float) -> otio.opentime.RationalTime:
        return otio.opentime.RationalTime(frames, float(self._cut.fps))

    def _range(self, first: float, frames: float) -> otio.opentime.TimeRange:
        return otio.opentime.TimeRange(self._time(first), self._time(frames))


def _items_of(cut: Cut, stretch: Stretch) -> Iterator[range]:
    """The pieces of a stretch as items: each alone, but those under one transition together."""
    first, behind = stretch.pieces.start, stretch.pieces.stop
    head = first + _reached(cut, stretch.pieces, stretch.opening)
    tail = behind - _reached(cut, stretch.pieces[::-1], stretch.closing)
    edges = (n for n in range(first, behind + 1) if not (first < n < head or tail < n < behind))
    yield from (range(begin, end) for begin, end in pairwise(edges))


def _reached(cut: Cut, pieces: range, frames: int) -> int:
    """How many of these pieces, from the first on, have so many frames."""
    ends = accumulate((cut.pieces[index].frames for index in pieces), initial=0)
    return next(count for count, end in enumerate(ends) if end >= frames)


def _sound_of(piece: Piece, source: Source) -> Path | None:
    if piece.audio is not None:
        return piece.audio
    return piece.video if piece.keep_sound and source.has_sound else None


def _url(file: Path, folder: Path) -> str:
    """The file relative to the timeline's folder, so that both can be moved together."""
    try:
        relative = os.path.relpath(file.absolute(), folder)
    except ValueError:  # another drive of Windows
        return file.absolute().as_uri()
    return quote(Path(relative).as_posix())
