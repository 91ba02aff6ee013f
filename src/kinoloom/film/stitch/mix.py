"""What does the film sound like?

Every sound begins at the sample of its frame, counted from the film's beginning, so nothing drifts
however many pieces there are. Where pictures fade, sounds fade by equal power (sine and cosine):
two different sounds keep their loudness while one becomes the other. What is too loud together is
turned down ahead of its peaks, never clipped.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kinoloom.film.stitch.cut import SAMPLE_RATE, Cut
from kinoloom.film.stitch.sound import SoundReader, check_sound, sound_length
from kinoloom.film.stitch.source import Source
from kinoloom.media.audio import Samples

CEILING = 10 ** (-1 / 20)
"""The highest peak: 1 dB below full scale, since lossy codecs overshoot what they are given."""

_BLOCK = SAMPLE_RATE
_AHEAD = 2048
"""Samples within which the limiter turns down and up again: 43 ms. A power of two."""


@dataclass(frozen=True)
class Voice:
    """One sound of the film: a file, heard from sample `start` to `end` (left out) of the film.

    At `start` the file's sample `first` is heard, counted as `SoundReader` does from `origin`. It
    is multiplied by `gain`, and fades with what it belongs to: that lasts from sample `opens` to
    `closes`, and fades over `rise` samples at its beginning and `fall` at its end.
    """

    file: Path
    origin: Fraction | None
    first: int
    start: int
    end: int
    gain: float
    opens: int
    closes: int
    rise: int
    fall: int


def voices_of(cut: Cut, sources: Sequence[Source]) -> list[Voice]:
    """The sounds of the film in the order of their pieces, the bed last; none: a silent film.

    A piece that goes on with the sound of the one before continues its voice, so that a long sound
    under many pieces is decoded once.
    Raises InvalidMedia when the bed or a piece's own file holds no sound.
    """
    for file in {piece.audio for piece in cut.pieces if piece.audio is not None}:
        check_sound(file)
    voices: list[Voice] = []
    for index, (piece, source) in enumerate(zip(cut.pieces, sources, strict=True)):
        if piece.audio is not None:
            file, origin = piece.audio, None
            first = round(Fraction(piece.audio_offset) * SAMPLE_RATE)
        elif piece.keep_sound and source.has_sound:
            file, origin = piece.video, source.begin
            first = cut.sample(piece.skip)
        else:
            continue
        stretch = cut.stretch_of(index)
        opens, closes = cut.sample(stretch.start), cut.sample(stretch.end)
        _add(
            voices,
            Voice(
                file=file,
                origin=origin,
                first=first,
                start=cut.sample(cut.starts[index]),
                end=cut.sample(cut.end(index)),
                gain=_amplitude(piece.gain_db),
                opens=opens,
                closes=closes,
                rise=cut.sample(stretch.start + stretch.opening) - opens,
                fall=closes - cut.sample(stretch.end - stretch.closing),
            ),
        )
    if cut.bed is not None:
        end = min(cut.sample(cut.frames), sound_length(cut.bed.file))
        fade = min(round(cut.bed.fade * SAMPLE_RATE), end // 2)
        gain = _amplitude(cut.bed.gain_db)
        voices.append(Voice(cut.bed.file, None, 0, 0, end, gain, 0, end, fade, fade))
    return voices


def _add(voices: list[Voice], voice: Voice) -> None:
    """Add a voice, or let the last one go on where this only continues it."""
    if voices:
        last = voices[-1]
        same = replace(last, first=voice.first, start=voice.start, end=voice.end) == voice
        # Each beginning was rounded to a sample by itself.
        off = voice.first - last.first - (voice.start - last.start)
        if same and last.end == voice.start and abs(off) <= 1:
            voices[-1] = replace(last, end=voice.end)
            return
    voices.append(voice)


def mixed(voices: Sequence[Voice], length: int) -> Iterator[Samples]:
    """The film's sound [2, n], -1..1 at 48 kHz, in blocks that are `length` samples together."""
    return _limited(_added(voices, length))


def _added(voices: Sequence[Voice], length: int) -> Iterator[Samples]:
    waiting = sorted(voices, key=lambda voice: voice.start, reverse=True)
    heard: list[tuple[Voice, SoundReader]] = []
    try:
        for begin in range(0, length, _BLOCK):
            end = min(begin + _BLOCK, length)
            while waiting and waiting[-1].start < end:
                voice = waiting.pop()
                heard.append((voice, SoundReader(voice.file, voice.origin, voice.first)))
            block = np.zeros((2, end - begin), dtype=np.float32)
            for voice, reader in heard:
                low, high = max(begin, voice.start), min(end, voice.end)
                taken = reader.take(high - low) * _envelope(voice, low, high)
                block[:, low - begin : high - begin] += taken
                if voice.end <= end:
                    reader.close()
            heard = [(voice, reader) for voice, reader in heard if voice.end > end]
            yield block
    finally:
        for _, reader in heard:
            reader.close()


def _envelope(voice: Voice, low: int, high: int) -> npt.NDArray[np.float32]:
    """How loud a voice is at the film's samples `low` to `high`."""
    gain = np.full(high - low, voice.gain)
    at = np.arange(low, high) + 0.5
    for far, ramp in ((at - voice.opens, voice.rise), (voice.closes - at, voice.fall)):
        near = far < ramp
        gain[near] *= np.sin(far[near] * (np.pi / 2 / max(1, ramp)))
    return gain.astype(np.float32)


def _limited(blocks: Iterator[Samples]) -> Iterator[Samples]:
    """The same sound with no peak above the ceiling.

    The gain that a sample needs is held for a window before and after it (the least over the
    window ahead) and smoothed over the window behind (the mean): a mean of values none of which is
    above what the sample needs is not above it either.
    """
    waiting = np.zeros((2, 0), dtype=np.float32)
    needed = np.zeros(0)
    held = np.ones(_AHEAD - 1)
    for block in blocks:
        peak = np.abs(block).max(axis=0)
        waiting = np.concatenate([waiting, block], axis=1)
        needed = np.concatenate([needed, CEILING / np.maximum(peak, CEILING)])
        if len(needed) >= _AHEAD:
            gain, held = _smoothed(needed, held)
            count = len(gain)
            yield _turned(waiting[:, :count], gain)
            waiting, needed = waiting[:, count:], needed[count:]
    if len(needed):
        gain, _ = _smoothed(np.concatenate([needed, np.ones(_AHEAD - 1)]), held)
        yield _turned(waiting, gain)


def _smoothed(
    needed: npt.NDArray[np.float64], held: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The gain of all samples but those whose window is not known yet, and what is to be held."""
    least, step = needed, 1
    while step < _AHEAD:  # the least over windows of 2, 4, 8, ... samples
        least = np.minimum(least[:-step], least[step:])
        step *= 2
    history = np.concatenate([held, least])
    total = np.concatenate([[0.0], np.cumsum(history)])
    mean = (total[_AHEAD:] - total[:-_AHEAD]) / _AHEAD
    return np.minimum(mean, needed[: len(mean)]), history[len(history) - (_AHEAD - 1) :]


def _turned(samples: Samples, gain: npt.NDArray[np.float64]) -> Samples:
    if gain.min() > 1 - 1e-9:
        return np.ascontiguousarray(samples)
    return np.ascontiguousarray(samples * gain.astype(np.float32))


def _amplitude(decibels: float) -> float:
    return float(10 ** (decibels / 20))
