"""How does sound get into a video, exactly as long as its pictures?"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import av
import numpy as np
import numpy.typing as npt
from av.container import OutputContainer
from av.packet import Packet

from kinoloom.errors import InvalidMedia, OutputFailed

Samples: TypeAlias = npt.NDArray[np.float32]
"""Sound [channels, n], float32, -1..1."""

MIN_RATE, MAX_RATE = 8_000, 192_000
"""Hz: telephone to studio. What is outside is a mistake in the numbers."""

_BITS_A_CHANNEL = {"aac": 96_000, "libopus": 64_000}
_OPUS_RATE = 48_000  # Hz, at which Opus works whatever it is given; also where AAC lacks a rate
_LAYOUTS = {1: "mono", 2: "stereo"}


@dataclass(frozen=True)
class AudioTrack:
    """The sound of a clip: `samples` [channels, n] of -1..1 (1 or 2 channels), `rate` in Hz."""

    samples: npt.NDArray[Any]
    rate: int


def checked_track(track: AudioTrack) -> AudioTrack:
    """`track` as float32; what is louder than full scale is clipped to -1..1.

    Raises InvalidMedia when the samples are not one or two channels of finite floating-point
    numbers, or the rate is none that sound has.
    """
    samples = np.asarray(track.samples)
    if samples.ndim != 2 or samples.shape[0] not in _LAYOUTS:
        raise InvalidMedia(
            "The sound is neither mono nor stereo.",
            cause=f"Its shape is {samples.shape}; it must be (1 or 2 channels, samples).",
        )
    if not np.issubdtype(samples.dtype, np.floating):
        raise InvalidMedia(
            "The sound is not in floating-point numbers.",
            cause=f"Its type is {samples.dtype}; it must be float32 with values -1 to 1.",
        )
    if not np.isfinite(samples).all():
        raise InvalidMedia(
            "The sound is broken.", cause="Some of its samples are not finite numbers."
        )
    if not MIN_RATE <= track.rate <= MAX_RATE:
        raise InvalidMedia(
            "The sound has an unusable sample rate.",
            cause=f"It is {track.rate} Hz; allowed are {MIN_RATE} to {MAX_RATE}.",
        )
    return AudioTrack(np.clip(samples, -1, 1).astype(np.float32), int(track.rate))


class AudioEncoder:
    """Encodes a track piece by piece, in step with the pictures; silence follows where it ends."""

    def __init__(self, container: OutputContainer, codec: str, track: AudioTrack) -> None:
        """Add a stream of `codec` to the container; `track` must be a checked one."""
        rates = (av.Codec(codec, "w").audio_rates or ()) if codec == "aac" else ()
        self._rate = track.rate if track.rate in rates else _OPUS_RATE
        self._samples = _resampled(track, self._rate)
        self._layout = _LAYOUTS[len(self._samples)]
        self._sent = 0
        stream = container.add_stream(codec, rate=self._rate, layout=self._layout)
        if not isinstance(stream, av.AudioStream):  # tells mypy what the codec's name implies
            raise OutputFailed(f"{codec} is not a sound encoder.")
        stream.bit_rate = _BITS_A_CHANNEL[codec] * len(self._samples)
        stream.time_base = Fraction(1, self._rate)
        self._stream = stream

    def until(self, seconds: Fraction) -> list[Packet[av.AudioStream]]:
        """The packets that the sound up to this moment completes.

        Positions are counted from the beginning, so that no rounding adds up to a drift.
        """
        end = round(seconds * self._rate)
        if end <= self._sent:
            return []
        piece = self._samples[:, self._sent : end]
        silence = end - self._sent - piece.shape[1]
        piece = np.ascontiguousarray(np.pad(piece, ((0, 0), (0, silence))))
        frame = av.AudioFrame.from_ndarray(piece, format="fltp", layout=self._layout)
        frame.sample_rate = self._rate
        frame.pts, frame.time_base = self._sent, Fraction(1, self._rate)
        self._sent = end
        return self._stream.encode(frame)

    def finish(self) -> list[Packet[av.AudioStream]]:
        """The packets that the encoder still holds."""
        return self._stream.encode(None)


def _resampled(track: AudioTrack, rate: int) -> Samples:
    """The samples at `rate` Hz, as long as before to within a few samples."""
    if track.rate == rate or track.samples.shape[1] == 0:
        return track.samples
    layout = _LAYOUTS[len(track.samples)]
    source = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(track.samples), format="fltp", layout=layout
    )
    source.sample_rate, source.pts, source.time_base = track.rate, 0, Fraction(1, track.rate)
    resampler = av.AudioResampler(format="fltp", layout=layout, rate=rate)
    pieces = [*resampler.resample(source), *resampler.resample(None)]
    joined = np.concatenate([piece.to_ndarray() for piece in pieces], axis=1)
    # The filter overshoots at steep edges.
    return np.asarray(np.clip(joined, -1, 1), dtype=np.float32)
