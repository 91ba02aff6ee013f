"""What must be known of a video before a film takes frames of it?

The packets are walked through once without decoding them, and one frame is decoded. That tells when
each frame is shown, which of the file's frames a frame of the film is, what the stream is made of,
and at which frames it may be cut without being encoded again.
"""

from __future__ import annotations

import os
from array import array
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.stream import Disposition
from av.video.frame import VideoFrame

from kinoloom.errors import InvalidMedia
from kinoloom.media.rates import exact_rate
from kinoloom.media.reader import MAX_PIXELS, check_size, open_container, probe

_INTRA_ONLY = frozenset({"prores"})
_AVCC = b"\1"
"""The first byte of H.264's parameters as an mp4 keeps them (ISO/IEC 14496-15, 5.3.3)."""


@dataclass(frozen=True)
class Kind:
    """What a stream is made of. Packets of equal kinds may stand behind each other in one file."""

    codec: str
    tag: str
    extradata: bytes
    width: int
    height: int
    pixels: str
    colours: tuple[int, int, int, int]


@dataclass(frozen=True)
class Source:
    """A video's frames in the order of display.

    `times` [n] are their times in units of `unit` seconds, from 0 for the first; `rate` is the
    frames a second that the file names; `begin` is the first frame's time within the file in
    seconds, and `size` (width, height) is upright.

    `kind` is None where the packets cannot be copied: turned by a camera, pixels that are not
    square, irregular times, frames hidden by an edit list. `firsts` [m] are the frames that a copy
    may begin with: key frames that nothing behind them looks back past. `ends` [k] are the frames
    before which a copy may end. `delay` is the most frames that a packet comes ahead of its turn.
    """

    path: Path
    size: tuple[int, int]
    rate: Fraction
    unit: Fraction
    begin: Fraction
    times: npt.NDArray[np.int64]
    kind: Kind | None
    firsts: npt.NDArray[np.int64]
    ends: npt.NDArray[np.int64]
    delay: int
    has_sound: bool

    @property
    def frames(self) -> int:
        """How many frames it shows."""
        return len(self.times)

    def shown(self, frame: int, fps: Fraction) -> int | None:
        """Its frame that is the one with this number at `fps`; None behind its end.

        The one that is shown in the middle of that frame's time, the earlier of two that meet
        there. The last frame stands as long as one frame of the file.
        """
        middle = (Fraction(2 * frame + 1) / (2 * fps)) / self.unit
        index = int(np.searchsorted(self.times, -(-middle.numerator // middle.denominator))) - 1
        if index < self.frames - 1:
            return index
        over = Fraction(int(self.times[-1])) + 1 / (self.rate * self.unit)
        return index if middle < over else None

    def copyable(self, first: int, end: int, fps: Fraction) -> tuple[int, int] | None:
        """The most of the frames `first` to `end` (left out) that can be copied; None if none."""
        if self.kind is None or self.rate != fps:
            return None
        begin = int(np.searchsorted(self.firsts, first))
        stop = int(np.searchsorted(self.ends, end, side="right")) - 1
        if begin == len(self.firsts) or stop < 0 or self.firsts[begin] >= self.ends[stop]:
            return None
        return int(self.firsts[begin]), int(self.ends[stop])


def moving_picture(container: InputContainer, path: Path) -> av.VideoStream:
    """The stream of a file that is its video, with a decoder. Raises InvalidMedia."""
    for stream in container.streams.video:
        if not stream.disposition & Disposition.attached_pic:
            codec: av.VideoCodecContext | None = stream.codec_context
            if codec is None:
                raise InvalidMedia(
                    f"The video {path} uses a codec that is not supported.",
                    hints=("Convert it to H.264 in MP4.",),
                )
            check_size(path, codec.width, codec.height)
            codec.options = {"max_pixels": str(MAX_PIXELS)}
            return stream
    raise InvalidMedia(f"{path} has no video in it.", hints=("Name another file.",))


def read_source(path: Path) -> Source:
    """Walk through a video file, or count a folder of PNG frames. Raises InvalidMedia."""
    if os.path.isdir(path):  # noqa: PTH112 (never raises)
        return _stills(path)
    with open_container(path) as container:
        if container.format.name == "gif":
            return _stills(path)
        stream = moving_picture(container, path)
        unit = stream.time_base or Fraction(1, av.time_base)
        times, keys, hidden = array("q"), array("b"), False
        for packet in container.demux(stream):
            if not packet.size:
                continue
            if packet.is_discard:
                hidden = True
                continue
            if packet.pts is None:  # an AVI names no times of display
                return _stills(path)
            times.append(packet.pts)
            keys.append(packet.is_keyframe)
        picture = _first_picture(container, stream) if times else None
        if picture is None:
            raise InvalidMedia(
                f"The video {path} holds no frames.",
                cause="Nothing in it could be decoded; it may be damaged or cut short.",
                hints=("Copy or download it again.",),
            )
        return _source(path, container, stream, picture, unit, times, keys, hidden)


def _source(
    path: Path,
    container: InputContainer,
    stream: av.VideoStream,
    picture: VideoFrame,
    unit: Fraction,
    times: array[int],
    keys: array[int],
    hidden: bool,
) -> Source:
    """Put together what the walk found; `times` and `keys` are in the order of decoding."""
    coded = np.frombuffer(times, dtype=np.int64)
    order = np.argsort(coded, kind="stable")
    first = int(coded[order[0]])
    begin, shown = first * unit, coded[order] - first
    rank = np.empty(len(coded), dtype=np.int64)
    rank[order] = np.arange(len(coded))
    rate = _rate(path, stream)
    frame = float(1 / (rate * unit))
    regular = bool((np.abs(shown - np.arange(len(shown)) * frame) < max(frame / 4, 1.0)).all())
    if regular:  # the exact times, which the container may have rounded
        shown, unit = np.arange(len(coded)), 1 / rate
    # Packets up to here show exactly the frames up to here: nothing of them comes later.
    highest = np.maximum.accumulate(rank)
    whole = np.concatenate(([True], highest == np.arange(len(rank))))
    key = np.frombuffer(keys, dtype=np.int8).astype(bool)
    width, height = picture.width, picture.height
    if round(picture.rotation / 90) % 2:
        width, height = height, width
    ratio = stream.codec_context.sample_aspect_ratio
    plain = regular and not hidden and not picture.rotation and ratio in (None, 0, 1)
    if stream.codec_context.codec.canonical_name == "h264":
        # An mp4 keeps parameters apart from pictures; a stream of MPEG-TS mixes them.
        plain = plain and (stream.codec_context.extradata or b"").startswith(_AVCC)
    return Source(
        path=path,
        size=(width, height),
        rate=rate,
        unit=unit,
        begin=begin,
        times=shown,
        kind=_kind(stream, picture) if plain else None,
        firsts=np.flatnonzero(whole[:-1] & key),
        ends=np.flatnonzero(whole),
        delay=int((np.arange(len(rank)) - rank).max()),
        has_sound=bool(container.streams.audio),
    )


def _stills(path: Path) -> Source:
    """A source without times of its own: as many frames as there are, at its rate."""
    info = probe(path)
    rate = exact_rate(info.fps)
    none = np.empty(0, dtype=np.int64)
    return Source(
        path=path,
        size=(info.width, info.height),
        rate=rate,
        unit=1 / rate,
        begin=Fraction(0),
        times=np.arange(info.frames, dtype=np.int64),
        kind=None,
        firsts=none,
        ends=none,
        delay=0,
        has_sound=info.has_audio,
    )


def _first_picture(container: InputContainer, stream: av.VideoStream) -> VideoFrame | None:
    container.seek(0)
    return next(container.decode(stream), None)


def _rate(path: Path, stream: av.VideoStream) -> Fraction:
    for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate):
        if rate and Fraction(1, 100) <= rate <= 1000:
            return exact_rate(rate)
    raise InvalidMedia(
        f"The video {path} has no usable frame rate.",
        cause="Its stream does not say how many frames it shows a second.",
        hints=("Convert it to H.264 in MP4.",),
    )


def _kind(stream: av.VideoStream, picture: VideoFrame) -> Kind:
    codec = stream.codec_context
    name = codec.codec.canonical_name
    return Kind(
        codec=name,
        # ProRes tells its quality by it only; elsewhere it is a habit of the container.
        tag=codec.codec_tag if name in _INTRA_ONLY else "",
        extradata=bytes(codec.extradata or b""),
        width=codec.width,
        height=codec.height,
        pixels=picture.format.name,
        colours=(
            int(picture.color_primaries),
            int(picture.color_trc),
            int(picture.colorspace),
            int(picture.color_range),
        ),
    )
