from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from kinoloom.errors import InvalidMedia, OutputFailed
from kinoloom.film.stitch import Bed, Cut, FilmFormat, Piece, stitch
from kinoloom.film.stitch.source import read_source
from kinoloom.media.reader import last_frame, probe, read_video
from kinoloom.media.settings import read_settings
from unit.film.stitch.conftest import FPS, SIZE, Make, Material, assert_shows, numbered, read_back

FORMATS: list[FilmFormat] = ["mp4", "webm", "prores", "png"]
NTSC = Fraction(24000, 1001)


def packets(path: Path) -> list[bytes]:
    with av.open(str(path)) as container:
        return [bytes(p) for p in container.demux(container.streams.video[0]) if p.size]


def times(path: Path) -> list[Fraction]:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        return sorted(p.pts * p.time_base for p in container.demux(stream) if p.size)


def foreign(path: Path, name: int, count: int, **options: str) -> Material:
    """As another program encodes it."""
    frames = numbered(name, count)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options=options)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return Material(path, frames, FPS, name)


@pytest.mark.parametrize(("kind", "end"), [("mp4", "mp4"), ("webm", "webm")])
def test_equal_pieces_are_joined_without_encoding(
    tmp_path: Path, make: Make, kind: FilmFormat, end: str
) -> None:
    materials = [make(k, 5 + k, format=end) for k in range(4)]
    cut = Cut(tuple(Piece(m.path, len(m.frames)) for m in materials), FPS, SIZE)
    made = stitch(cut, tmp_path / f"film.{end}", format=kind)
    assert (made.copied, made.encoded, made.copied_frames) == (4, 0, cut.frames)
    assert packets(made.path) == [p for m in materials for p in packets(m.path)]
    assert_shows(made.path, cut, materials)


def test_prores_is_joined_without_encoding(tmp_path: Path, make: Make) -> None:
    files = []
    for k in range(2):
        cut = Cut((Piece(make(k, 7).path, 7),), FPS, SIZE)
        files.append(stitch(cut, tmp_path / f"{k}.mov", format="prores").path)
    cut = Cut((Piece(files[0], 7), Piece(files[1], 5, skip=2)), FPS, SIZE)
    made = stitch(cut, tmp_path / "film.mov", format="prores")
    assert (made.copied, made.copied_frames) == (2, 12)
    assert packets(made.path) == [*packets(files[0]), *packets(files[1])[2:]]
    with av.open(str(made.path)) as container:
        assert container.streams.video[0].codec_context.codec_tag == "apch"
        picture = next(container.decode(video=0))
    assert picture.format.name == "yuv422p10le"
    assert (picture.colorspace, picture.color_primaries, picture.color_trc) == (1, 1, 1)


def test_the_shared_frame_appears_once_and_the_rest_is_copied(tmp_path: Path, make: Make) -> None:
    materials = [make(k, 30) for k in range(3)]
    pieces = [Piece(m.path, 29 if k else 30, skip=min(k, 1)) for k, m in enumerate(materials)]
    cut = Cut(tuple(pieces), FPS, SIZE)
    made = stitch(cut, tmp_path / "film.mp4", format="mp4")
    # Of the others, what is behind their second key frame.
    keys = [int(read_source(m.path).firsts[1]) for m in materials]
    assert all(1 < key < 29 for key in keys)
    left = [30 - key for key in keys[1:]]
    assert (made.copied, made.encoded, made.copied_frames) == (1, 2, 30 + sum(left))
    frames = assert_shows(made.path, cut, materials)
    assert read_back(frames) == [(k, i) for k in range(3) for i in range(min(k, 1), 30)]
    assert packets(made.path)[59 - left[0] : 59] == packets(materials[1].path)[keys[1] :]


