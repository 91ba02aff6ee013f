from __future__ import annotations

import shutil
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import opentimelineio as otio
import pytest

from kinoloom.errors import InvalidMedia
from kinoloom.film.stitch import Bed, Cut, Piece
from kinoloom.film.timeline import write_timeline
from kinoloom.media.audio import AudioTrack
from kinoloom.media.writer import write_video

FPS = Fraction(24000, 1001)
Timeline = otio.schema.Timeline


@pytest.fixture
def shots(tmp_path: Path) -> list[Path]:
    """Three files of 40 frames, the second with sound, in a folder whose name needs quoting."""
    folder = tmp_path / "my shots"
    folder.mkdir()
    frames = np.zeros((40, 48, 64, 3), np.uint8)
    sound = AudioTrack(np.zeros((2, 80_080), np.float32), 48_000)
    files = [folder / f"{k} #ü.mp4" for k in range(3)]
    for k, file in enumerate(files):
        write_video(file, frames, FPS, format="mp4", audio=sound if k == 1 else None)
    return files


def cut_of(shots: list[Path]) -> Cut:
    return Cut(
        (
            Piece(shots[0], 40, title="Opening"),
            Piece(shots[1], 39, 1, "crossfade", 7, gain_db=-3),
            Piece(shots[2], 38, 2, "fade", 9, title="End", audio=shots[1], audio_offset=0.5),
        ),
        FPS,
        (64, 48),
        Bed(shots[1], -12, 0.5),
    )


def read(path: Path) -> Timeline:
    timeline = otio.adapters.read_from_file(str(path))
    assert isinstance(timeline, Timeline)
    return timeline


def test_another_reader_finds_the_film(tmp_path: Path, shots: list[Path]) -> None:
    cut = cut_of(shots)
    about = [
        {"id": f"shot-00{k}", "prompt": f"prömpt {k}", "model": "spark", "seed": 2**63 - 1 - k}
        for k in range(3)
    ]
    target = tmp_path / "film.otio"
    write_timeline(cut, target, title="My film", about=about, metadata={"mode": "chaining"})
    timeline = read(target)
    assert timeline.name == "My film"
    assert timeline.metadata["kinoloom"]["mode"] == "chaining"
    pictures = timeline.video_tracks()[0]
    rate = float(FPS)
    assert pictures.duration() == otio.opentime.RationalTime(cut.frames, rate)
    clips = list(pictures.find_clips())
    assert [clip.name for clip in clips] == ["shot-000", "shot-001", "shot-002"]
    assert [dict(clip.metadata["kinoloom"]) for clip in clips] == about
    ranges = [(c.source_range.start_time.value, c.source_range.duration.value) for c in clips]
    # Seven shared frames: the clips meet behind the third of them.
    assert ranges == [(0, 36), (1 + 3, 36), (2, 38)]
    starts = [clip.range_in_parent().start_time.value for clip in clips]
    assert starts == [0, 36, 72]
    assert [m.name for clip in clips for m in clip.markers] == ["Opening", "End"]


def test_media_are_the_shots_relative_to_the_file(tmp_path: Path, shots: list[Path]) -> None:
    write_timeline(cut_of(shots), tmp_path / "film.otio")
    clips = list(read(tmp_path / "film.otio").video_tracks()[0].find_clips())
    urls = [clip.media_reference.target_url for clip in clips]
    assert [tmp_path / unquote(url) for url in urls] == shots
    assert urls[0] == "my%20shots/0%20%23%C3%BC.mp4"
    for clip in clips:
        available = clip.media_reference.available_range
        assert (available.start_time.value, available.duration.value) == (0, 40)
        taken = clip.source_range
        assert 0 <= taken.start_time.value <= taken.end_time_inclusive().value < 40
    (tmp_path / "elsewhere").mkdir()
    shutil.move(tmp_path / "my shots", tmp_path / "elsewhere")
    shutil.move(tmp_path / "film.otio", tmp_path / "elsewhere")
    moved = read(tmp_path / "elsewhere" / "film.otio").find_clips()
    assert all(
        (tmp_path / "elsewhere" / unquote(c.media_reference.target_url)).exists() for c in moved
    )


