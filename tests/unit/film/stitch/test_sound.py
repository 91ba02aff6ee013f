from __future__ import annotations

import math
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from kinoloom.errors import InvalidMedia
from kinoloom.film.stitch import Bed, Cut, Piece, TransitionKind, stitch
from kinoloom.film.stitch.cut import SAMPLE_RATE
from kinoloom.film.stitch.mix import CEILING, mixed, voices_of
from kinoloom.film.stitch.sound import SoundReader, sound_length
from kinoloom.film.stitch.source import read_source
from kinoloom.media.audio import AudioTrack
from kinoloom.media.sound import read_sound
from kinoloom.media.writer import write_video
from unit.film.stitch.conftest import FPS, SIZE, Make, numbered

NTSC = Fraction(24000, 1001)


def wav(path: Path, samples: np.ndarray, rate: int = SAMPLE_RATE, codec: str = "pcm_f32le") -> Path:
    """Sound [channels, n] as a file."""
    layout = "mono" if len(samples) == 1 else "stereo"
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        data = np.ascontiguousarray(samples, dtype=np.float32)
        frame = av.AudioFrame.from_ndarray(data, format="fltp", layout=layout)
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def tone(hertz: float, count: int, level: float = 0.5, rate: int = SAMPLE_RATE) -> np.ndarray:
    return (level * np.sin(2 * np.pi * hertz * np.arange(count) / rate)).astype(np.float32)


def mix_of(cut: Cut) -> np.ndarray:
    voices = voices_of(cut, [read_source(piece.video) for piece in cut.pieces])
    return np.concatenate(list(mixed(voices, cut.sample(cut.frames))), axis=1)


def strength(samples: np.ndarray, hertz: float) -> float:
    """The amplitude of a tone in [n] samples."""
    at = np.arange(len(samples)) / SAMPLE_RATE
    return float(2 * abs(np.mean(samples * np.exp(-2j * np.pi * hertz * at))))


def clicks_at(samples: np.ndarray) -> list[int]:
    """Where clicks are: the loudest sample of each run of loud ones."""
    loud = np.flatnonzero(np.abs(samples) > 0.2)
    runs = np.split(loud, np.flatnonzero(np.diff(loud) > 1000) + 1)
    return [int(run[np.abs(samples[run]).argmax()]) for run in runs if len(run)]