def test_a_piece_that_begins_at_a_key_frame_is_copied(tmp_path: Path, make: Make) -> None:
    material = make(1, 30)
    cut = Cut((Piece(material.path, 18, skip=12), Piece(material.path, 30)), FPS, SIZE)
    made = stitch(cut, tmp_path / "film.mp4", format="mp4")
    assert made.copied == 2
    assert_shows(made.path, cut, [material, material])


@pytest.mark.parametrize(
    ("kind", "fps"),
    [(kind, FPS) for kind in FORMATS]
    + [("mp4", NTSC), ("mp4", Fraction(25, 2)), ("webm", NTSC), ("prores", Fraction(25, 2))],
)
def test_a_film_of_everything_is_exact(
    tmp_path: Path, make: Make, kind: FilmFormat, fps: Fraction
) -> None:
    materials = [
        make(1, 30, fps=fps),
        make(2, 20, fps=fps, hertz=440),
        make(3, 20, fps=fps, size=(160, 48)),
        make(4, 40, fps=2 * fps, format="webm"),
        make(1, 30, fps=fps),
        make(5, 9, fps=fps, format="png"),
        make(6, 12, fps=fps, size=(48, 64)),
    ]
    pieces = (
        Piece(materials[0].path, 30),
        Piece(materials[1].path, 19, 1, "crossfade", 6),
        Piece(materials[2].path, 18, 2, "fade", 7),
        Piece(materials[3].path, 20, 0, "fade", 1),
        Piece(materials[4].path, 30),
        Piece(materials[5].path, 9, 0, "crossfade", 1),
        Piece(materials[6].path, 12, 0, "crossfade", 4),
    )
    cut = Cut(pieces, fps, SIZE)
    made = stitch(cut, tmp_path / "film", format=kind)
    assert made.frames == cut.frames == sum(p.frames for p in pieces) - 11
    assert made.seconds == pytest.approx(float(cut.frames / fps))
    assert_shows(made.path, cut, materials)
    if kind in ("mp4", "prores"):
        assert times(made.path) == [number / fps for number in range(cut.frames)]
    if kind == "webm":  # whose unit is a thousandth of a second
        off = [abs(a - b / fps) for a, b in zip(times(made.path), range(cut.frames), strict=True)]
        assert max(off) <= Fraction(1, 2000)
    assert len(made.notes) == 3
    wide = materials[2].path.name
    assert made.notes[0] == f"{wide} is 160x48: scaled to cover 64x48, its centre kept."
    assert f"resampled by time to {float(fps):g}" in made.notes[1]


def test_a_fade_is_black_once_and_a_crossfade_is_even(tmp_path: Path, make: Make) -> None:
    cut = Cut(
        (
            Piece(make(255, 8).path, 8),
            Piece(make(255, 9).path, 8, 1, "fade", 8),
            Piece(make(0, 8).path, 8, 0, "crossfade", 3),
        ),
        FPS,
        SIZE,
    )
    made = stitch(cut, tmp_path / "film", format="png")
    frames = read_video(made.path)[0]
    low = frames[:, 40, 4, 0].astype(int)  # a field of `name`
    assert (frames.reshape(len(frames), -1).max(axis=1) == 0).nonzero()[0].tolist() == [7]
    fade = [220, 165, 110, 55, 0, 44, 88, 132, 176, 220]
    assert low[3:13].tolist() == pytest.approx(fade, abs=2)
    assert low[12:18].tolist() == pytest.approx([220, 180, 140, 100, 60, 60], abs=2)


