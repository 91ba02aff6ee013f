"""How do copied and encoded packets and the mixed sound become one file?

Each packet gets its time from its frame's place in the film, in units of one frame, so that times
are exact and the rate is constant whatever the files that it comes from count in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet

from kinoloom.errors import InvalidMedia, OutputFailed
from kinoloom.film.stitch.cut import SAMPLE_RATE, Cut
from kinoloom.film.stitch.encode import Recipe
from kinoloom.film.stitch.source import Kind, Source, moving_picture
from kinoloom.media.audio import Samples
from kinoloom.media.output import disk_errors
from kinoloom.media.reader import open_container

if TYPE_CHECKING:  # it is in the types of PyAV only
    from av.container.core import Chapter

_WAV_SOUND = "pcm_s24le"


@dataclass(frozen=True)
class Part:
    """`frames` frames of a file, from its frame `first` on; `copied` if it is a piece of the film
    and not one that was encoded for it."""

    source: Source
    first: int
    frames: int
    copied: bool


def join(
    parts: Sequence[Part],
    cut: Cut,
    sound: Iterator[Samples] | None,
    path: Path,
    target: Path,
    recipe: Recipe,
    comment: str,
    on_copied: Callable[[], None],
    check: Callable[[], None],
) -> None:
    """Write the parts, all of one kind, to `path`, which becomes `target`.

    `on_copied` is called after each copied frame, `check` all the time. Raises InvalidMedia and
    OutputFailed.
    """
    with disk_errors(target):
        written = av.open(
            f"file:{path}",
            "w",
            format=recipe.container,
            # As in `media.writer`: pictures and sound stay sorted by time.
            container_options={**recipe.options, "max_interleave_delta": "0"},
        )
    try:
        if comment:
            written.metadata["comment"] = comment
        written.set_chapters(_chapters(cut))
        pictures = _Pictures(written, parts, cut.fps, target)
        heard = None
        if sound is not None:
            heard = SoundTrack(written, recipe.sound, recipe.sound_bits, sound)
        # FFmpeg's muxers wait for the other stream, so sound goes a little ahead of its pictures.
        for number, (packet, copied) in enumerate(pictures.packets(), start=1):
            check()
            if heard is not None:
                sounds = heard.until(cut.sample(number))
                with disk_errors(target):
                    written.mux(sounds)
            with disk_errors(target):
                written.mux(packet)
            if copied:
                on_copied()
        if heard is not None:
            with disk_errors(target):
                written.mux(heard.finish())
        with disk_errors(target):
            written.close()
    except BaseException:
        with suppress(OSError, av.FFmpegError):
            written.close()
        raise


def write_wav(
    path: Path, target: Path, sound: Iterator[Samples], check: Callable[[], None]
) -> None:
    """Write sound [2, n] at 48 kHz to `path`, which becomes `target`. Raises OutputFailed."""
    with disk_errors(target):
        written = av.open(f"file:{path}", "w", format="wav")
    try:
        track = SoundTrack(written, _WAV_SOUND, 0, sound)
        at = 0
        while not track.ended:
            check()
            at += SAMPLE_RATE
            packets = track.until(at)
            with disk_errors(target):
                written.mux(packets)
        with disk_errors(target):
            written.mux(track.finish())
            written.close()
    except BaseException:
        with suppress(OSError, av.FFmpegError):
            written.close()
        raise


class SoundTrack:
    """Encodes the film's sound in step with its pictures."""

    def __init__(
        self, container: OutputContainer, codec: str, bits: int, sound: Iterator[Samples]
    ) -> None:
        """Add a stream of `codec` with `bits` a second (0: as the codec has it)."""
        stream = container.add_stream(codec, rate=SAMPLE_RATE, layout="stereo")
        if not isinstance(stream, av.AudioStream):  # tells mypy what the codec's name implies
            raise OutputFailed(f"{codec} is not a sound encoder.")
        if bits:
            stream.bit_rate = bits
        stream.time_base = Fraction(1, SAMPLE_RATE)
        self._stream = stream
        self._sound = sound
        self._sent = 0
        self._left: Samples = np.zeros((2, 0), dtype=np.float32)
        self.ended = False

    def until(self, sample: int) -> list[Packet[av.AudioStream]]:
        """The packets that the sound up to this sample completes."""
        packets: list[Packet[av.AudioStream]] = []
        while self._sent < sample and not self.ended:
            if not self._left.shape[1]:
                block = next(self._sound, None)
                if block is None:
                    self.ended = True
                    break
                self._left = block
            count = min(sample - self._sent, self._left.shape[1])
            piece = np.ascontiguousarray(self._left[:, :count])
            self._left = self._left[:, count:]
            frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout="stereo")
            frame.sample_rate = SAMPLE_RATE
            frame.pts, frame.time_base = self._sent, Fraction(1, SAMPLE_RATE)
            self._sent += count
            packets += self._stream.encode(frame)
        return packets

    def finish(self) -> list[Packet[av.AudioStream]]:
        """The packets that the encoder still holds."""
        return self._stream.encode(None)


