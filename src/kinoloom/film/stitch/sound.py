"""What is the sound of this file at these samples?

Read forwards, at 48 kHz in stereo, by the times that the file names: the priming that encoders such
as AAC put in front is left out by the decoder, gaps are silence, and what comes late stays late.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from kinoloom.errors import InvalidMedia
from kinoloom.film.stitch.cut import SAMPLE_RATE
from kinoloom.media.audio import Samples
from kinoloom.media.localfile import check_file

# As for video (`media.reader`), with the containers that hold sound only: nothing that could make
# FFmpeg open another file or an address.
_OPEN_OPTIONS = {
    "format_whitelist": "wav,w64,aiff,flac,mp3,aac,ogg,mov,matroska,webm,avi,mpegts,mpeg,asf,flv",
    "protocol_whitelist": "file",
}
_GAP = Fraction(1, 20)
"""Seconds by which a time must differ from where the sound before it ended to be a gap. Containers
round times, so that smaller differences mean nothing."""


@contextmanager
def open_sound(path: Path) -> Iterator[InputContainer]:
    """Open a checked local file with sound in it; FFmpeg's errors inside become InvalidMedia."""
    found = check_file(path, "sound")
    try:
        with av.open(
            f"file:{found}", "r", options=dict(_OPEN_OPTIONS), metadata_errors="replace"
        ) as container:
            yield container
    except (av.FFmpegError, EOFError) as error:
        raise InvalidMedia(
            f"{path} is not sound that can be read.",
            cause=getattr(error, "strerror", None) or str(error),
            hints=("Check that it plays elsewhere, or convert it to WAV.",),
        ) from error


def check_sound(path: Path) -> None:
    """Raise InvalidMedia unless the file holds sound that can be decoded."""
    with open_sound(path) as container:
        _stream(container, path)


def sound_length(path: Path) -> int:
    """How many samples at 48 kHz a file of sound has, by its packets; decodes nothing.

    Raises InvalidMedia when it holds no sound.
    """
    with open_sound(path) as container:
        stream = _stream(container, path)
        end = Fraction(0)
        for packet in container.demux(stream):
            if packet.pts is not None and packet.time_base is not None:
                end = max(end, (packet.pts + (packet.duration or 0)) * packet.time_base)
    return round(end * SAMPLE_RATE)


class SoundReader:
    """The sound of a file, taken forwards."""

    def __init__(self, path: Path, origin: Fraction | None, first: int) -> None:
        """Sample 0 is at `origin` seconds of the file, or the first that it has if that is None;
        the first to be taken is `first`."""
        self._blocks = _decoded(path, origin)
        self._at = first
        self._left: tuple[int, Samples] | None = None

    def take(self, count: int) -> Samples:
        """The next samples [2, count]; silence before, between and behind what there is."""
        taken = np.zeros((2, count), dtype=np.float32)
        end = self._at + count
        while (block := self._left or next(self._blocks, None)) is not None:
            begin, samples = block
            stop = begin + samples.shape[1]
            if begin < end and stop > self._at:
                low, high = max(begin, self._at), min(stop, end)
                taken[:, low - self._at : high - self._at] = samples[:, low - begin : high - begin]
            self._left = block if stop > end else None
            if self._left is not None:
                break
        self._at = end
        return taken

    def close(self) -> None:
        """Close the file."""
        self._blocks.close()


def _decoded(path: Path, origin: Fraction | None) -> Generator[tuple[int, Samples]]:
    """Blocks [2, n] with the sample at which each begins."""
    with open_sound(path) as container:
        stream = _stream(container, path)
        # Kept as mono until the end: FFmpeg would make mono 3 dB quieter in stereo.
        layout = "mono" if stream.codec_context.channels == 1 else "stereo"
        resampler = _resampler(layout)
        at: int | None = None
        expected = Fraction(0)
        shape: tuple[int, str] | None = None
        for frame in container.decode(stream):
            rate = frame.sample_rate
            if (shape := shape or (rate, frame.layout.name)) != (rate, frame.layout.name):
                raise InvalidMedia(
                    f"The sound of {path} changes its form.",
                    cause=f"It starts with {shape[1]} at {shape[0]} Hz and goes on with "
                    f"{frame.layout.name} at {rate} Hz.",
                    hints=("Convert it to WAV first.",),
                )
            time = expected
            if frame.pts is not None and frame.time_base is not None:
                time = frame.pts * frame.time_base
            origin = time if origin is None else origin
            if at is None or abs(time - expected) > _GAP:
                if at is not None:
                    yield from _placed(at, resampler.resample(None))
                    resampler = _resampler(layout)
                at = round((time - origin) * SAMPLE_RATE)
                expected = time
            expected += Fraction(frame.samples, rate)
            frame.pts = None  # FFmpeg's resampler would fill gaps by its own rules
            for begin, samples in _placed(at, resampler.resample(frame)):
                at = begin + samples.shape[1]
                yield begin, samples
        if at is not None:
            yield from _placed(at, resampler.resample(None))


def _placed(at: int, frames: list[av.AudioFrame]) -> Iterator[tuple[int, Samples]]:
    for frame in frames:
        samples = np.asarray(frame.to_ndarray(), dtype=np.float32)
        if not np.isfinite(samples).all():
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
        yield at, np.repeat(samples, 2, axis=0) if len(samples) == 1 else samples
        at += samples.shape[1]


def _resampler(layout: str) -> av.AudioResampler:
    return av.AudioResampler(format="fltp", layout=layout, rate=SAMPLE_RATE)


def _stream(container: InputContainer, path: Path) -> av.AudioStream:
    if not container.streams.audio:
        raise InvalidMedia(f"There is no sound in {path}.", hints=("Name another file.",))
    stream = container.streams.audio[0]
    codec: av.AudioCodecContext | None = stream.codec_context
    if codec is None:
        raise InvalidMedia(
            f"The sound of {path} uses a codec that is not supported.",
            hints=("Convert it to WAV first.",),
        )
    return stream