def test_what_a_transition_over_several_pieces_does_not_reach_is_copied(
    tmp_path: Path, make: Make
) -> None:
    """A shot of three files whose last has two frames, a crossfade of five, a shot of two."""
    used = [make(1, 24), make(2, 24), make(3, 2), make(4, 2), make(5, 24)]
    cut = Cut(
        (
            *(Piece(used[0].path, 24), Piece(used[1].path, 24), Piece(used[2].path, 2)),
            *(Piece(used[3].path, 2, 0, "crossfade", 5), Piece(used[4].path, 24)),
        ),
        FPS,
        SIZE,
    )
    made = stitch(cut, tmp_path / "film.mp4", format="mp4")
    assert_shows(made.path, cut, used)
    assert (made.frames, made.copied) == (71, 1)
    ends, firsts = read_source(used[1].path).ends, read_source(used[4].path).firsts
    end = int(ends[ends <= 24 - 3].max())  # three of its frames are in the crossfade
    first = int(firsts[firsts >= 3].min())  # as are three of the fifth file's
    assert made.copied_frames == 24 + end + 24 - first
    assert packets(made.path)[: 24 + end] == packets(used[0].path) + packets(used[1].path)[:end]
    assert packets(made.path)[first - 24 :] == packets(used[4].path)[first:]


def test_the_last_frame_is_the_last_pieces(tmp_path: Path, make: Make) -> None:
    cut = Cut((Piece(make(1, 30).path, 29), Piece(make(2, 30).path, 29)), FPS, SIZE)
    stitch(cut, tmp_path / "film.mp4", format="mp4")
    assert read_back(last_frame(tmp_path / "film.mp4")[None]) == [(2, 28)]


@pytest.mark.parametrize(
    "options",
    [
        {"bf": "3", "g": "8", "x264-params": "b-pyramid=normal"},
        {"bf": "3", "g": "8", "x264-params": "open-gop=1"},
        {"bf": "0", "g": "4"},
    ],
)
def test_what_other_encoders_make_is_copied_or_encoded_but_exact(
    tmp_path: Path, make: Make, options: dict[str, str]
) -> None:
    others = [foreign(tmp_path / f"{k}.mp4", k, 25, **options) for k in (1, 2)]
    whole = Cut(tuple(Piece(m.path, 25) for m in others), FPS, SIZE)
    made = stitch(whole, tmp_path / "film.mp4", format="mp4")
    assert (made.copied, made.encoded) == (2, 0)
    assert packets(made.path) == [p for m in others for p in packets(m.path)]
    assert_shows(made.path, whole, others)
    materials = [others[0], make(3, 20), others[1]]
    cut = Cut(tuple(Piece(m.path, len(m.frames) - 3, skip=2) for m in materials), FPS, SIZE)
    mixed = stitch(cut, tmp_path / "mixed.mp4", format="mp4")
    assert_shows(mixed.path, cut, materials)
    # Only what is of our own encoder's kind stands beside what it encodes.
    assert mixed.copied_frames <= 20


def test_a_cut_within_an_open_group_is_not_copied(tmp_path: Path) -> None:
    """There, frames shown before a key frame come behind it and need what was left out."""
    options = {"bf": "3", "g": "8", "x264-params": "open-gop=1:b-adapt=0:scenecut=0"}
    material = foreign(tmp_path / "a.mp4", 1, 25, **options)
    source = read_source(material.path)
    with av.open(str(material.path)) as container:
        keys = sum(p.is_keyframe for p in container.demux(video=0) if p.size)
    assert len(source.firsts) <= keys
    cut = Cut((Piece(material.path, 12, skip=7), Piece(material.path, 20, skip=2)), FPS, SIZE)
    made = stitch(cut, tmp_path / "film.mp4", format="mp4")
    assert_shows(made.path, cut, [material, material])


def test_a_shared_frame_left_out_at_the_end_costs_next_to_nothing(
    tmp_path: Path, make: Make
) -> None:
    materials = [make(k, 30) for k in range(3)]
    cut = Cut(tuple(Piece(m.path, 29) for m in materials), FPS, SIZE)
    made = stitch(cut, tmp_path / "film.mp4", format="mp4")
    assert made.copied_frames >= cut.frames - 3 * 3  # but what the last frames are built on
    assert_shows(made.path, cut, materials)