class _Pictures:
    """The stream of pictures, copied packet by packet from one part after the other."""

    def __init__(
        self, written: OutputContainer, parts: Sequence[Part], fps: Fraction, target: Path
    ) -> None:
        self._parts = parts
        self._fps = fps
        self._unit = 1 / fps
        # One delay for all: times of decoding then rise by one frame from packet to packet, and
        # none is behind its time of display.
        self._delay = max(part.source.delay for part in parts)
        kind = parts[0].source.kind
        if kind is None or any(part.source.kind != kind for part in parts):
            raise OutputFailed(
                f"The parts of {target} cannot stand behind each other.",
                cause="The encoder made another kind of stream than it did before.",
            )
        with open_container(parts[0].source.path) as first:
            template = moving_picture(first, parts[0].source.path)
            with disk_errors(target):
                self._stream = _stream_of(written, template, kind, fps)
        self._extradata = kind.extradata

    def packets(self) -> Iterator[tuple[Packet[av.VideoStream], bool]]:
        at = 0
        for part in self._parts:
            count = 0
            for packet in islice(self._read(part), part.frames):
                shown = self._shown(part, packet)
                if not part.first <= shown < part.first + part.frames:
                    raise _changed(part)
                packet.stream = self._stream
                packet.time_base = self._unit
                packet.pts = at + shown - part.first
                packet.dts = at + count - self._delay
                packet.duration = 1
                count += 1
                yield packet, part.copied
            if count < part.frames:
                raise _changed(part)
            at += part.frames

    def _read(self, part: Part) -> Iterator[Packet[av.VideoStream]]:
        """The packets of a file from the one with the part's first frame on.

        Where a part begins and ends, as many packets as frames were before (`Source.firsts`).
        """
        path = part.source.path
        with open_container(path) as container:
            stream = moving_picture(container, path)
            if bytes(stream.codec_context.extradata or b"") != self._extradata:
                raise _changed(part)
            packets = (packet for packet in container.demux(stream) if packet.size)
            yield from islice(packets, part.first, None)

    def _shown(self, part: Part, packet: Packet[av.VideoStream]) -> int:
        """The number of a packet's frame within its file."""
        if packet.pts is None or packet.time_base is None:
            raise _changed(part)
        seconds = packet.pts * packet.time_base - part.source.begin
        return round(seconds * self._fps)


def _stream_of(
    written: OutputContainer, template: av.VideoStream, kind: Kind, fps: Fraction
) -> av.VideoStream:
    """A stream that holds packets of a kind."""
    if kind.codec == "vp9":
        # A webm names its rate only if the stream does, and a copied one cannot; that of an encoder
        # can, which is never fed. VP9 keeps nothing outside its packets that must be equal.
        encoder = written.add_stream("libvpx-vp9", rate=fps)
        if not isinstance(encoder, av.VideoStream):  # tells mypy what the codec's name implies
            raise OutputFailed("libvpx-vp9 is not a video encoder.")
        encoder.width, encoder.height, encoder.pix_fmt = kind.width, kind.height, kind.pixels
        codec = encoder.codec_context
        codec.time_base = 1 / fps
        codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range = kind.colours
        return encoder
    stream = written.add_stream_from_template(template, opaque=True)
    stream.codec_context.codec_tag = kind.tag or "\0\0\0\0"
    stream.time_base = 1 / fps
    return stream


def _changed(part: Part) -> InvalidMedia:
    return InvalidMedia(
        f"The video {part.source.path} changed while the film was made.",
        hints=("Stitch the film again.",),
    )


def _chapters(cut: Cut) -> list[Chapter]:
    """The chapters as PyAV takes them; a thousandth of a second is what players show at most."""
    unit = Fraction(1, 1000)

    def time(frame: int) -> int:
        return round(frame / cut.fps / unit)

    return [
        {
            "id": number,
            "start": time(first),
            "end": time(end),
            "time_base": unit,
            "metadata": {"title": title},
        }
        for number, (first, end, title) in enumerate(cut.chapters(), start=1)
    ]