@pytest.fixture(scope="module")
def clicking(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Pieces of 3, 5, 7 and 11 frames at 24000/1001 fps, each with a click 480 samples in."""
    folder = tmp_path_factory.mktemp("clicks")
    files = {}
    for count in (3, 5, 7, 11):
        sound = np.zeros((1, math.ceil(count * 2002)), np.float32)
        sound[0, 480:484] = 0.8
        files[count] = folder / f"{count}.mp4"
        track = AudioTrack(sound, SAMPLE_RATE)
        write_video(files[count], numbered(count, count), NTSC, format="mp4", audio=track)
    return files


@pytest.mark.parametrize(("kind", "within"), [("mp4", 8), ("webm", 8), ("prores", 8)])
def test_nothing_drifts_over_a_hundred_pieces(
    tmp_path: Path, clicking: dict[int, Path], kind: str, within: int
) -> None:
    counts = [(3, 5, 7, 11)[k % 4] for k in range(100)]
    cut = Cut(tuple(Piece(clicking[n], n) for n in counts), NTSC, SIZE)
    made = stitch(cut, tmp_path / "film", format=kind)  # type: ignore[arg-type]
    track = read_sound(made.path)
    assert track is not None
    found = clicks_at(track.samples[0])
    wanted = [cut.sample(start) + 480 for start in cut.starts]
    assert len(found) == 100
    off = np.array(found) - wanted
    assert np.abs(off).max() <= within
    # Where it is at the end, it is at the beginning: no drift at all.
    assert abs(off[-10:].mean() - off[:10].mean()) < 4
    assert made.seconds == float(650 / NTSC)
    assert 0 <= track.samples.shape[1] - cut.sample(cut.frames) <= (0 if kind == "prores" else 1024)


def test_rates_without_whole_samples_do_not_drift_either(tmp_path: Path, make: Make) -> None:
    """At 30000/1001 a frame has 1601.6 samples: rounded for each piece, 100 would be 40 off."""
    fps = Fraction(30000, 1001)
    click = np.zeros((1, 2000), np.float32)
    click[0, 0] = 0.8
    file = wav(tmp_path / "click.wav", click)
    video = make(1, 2, fps=fps).path
    cut = Cut(tuple(Piece(video, 1, audio=file) for _ in range(100)), fps, SIZE)
    assert clicks_at(mix_of(cut)[1]) == [round(k * 1601.6) for k in range(100)]


def test_a_pieces_own_sound_is_cut_with_its_pictures(tmp_path: Path, make: Make) -> None:
    sound = np.concatenate([tone(300, 24_000), tone(900, 24_000)])[None]
    path = tmp_path / "a.mp4"
    write_video(path, numbered(1, 6), FPS, format="mp4", audio=AudioTrack(sound, SAMPLE_RATE))
    cut = Cut((Piece(path, 3, skip=3), Piece(path, 3)), FPS, SIZE)
    left = mix_of(cut)[0]
    assert strength(left[2000:22_000], 900) == pytest.approx(0.5, abs=0.03)
    assert strength(left[2000:22_000], 300) < 0.01
    assert strength(left[26_000:46_000], 300) == pytest.approx(0.5, abs=0.03)
    assert strength(left[26_000:46_000], 900) < 0.01


def test_priming_of_aac_is_left_out(tmp_path: Path) -> None:
    """The encoder puts 1024 samples of its own in front; a film must not begin with them."""
    sound = np.zeros((2, 48_000), np.float32)
    sound[:, 5000] = 0.9
    path = tmp_path / "a.mp4"
    write_video(path, numbered(1, 6), FPS, format="mp4", audio=AudioTrack(sound, SAMPLE_RATE))
    left = mix_of(Cut((Piece(path, 6),), FPS, SIZE))[0]
    assert abs(int(np.abs(left).argmax()) - 5000) <= 2


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.wav", "pcm_s16le", 48_000),
        ("a.wav", "pcm_s16le", 22_050),
        ("a.flac", "flac", 44_100),
        ("a.ogg", "libopus", 48_000),
        ("a.m4a", "aac", 44_100),
    ],
)
def test_given_sound_starts_at_its_offset(
    tmp_path: Path, make: Make, name: str, codec: str, rate: int
) -> None:
    samples = np.concatenate([tone(400, rate, 0.5, rate), tone(1500, rate, 0.5, rate)])[None]
    file = wav(tmp_path / name, samples, rate, codec)
    assert sound_length(file) == pytest.approx(96_000, abs=2100)
    cut = Cut(
        (Piece(make(1, 12).path, 12, audio=file, audio_offset=0.75, gain_db=-6.0206),), FPS, SIZE
    )
    left, right = mix_of(cut)
    assert np.allclose(left, right)  # mono is heard on both sides, as loud as it is
    assert strength(left[1000:11_000], 400) == pytest.approx(0.25, abs=0.02)
    assert strength(left[13_000:59_000], 1500) == pytest.approx(0.25, abs=0.02)
    assert strength(left[13_000:59_000], 400) < 0.01
    assert np.abs(left[62_000:]).max() < 1e-3  # the file has ended


def test_a_crossfade_of_sound_keeps_its_power(tmp_path: Path, make: Make) -> None:
    a = wav(tmp_path / "a.wav", tone(1000, 96_000)[None])
    b = wav(tmp_path / "b.wav", tone(3000, 96_000)[None])
    video = make(1, 12).path
    pieces = (
        Piece(video, 12, audio=a),
        Piece(video, 12, 0, "crossfade", 6, audio=b),
    )
    left = mix_of(Cut(pieces, FPS, SIZE))[0]
    for middle in range(50_000, 94_000, 4000):
        x = (middle - 48_000) / 48_000
        part = left[middle - 960 : middle + 960]
        assert strength(part, 1000) == pytest.approx(0.5 * math.cos(x * math.pi / 2), abs=0.02)
        assert strength(part, 3000) == pytest.approx(0.5 * math.sin(x * math.pi / 2), abs=0.02)
        assert np.mean(part**2) == pytest.approx(0.125, rel=0.05)


def test_sound_fades_with_the_picture_and_silence_stays_silent(tmp_path: Path, make: Make) -> None:
    a = wav(tmp_path / "a.wav", tone(1000, 96_000)[None])
    video = make(1, 12).path
    pieces = (
        Piece(video, 12, audio=a),
        Piece(video, 6, 0, "fade", 6, audio=a),
        Piece(video, 6),
        Piece(make(2, 6, hertz=500).path, 6, keep_sound=False),
    )
    left = mix_of(Cut(pieces, FPS, SIZE))[0]
    black = 96_000
    assert strength(left[60_000:70_000], 1000) == pytest.approx(0.5, abs=0.01)
    assert np.abs(left[black - 50 : black + 50]).max() < 0.01
    assert strength(left[black + 24_000 : black + 48_000], 1000) == pytest.approx(0.5, abs=0.01)
    assert not left[144_000:].any()


def test_sound_fades_over_several_short_pieces_as_over_one(tmp_path: Path, make: Make) -> None:
    """The same sounds, in pieces of one, two and nine frames or whole."""
    a = wav(tmp_path / "a.wav", tone(1000, 96_000)[None])
    b = wav(tmp_path / "b.wav", tone(3000, 96_000)[None])
    video = make(1, 12).path

    def piece(frames: int, at: int, sound: Path, kind: TransitionKind = "cut", n: int = 0) -> Piece:
        return Piece(video, frames, at, kind, n, audio=sound, audio_offset=at / 6)

    whole = (piece(12, 0, a), piece(12, 0, b, "crossfade", 6), piece(12, 0, a, "fade", 5))
    parts = (
        *(piece(9, 0, a), piece(2, 9, a), piece(1, 11, a)),
        *(piece(1, 0, b, "crossfade", 6), piece(2, 1, b), piece(8, 3, b), piece(1, 11, b)),
        *(piece(1, 0, a, "fade", 5), piece(1, 1, a), piece(10, 2, a)),
    )
    one, many = Cut(whole, FPS, SIZE), Cut(parts, FPS, SIZE)
    assert one.frames == many.frames == 30
    assert np.abs(mix_of(one)).max() > 0.4
    assert np.abs(mix_of(one) - mix_of(many)).max() < 1e-6


def test_a_long_sound_under_many_pieces_is_decoded_once(tmp_path: Path, make: Make) -> None:
    fps = Fraction(30000, 1001)  # where a frame has no whole number of samples
    file = wav(tmp_path / "a.wav", tone(300, 400_000)[None])
    video = make(1, 7, fps=fps).path
    starts = range(0, 210, 7)
    pieces = [Piece(video, 7, audio=file, audio_offset=float(0.5 + n / fps)) for n in starts]
    cut = Cut((*pieces, Piece(video, 7, audio=file)), fps, SIZE)
    voices = voices_of(cut, [read_source(video)] * 31)
    assert [(v.first, v.start, v.end) for v in voices] == [
        (24_000, 0, cut.sample(210)),
        (0, cut.sample(210), cut.sample(217)),
    ]


def test_the_bed_lies_under_the_whole_film_and_fades(tmp_path: Path, make: Make) -> None:
    file = wav(tmp_path / "bed.wav", np.stack([tone(500, 480_000, 0.4), tone(700, 480_000, 0.4)]))
    video = make(1, 12).path
    cut = Cut(tuple(Piece(video, 12) for _ in range(3)), FPS, SIZE, Bed(file, -6.0206, 1.0))
    left, right = mix_of(cut)
    assert left.shape == (6 * 48_000,)
    assert strength(left[48_000:240_000], 500) == pytest.approx(0.2, abs=0.002)
    assert strength(right[48_000:240_000], 700) == pytest.approx(0.2, abs=0.002)
    half = 0.2 * math.sin(math.pi / 4)
    assert strength(left[23_520:24_480], 500) == pytest.approx(half, abs=0.01)
    assert strength(left[-24_480:-23_520], 500) == pytest.approx(half, abs=0.01)
    assert np.abs(left[-20:]).max() < 0.001
    short = Cut(cut.pieces, FPS, SIZE, Bed(wav(tmp_path / "s.wav", tone(500, 96_000)[None]), 0, 1))
    left = mix_of(short)[0]
    assert not left[96_000:].any()
    assert np.abs(left[95_980:96_000]).max() < 0.001


def test_what_is_too_loud_together_is_turned_down_and_not_clipped(
    tmp_path: Path, make: Make
) -> None:
    quiet, loud = tone(440, 96_000, 0.3), tone(440, 96_000, 0.9)
    file = wav(tmp_path / "a.wav", np.concatenate([quiet, loud, quiet])[None])
    bed = wav(tmp_path / "b.wav", np.concatenate([quiet, loud, quiet])[None])
    cut = Cut((Piece(make(1, 36).path, 36, audio=file),), FPS, SIZE, Bed(bed, 0, 0))
    left = mix_of(cut)[0]
    assert np.abs(left).max() <= CEILING + 1e-6
    assert strength(left[10_000:80_000], 440) == pytest.approx(0.6, abs=0.001)  # as it was
    middle = left[110_000:180_000]
    assert strength(middle, 440) == pytest.approx(CEILING, abs=0.02)
    harmonics = [strength(middle, 440 * k) for k in (3, 5, 7)]
    assert max(harmonics) < 0.01  # a clipped sine has a third of 10 % and more


def test_a_film_of_silent_pieces_has_no_sound(tmp_path: Path, make: Make) -> None:
    made = stitch(Cut((Piece(make(1, 5).path, 5),), FPS, SIZE), tmp_path / "a.mp4", format="mp4")
    assert read_sound(made.path) is None
    assert made.sound is None


def test_png_has_its_sound_beside_it(tmp_path: Path, make: Make) -> None:
    cut = Cut((Piece(make(1, 9, hertz=500).path, 8, skip=1),), FPS, SIZE)
    made = stitch(cut, tmp_path / "film", format="png")
    assert made.sound == tmp_path / "film.wav"
    with SoundFile(made.sound) as left:
        assert len(left) == 64_000
        assert strength(left, 500) == pytest.approx(0.5, abs=0.03)


class SoundFile:
    """The left channel of a file, however it is made."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> np.ndarray:
        with av.open(str(self._path)) as container:
            frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
        return np.concatenate(frames, axis=1)[0, ::2] / 2**31

    def __exit__(self, *_: object) -> None:
        pass


def test_taking_is_the_same_in_any_steps(tmp_path: Path) -> None:
    file = wav(tmp_path / "a.flac", tone(333, 30_000)[None], 32_000, "flac")
    whole = SoundReader(file, None, 100).take(50_000)
    reader = SoundReader(file, None, 100)
    steps = [reader.take(n) for n in (1, 999, 20_000, 1, 28_999)]
    assert np.array_equal(np.concatenate(steps, axis=1), whole)
    early = SoundReader(file, None, -500).take(1000)
    assert not early[:, :500].any()
    assert np.array_equal(early[:, 600:], whole[:, :400])


@pytest.mark.parametrize("content", [b"", b"not sound", None])
def test_an_unusable_sound_is_named(tmp_path: Path, make: Make, content: bytes | None) -> None:
    file = tmp_path / "bed.mp3"
    if content is not None:
        file.write_bytes(content)
    cut = Cut((Piece(make(1, 5).path, 5),), FPS, SIZE, Bed(file))
    with pytest.raises(InvalidMedia, match=r"bed\.mp3"):
        stitch(cut, tmp_path / "film.mp4", format="mp4")


def test_a_video_without_sound_is_no_bed(tmp_path: Path, make: Make) -> None:
    video = make(1, 5).path
    with pytest.raises(InvalidMedia, match="no sound"):
        stitch(Cut((Piece(video, 5, audio=video),), FPS, SIZE), tmp_path / "a.mp4", format="mp4")