def test_frames_hidden_by_an_edit_list_stay_hidden(tmp_path: Path) -> None:
    """As phones and editors cut without encoding: the file begins before what it shows."""
    whole = foreign(tmp_path / "whole.mp4", 1, 20, bf="2", g="20")
    path = tmp_path / "cut.mp4"
    with (
        av.open(str(whole.path)) as read,
        av.open(str(path), "w", container_options={"avoid_negative_ts": "disabled"}) as written,
    ):
        source = read.streams.video[0]
        stream = written.add_stream_from_template(source, opaque=True)
        late = round(5 / FPS / source.time_base)
        for packet in read.demux(source):
            if packet.size:
                packet.pts, packet.dts, packet.stream = packet.pts - late, packet.dts - late, stream
                written.mux(packet)
    assert read_source(path).kind is None
    material = Material(path, whole.frames[5:], FPS, 1)
    cut = Cut((Piece(path, 14), Piece(path, 13, 1)), FPS, SIZE)
    assert_shows(stitch(cut, tmp_path / "film.mp4", format="mp4").path, cut, [material] * 2)


def test_a_picture_turned_by_a_camera_is_upright(tmp_path: Path, make: Make) -> None:
    """Its packets look like the others, but are shown otherwise."""
    upright = make(1, 10)
    data = upright.path.read_bytes()
    # The matrix of the track: from the identity to half a turn (ISO/IEC 14496-12, 8.3.2).
    one, minus, last = b"\0\1\0\0", b"\xff\xff\0\0", b"\x40\0\0\0"
    at = data.index(b"tkhd") + 4 + 40
    matrix = one + bytes(12) + one + bytes(12) + last
    assert data[at : at + 36] == matrix
    path = tmp_path / "turned.mp4"
    path.write_bytes(data[:at] + minus + bytes(12) + minus + bytes(12) + last + data[at + 36 :])
    assert read_source(path).kind is None
    turned = Material(path, upright.frames[:, ::-1, ::-1], FPS, 1)
    cut = Cut((Piece(upright.path, 10), Piece(path, 10)), FPS, SIZE)
    made = stitch(cut, tmp_path / "film.mp4", format="mp4")
    assert (made.copied, made.encoded) == (1, 1)
    assert_shows(made.path, cut, [upright, turned])