def test_transitions_have_their_lengths(tmp_path: Path, shots: list[Path]) -> None:
    write_timeline(cut_of(shots), tmp_path / "film.otio")
    track = read(tmp_path / "film.otio").video_tracks()[0]
    cross, fade = (item for item in track if isinstance(item, otio.schema.Transition))
    assert cross.transition_type == otio.schema.TransitionTypes.SMPTE_Dissolve
    assert (cross.in_offset.value, cross.out_offset.value) == (3, 4)
    assert cross.range_in_parent().start_time.value == 33  # where the film's crossfade begins
    assert (fade.name, fade.in_offset.value, fade.out_offset.value) == ("fade through black", 4, 5)
    # Frames on both sides are there for a dissolve.
    before, after = list(track.find_clips())[:2]
    assert before.source_range.end_time_exclusive().value + 4 <= 40
    assert after.source_range.start_time.value - 3 >= 0


def test_sound_lies_under_its_pictures(tmp_path: Path, shots: list[Path]) -> None:
    write_timeline(cut_of(shots), tmp_path / "film.otio")
    timeline = read(tmp_path / "film.otio")
    sound, bed = timeline.audio_tracks()
    assert sound.duration() == timeline.video_tracks()[0].duration()
    assert isinstance(sound[0], otio.schema.Gap)
    own, given = sound.find_clips()
    assert own.range_in_parent().start_time.value == 36
    assert own.source_range.start_time.value == 4
    assert own.metadata["kinoloom"]["gain_db"] == -3
    assert unquote(given.media_reference.target_url).endswith("1 #ü.mp4")
    assert given.source_range.start_time.value == 12
    clip = next(iter(bed.find_clips()))
    assert dict(clip.metadata["kinoloom"]) == {"gain_db": -12.0, "fade": 0.5}
    assert clip.source_range.duration.value == pytest.approx(41, abs=1)


def test_a_transition_over_several_pieces_has_them_as_one_clip(
    tmp_path: Path, shots: list[Path]
) -> None:
    pieces = (
        *(Piece(shots[0], 40, title="One"), Piece(shots[0], 30), Piece(shots[1], 2)),
        *(Piece(shots[2], 3, 1, "crossfade", 8, title="Two"), Piece(shots[1], 20)),
        *(Piece(shots[2], 5, title="Three"), Piece(shots[0], 9, 0, "fade", 6)),
    )
    cut = Cut(pieces, FPS, (64, 48))
    about = [{"id": name} for name in "abcdefg"]
    write_timeline(cut, tmp_path / "film.otio", about=about)
    timeline = read(tmp_path / "film.otio")
    pictures, sound = timeline.tracks
    assert pictures.duration().value == sound.duration().value == cut.frames
    one, both, cross, begin, three, fade, last = pictures
    assert [item.name for item in (one, both, begin, three, last)] == ["a", "b", "d", "f", "g"]
    assert [clip.name for clip in both] == ["b", "c"]
    assert [clip.name for clip in begin] == ["d", "e"]
    # What is not seen of them, for the other stands there, is as long as the transition reaches.
    assert (cross.in_offset.value, cross.out_offset.value) == (4, 4)
    assert (fade.in_offset.value, fade.out_offset.value) == (3, 3)
    ranges = [
        (i.source_range.start_time.value, i.source_range.duration.value) for i in pictures[:2]
    ]
    assert ranges == [(0, 40), (0, 28)]
    assert (begin.source_range.start_time.value, begin.source_range.duration.value) == (4, 19)
    assert both.available_range().duration.value == 32
    assert begin.available_range().duration.value == 23
    # A chapter stands at the first frame that is seen.
    marks = [
        (m.name, m.marked_range.start_time.value) for i in (one, begin, three) for m in i.markers
    ]
    assert marks == [("One", 0), ("Two", 4), ("Three", 0)]
    # The sound is divided as the pictures are, with gaps where a file has none.
    assert [type(item).__name__ for item in sound] == [
        *("Gap", "Track", "Transition", "Track", "Gap", "Gap"),
    ]
    assert [type(item).__name__ for item in sound[1]] == ["Gap", "Clip"]
    assert sound[1].source_range == both.source_range
    assert sound[3].source_range == begin.source_range


def test_a_silent_film_has_no_sound_tracks(tmp_path: Path, shots: list[Path]) -> None:
    write_timeline(Cut((Piece(shots[0], 40),), FPS, (64, 48)), tmp_path / "film.otio")
    timeline = read(tmp_path / "film.otio")
    assert list(timeline.audio_tracks()) == []
    assert [clip.name for clip in timeline.find_clips()] == ["0 #ü"]


def test_a_missing_file_is_named_and_nothing_written(tmp_path: Path, shots: list[Path]) -> None:
    shots[2].unlink()
    with pytest.raises(InvalidMedia, match="does not exist"):
        write_timeline(cut_of(shots), tmp_path / "film.otio")
    assert not (tmp_path / "film.otio").exists()
