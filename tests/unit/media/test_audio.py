from __future__ import annotations

import itertools
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from kinoloom.errors import InvalidMedia, OutputFailed
from kinoloom.media.audio import AudioTrack
from kinoloom.media.reader import last_frame, probe, read_frames, read_video
from kinoloom.media.settings import read_settings
from kinoloom.media.writer import write_video

Clip = np.ndarray
KINDS = ["mp4", "webm"]


def tone(seconds: float, rate: int, hertz: tuple[float, ...] = (440.0,)) -> AudioTrack:
    """A sine wave in each channel."""
    t = np.arange(round(seconds * rate)) / rate
    waves = [0.5 * np.sin(2 * np.pi * pitch * t) for pitch in hertz]
    return AudioTrack(np.stack(waves).astype(np.float32), rate)


def click(seconds: float, rate: int, at: float) -> AudioTrack:
    samples = np.zeros((1, round(seconds * rate)), np.float32)
    samples[0, round(at * rate) : round((at + 0.01) * rate)] = 0.9
    return AudioTrack(samples, rate)


def heard(path: Path) -> tuple[np.ndarray, int, float]:
    """The sound [channels, n] as a player gets it, its rate, and when it starts in seconds."""
    with av.open(str(path)) as container:
        frames = list(container.decode(audio=0))
    start = float(frames[0].pts * frames[0].time_base)
    return np.concatenate([f.to_ndarray() for f in frames], axis=1), frames[0].sample_rate, start


def pitch(wave: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(np.argmax(spectrum) * rate / len(wave))


@pytest.mark.parametrize(
    ("kind", "rate", "codec", "stored"),
    [
        ("mp4", 24_000, "aac", 24_000),
        ("mp4", 44_100, "aac", 44_100),
        ("mp4", 22_255, "aac", 48_000),
        ("webm", 24_000, "opus", 48_000),
        ("webm", 48_000, "opus", 48_000),
    ],
)
def test_a_tone_comes_back_as_itself(
    tmp_path: Path, clip: Clip, kind: str, rate: int, codec: str, stored: int
) -> None:
    write_video(tmp_path / "a", clip, 12, format=kind, audio=tone(2, rate, (440, 1000)))
    with av.open(str(tmp_path / "a")) as container:
        stream = container.streams.audio[0]
        assert (stream.codec_context.name, stream.layout.name) == (codec, "stereo")
    wave, found, start = heard(tmp_path / "a")
    assert found == stored
    assert start == pytest.approx(0, abs=0.001)
    assert pitch(wave[0], found) == pytest.approx(440, abs=1)
    assert pitch(wave[1], found) == pytest.approx(1000, abs=1)
    middle = wave[:, found // 2 : found]
    assert np.sqrt((middle**2).mean()) == pytest.approx(0.5 / np.sqrt(2), rel=0.05)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("given", "fps"), [(0.0, 24), (0.3, 29.97), (1.001, 24), (5.0, 7)])
def test_the_sound_is_as_long_as_the_pictures(
    tmp_path: Path, clip: Clip, kind: str, given: float, fps: float
) -> None:
    path = tmp_path / "a"
    write_video(path, clip, fps, format=kind, audio=tone(given, 44_100))
    wave, rate, _ = heard(path)
    info = probe(path)
    assert (info.has_audio, info.frames) == (True, 24)
    assert info.fps == pytest.approx(fps, rel=1e-4)
    seconds = wave.shape[1] / rate
    assert 0 <= seconds - info.duration + 1 / rate < 1024 / rate + 1 / rate
    if kind == "mp4":  # a webm does not say how long each stream is
        with av.open(str(path)) as container:
            stream = container.streams.audio[0]
            assert float(stream.duration * stream.time_base) == pytest.approx(
                info.duration, abs=0.002
            )
    # What comes after the given sound is silence.
    silent = wave[:, round((given + 0.1) * rate) :]
    assert silent.size == 0 or np.abs(silent).max() < 0.01


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_a_click_is_heard_when_it_is_seen(
    tmp_path: Path, make_clip: Callable[[int, int, int], Clip], kind: str, rate: int
) -> None:
    """A flash and a click at 0.5 s, and both once more near the end of ten seconds."""
    frames = np.repeat(make_clip(1, 32, 32), 240, axis=0) // 4
    samples = np.zeros((1, 10 * rate), np.float32)
    for at in (0.5, 9.5):
        frames[round(at * 24)] = 255
        samples += click(10, rate, at).samples
    write_video(tmp_path / "a", frames, 24, format=kind, audio=AudioTrack(samples, rate))
    wave, found, start = heard(tmp_path / "a")
    loud = np.flatnonzero(np.abs(wave[0]) > 0.3) / found + start
    assert loud.min() == pytest.approx(0.5, abs=0.01)
    assert loud[loud > 5].min() == pytest.approx(9.5, abs=0.01)
    seen = [i for i, frame in enumerate(read_frames(tmp_path / "a")) if frame.mean() > 200]
    assert seen == [12, 228]


def test_mono_stays_mono_and_too_loud_is_clipped(tmp_path: Path, clip: Clip) -> None:
    loud = AudioTrack(tone(1, 48_000, (100,)).samples * 40, 48_000)
    write_video(tmp_path / "a.mp4", clip, 24, format="mp4", audio=loud)
    wave, rate, _ = heard(tmp_path / "a.mp4")
    assert wave.shape[0] == 1
    assert np.abs(wave).max() < 1.3  # AAC itself overshoots at the edges of the clipped wave
    assert pitch(wave[0], rate) == pytest.approx(100, abs=2)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("fps", "count"), [(24, 40), (0.05, 5)])