def test_irregular_times_are_resampled(tmp_path: Path) -> None:
    frames = numbered(1, 4)
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("libx264", rate=6, options={"bf": "0"})
        stream.width, stream.height = SIZE
        stream.codec_context.time_base = Fraction(1, 60)
        for pts, frame in zip((0, 10, 40, 50), frames, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = pts, Fraction(1, 60)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    cut = Cut((Piece(tmp_path / "a.mp4", 6),), FPS, SIZE)
    made = stitch(cut, tmp_path / "film", format="png")
    assert [n for _, n in read_back(read_video(made.path)[0])] == [0, 1, 1, 1, 2, 3]
    assert made.copied == 0


@pytest.mark.parametrize("kind", FORMATS)
def test_chapters_and_settings_are_in_the_file(
    tmp_path: Path, make: Make, kind: FilmFormat
) -> None:
    titles = ["Anfang", "", "Ende – 終"]
    pieces = tuple(Piece(make(k, 6).path, 6, title=t) for k, t in enumerate(titles))
    made = stitch(
        Cut(pieces, FPS, SIZE), tmp_path / "film", format=kind, settings={"film": "Über", "n": 3}
    )
    assert read_settings(made.path) == {"kinoloom": 1, "film": "Über", "n": 3}
    if kind == "png":
        return
    with av.open(str(made.path)) as container:
        chapters = [
            (c["start"] * c["time_base"], c["end"] * c["time_base"], c["metadata"]["title"])
            for c in container.chapters()
        ]
    assert chapters == [(0, 2, titles[0]), (2, 3, titles[2])]
    assert probe(made.path).frames == 18


def test_every_shot_of_a_long_film_may_be_a_chapter(tmp_path: Path, make: Make) -> None:
    """The older of an mp4's two lists of chapters ends at 255."""
    file = make(1, 5).path
    cut = Cut(tuple(Piece(file, 1, title=f"Shot {k}") for k in range(300)), FPS, SIZE)
    made = stitch(cut, tmp_path / "film.mp4", format="mp4")
    with av.open(str(made.path)) as container:
        titles = [chapter["metadata"]["title"] for chapter in container.chapters()]
    assert titles == [f"Shot {k}" for k in range(300)]
    assert probe(made.path).frames == 300


def test_what_another_program_sends_as_a_stream_is_encoded(tmp_path: Path) -> None:
    with_parameters = foreign(tmp_path / "a.ts", 1, 20)
    cut = Cut((Piece(with_parameters.path, 20), Piece(with_parameters.path, 20)), FPS, SIZE)
    made = stitch(cut, tmp_path / "film.mp4", format="mp4")
    assert made.copied == 0
    assert_shows(made.path, cut, [with_parameters] * 2)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_film_may_be_one_frame(tmp_path: Path, make: Make, kind: FilmFormat) -> None:
    material = make(1, 40)
    cut = Cut((Piece(material.path, 1, skip=39),), FPS, SIZE)
    assert_shows(stitch(cut, tmp_path / "film", format=kind).path, cut, [material])


@pytest.mark.parametrize("kind", ["mp4", "webm", "prores"])
def test_the_file_says_what_its_colours_are(tmp_path: Path, make: Make, kind: FilmFormat) -> None:
    end = "webm" if kind == "webm" else "mp4"
    cut = Cut((Piece(make(1, 5, format=end).path, 5), Piece(make(2, 5).path, 4, 1)), FPS, SIZE)
    made = stitch(cut, tmp_path / "film", format=kind)
    with av.open(str(made.path)) as container:
        assert container.streams.video[0].average_rate == FPS
        picture = next(container.decode(video=0))
    tags = (picture.colorspace, picture.color_primaries, picture.color_trc, picture.color_range)
    assert tags == (1, 1, 1, 1)  # H.273: BT.709 three times; FFmpeg: 1 is limited range


def test_an_mp4_has_its_index_first(tmp_path: Path, make: Make) -> None:
    cut = Cut((Piece(make(1, 5).path, 5),), FPS, SIZE)
    data = stitch(cut, tmp_path / "film.mp4", format="mp4").path.read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize("kind", FORMATS)
def test_progress_counts_every_frame_once(tmp_path: Path, make: Make, kind: FilmFormat) -> None:
    heard: list[int] = []
    pieces = (Piece(make(1, 30).path, 29, 1), Piece(make(2, 30).path, 30, 0, "crossfade", 2))
    cut = Cut(pieces, FPS, SIZE)
    stitch(cut, tmp_path / "film", format=kind, on_frame=heard.append)
    assert heard == list(range(1, cut.frames + 1))


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("when", [1, 30, 58])
def test_stopping_leaves_nothing(tmp_path: Path, make: Make, kind: FilmFormat, when: int) -> None:
    class StopError(Exception):
        pass

    def stop(count: int) -> None:
        if count == when:
            raise StopError

    target = tmp_path / "film"
    pieces = (
        Piece(make(1, 30).path, 29, 1),
        Piece(make(2, 30, hertz=300).path, 30, 0, "crossfade", 1),
    )
    with pytest.raises(StopError):
        stitch(Cut(pieces, FPS, SIZE), target, format=kind, on_frame=stop)
    assert list(tmp_path.iterdir()) == []


def test_check_stops_also_while_packets_are_copied(tmp_path: Path, make: Make) -> None:
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls > 40:
            raise KeyboardInterrupt

    (tmp_path / "film.mp4").write_bytes(b"the old film")
    cut = Cut(tuple(Piece(make(1, 30).path, 30) for _ in range(2)), FPS, SIZE)
    with pytest.raises(KeyboardInterrupt):
        stitch(cut, tmp_path / "film.mp4", format="mp4", check=check)
    assert [p.name for p in tmp_path.iterdir()] == ["film.mp4"]
    assert (tmp_path / "film.mp4").read_bytes() == b"the old film"


def test_what_a_killed_one_left_is_removed_by_the_next_of_the_same_mark(
    tmp_path: Path, make: Make
) -> None:
    (tmp_path / ".kinoloom-job1-abc.parts").mkdir()
    (tmp_path / ".kinoloom-job1-abc.parts" / "0.mp4").write_bytes(b"x")
    (tmp_path / ".kinoloom-job2-abc.parts").mkdir()
    cut = Cut((Piece(make(1, 5).path, 4, 1),), FPS, SIZE)
    stitch(cut, tmp_path / "film.mp4", format="mp4", mark="job1")
    assert sorted(p.name for p in tmp_path.iterdir()) == [".kinoloom-job2-abc.parts", "film.mp4"]


def test_a_piece_that_is_too_short_is_named_before_the_work(tmp_path: Path, make: Make) -> None:
    cut = Cut((Piece(make(1, 5).path, 5), Piece(make(2, 5).path, 5, skip=1)), FPS, SIZE)
    with pytest.raises(InvalidMedia, match="too short") as error:
        stitch(cut, tmp_path / "film.mp4", format="mp4")
    assert error.value.cause == "It has 5 frames at 6 fps; 6 at 6 fps are needed."
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "error"), [(None, "does not exist"), (b"no video", "cannot|not a video|be read")]
)
def test_an_unusable_file_is_named(tmp_path: Path, content: bytes | None, error: str) -> None:
    if content is not None:
        (tmp_path / "a.mp4").write_bytes(content)
    cut = Cut((Piece(tmp_path / "a.mp4", 5),), FPS, SIZE)
    with pytest.raises(InvalidMedia, match=error):
        stitch(cut, tmp_path / "film.mp4", format="mp4")


def test_a_folder_in_the_way_is_named(tmp_path: Path, make: Make) -> None:
    (tmp_path / "film.mp4").mkdir()
    with pytest.raises(OutputFailed):
        stitch(Cut((Piece(make(1, 5).path, 5),), FPS, SIZE), tmp_path / "film.mp4", format="mp4")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux does")
def test_few_files_are_open_whatever_the_number_of_pieces(tmp_path: Path, make: Make) -> None:
    def most_open(count: int) -> int:
        seen: list[int] = []
        pieces = tuple(
            Piece(
                make(k % 5, 6, hertz=200).path,
                6,
                0,
                "crossfade" if k % 3 else "cut",
                2 * (k % 3 > 0),
            )
            for k in range(count)
        )
        stitch(
            Cut(pieces, FPS, SIZE, Bed(make(1, 6, hertz=200).path)),
            tmp_path / "film.mp4",
            format="mp4",
            check=lambda: seen.append(len(list(Path("/proc/self/fd").iterdir()))),
        )
        return max(seen)

    assert most_open(14) == most_open(5)


def test_frames_are_not_collected(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each frame of the film is let go of before the one after the next is made."""
    import gc
    import weakref

    from kinoloom.film.stitch import export

    alive: list[weakref.ref[Any]] = []
    most = 0
    real: Callable[..., Any] = export.film_frames

    def watched(*args: Any) -> Any:
        nonlocal most
        for frame in real(*args):
            copy = np.array(frame)
            alive.append(weakref.ref(copy))
            yield copy
            del copy, frame
            gc.collect(0)
            most = max(most, sum(r() is not None for r in alive))

    monkeypatch.setattr(export, "film_frames", watched)
    cut = Cut((Piece(make(1, 30).path, 29, 1), Piece(make(2, 30).path, 29, 1)), FPS, SIZE)
    stitch(cut, tmp_path / "film", format="png")
    assert len(alive) == 58
    assert most <= 2