def test_sound_lies_beside_its_pictures(
    tmp_path: Path, make_clip: Callable[[int, int, int], Clip], kind: str, fps: float, count: int
) -> None:
    """In the order of the file no packet comes noticeably before one that is needed earlier."""
    path = tmp_path / "a"
    frames = make_clip(count, 32, 32)
    write_video(path, frames, fps, format=kind, audio=tone(count / fps, 8_000))
    with av.open(str(path)) as container:
        packets = [p for p in container.demux() if p.dts is not None]
    packets.sort(key=lambda packet: packet.pos or 0)
    times = [float(packet.dts * packet.time_base) for packet in packets]
    assert len(times) > 50
    assert max(before - after for before, after in itertools.pairwise(times)) < 0.1


@pytest.mark.parametrize("kind", KINDS)
def test_late_settings_and_the_index_are_as_without_sound(
    tmp_path: Path, clip: Clip, kind: str
) -> None:
    path = tmp_path / f"a.{kind}"
    write_video(path, clip, 24, format=kind, settings=lambda: {"seed": 7}, audio=tone(1, 24_000))
    assert read_settings(path)["seed"] == 7
    wave, rate, _ = heard(path)
    assert pitch(wave[0], rate) == pytest.approx(440, abs=2)
    frames, _ = read_video(path)
    np.testing.assert_array_equal(last_frame(path), frames[-1])
    if kind == "mp4":
        data = path.read_bytes()
        assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("kind", KINDS)
def test_sound_leaves_the_pictures_as_they_are(tmp_path: Path, clip: Clip, kind: str) -> None:
    write_video(tmp_path / "a", clip, 24, format=kind)
    write_video(tmp_path / "b", clip, 24, format=kind, audio=tone(1, 24_000))
    np.testing.assert_array_equal(read_video(tmp_path / "a")[0], read_video(tmp_path / "b")[0])
    assert not probe(tmp_path / "a").has_audio


@pytest.mark.parametrize("kind", ["gif", "png"])
def test_what_cannot_hold_sound_leaves_it_out(tmp_path: Path, clip: Clip, kind: str) -> None:
    write_video(tmp_path / "a", clip[:2], 24, format=kind, audio=tone(1, 24_000))
    assert not probe(tmp_path / "a").has_audio


@pytest.mark.parametrize(
    ("samples", "rate", "words"),
    [
        (np.array([[0.0, np.nan]], np.float32), 48_000, "finite"),
        (np.array([[0.0, np.inf]], np.float32), 48_000, "finite"),
        (np.zeros(48_000, np.float32), 48_000, "1 or 2 channels"),
        (np.zeros((6, 100), np.float32), 48_000, "1 or 2 channels"),
        (np.zeros((2, 100), np.int16), 48_000, "float32"),
        (np.zeros((2, 100), np.float32), 0, "8000"),
        (np.zeros((2, 100), np.float32), 10**6, "192000"),
    ],
)
def test_sound_that_is_none_is_refused(
    tmp_path: Path, clip: Clip, samples: np.ndarray, rate: int, words: str
) -> None:
    with pytest.raises(InvalidMedia) as caught:
        write_video(tmp_path / "a", clip, 24, format="mp4", audio=AudioTrack(samples, rate))
    assert words in caught.value.cause
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("late", [True, False])
@pytest.mark.skipif(sys.platform == "win32", reason="the limit is POSIX's")
def test_a_disk_that_takes_no_more(tmp_path: Path, kind: str, late: bool) -> None:
    """Noise, so that the sound alone would fill what the operating system allows."""
    import resource

    rng = np.random.default_rng(0)
    noise = AudioTrack(rng.uniform(-1, 1, (2, 48_000 * 4)).astype(np.float32), 48_000)
    frames = np.zeros((96, 16, 16, 3), np.uint8)
    settings: Any = (lambda: {"seed": 1}) if late else {"seed": 1}
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        with pytest.raises(OutputFailed) as caught:
            write_video(tmp_path / "a", frames, 24, format=kind, settings=settings, audio=noise)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert "largest size" in caught.value.cause
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_an_interruption_leaves_nothing(tmp_path: Path, clip: Clip, kind: str) -> None:
    def stop(count: int) -> None:
        if count == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_video(tmp_path / "a", clip, 24, format=kind, audio=tone(1, 24_000), on_frame=stop)
    assert list(tmp_path.iterdir()) == []


def test_the_ntsc_rate_does_not_drift(
    tmp_path: Path, make_clip: Callable[[int, int, int], Clip]
) -> None:
    """Each frame is 1601.6 samples: rounding each one would be 2.5 ms off at the end."""
    frames = np.repeat(make_clip(1, 16, 16), 300, axis=0)
    write_video(
        tmp_path / "a.mp4", frames, Fraction(30_000, 1001), format="mp4", audio=tone(11, 48_000)
    )
    with av.open(str(tmp_path / "a.mp4")) as container:
        stream = container.streams.audio[0]
        assert stream.duration * stream.time_base == pytest.approx(300 * 1001 / 30_000, abs=1e-4)
