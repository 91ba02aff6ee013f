from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kinoloom.backends.local.backend import LocalBackend
from kinoloom.catalog.card import ModelCard
from kinoloom.errors import InsufficientMemory, ModelBroken, OutputFailed
from kinoloom.jobs import steps as module
from kinoloom.jobs.media import read_inputs
from kinoloom.jobs.planning import measurements_of
from kinoloom.jobs.progress import HERE, Event
from kinoloom.jobs.takes import take_of
from kinoloom.media.reader import probe, read_video
from kinoloom.media.settings import read_settings
from kinoloom.media.writer import write_video
from kinoloom.planner.inputs import file_digest
from kinoloom.planner.plan import Plan
from kinoloom.store.clips import ClipRecord
from kinoloom.store.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

MakePlan = Callable[..., Plan]
Make = Callable[..., ClipRecord]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    file = tmp_path / "picture.png"
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(file)
    return file


def left(out: Path) -> list[Path]:
    return list(out.rglob("*")) if out.exists() else []


@pytest.mark.parametrize("format_", ["mp4", "webm", "gif", "png"])
def test_a_clip_is_a_file_and_a_record(
    make: Make, make_plan: MakePlan, store: Store, out: Path, format_: str
) -> None:
    plan = make_plan(format=format_)
    record = make(plan)
    suffix = "" if format_ == "png" else f".{format_}"
    assert record.path == out / f"a-red-ball-rolling-7{suffix}"
    assert list(out.iterdir()) == [record.path]
    frames, fps = read_video(record.path)
    assert frames.shape == (9, 64, 64, 3)
    assert fps == pytest.approx(12, rel=0.05)  # a GIF counts in hundredths of a second
    assert store.clips.get(record.id) == record
    assert record.plan_key == plan.key
    assert (record.task, record.model, record.seed, record.format) == ("t2v", "tiny", 7, format_)
    assert 0 <= record.scores["overall"] <= 1
    assert {"load", "encode", "denoise", "step", "decode", "total"} == set(record.timings)
    assert {"kinoloom", "python", "torch", "diffusers", "dtype"} <= set(record.versions)


def test_a_png_sequence_holds_the_very_frames_that_were_rendered(
    make: Make, make_plan: MakePlan, backend: LocalBackend, tiny_card: ModelCard
) -> None:
    plan = make_plan(format="png")
    record = make(plan)
    rendered = backend.render(take_of(plan), tiny_card, read_inputs(plan), lambda _: None)
    assert np.array_equal(read_video(record.path)[0], rendered.frames)


def test_the_file_says_how_it_was_made(make: Make, make_plan: MakePlan) -> None:
    plan = make_plan(negative="blue", guidance=3.0)
    record = make(plan)
    settings = read_settings(record.path)
    assert settings is not None
    assert settings["clip"] == record.id
    assert Plan.model_validate(settings["plan"]) == plan
    assert settings["scores"] == record.scores
    assert settings["versions"] == record.versions


def test_the_poster_is_kept(make: Make, make_plan: MakePlan, store: Store) -> None:
    record = make(make_plan())
    assert record.poster is not None
    with Image.open(store.assets.path(record.poster)) as image:
        assert image.size == (64, 64)


def test_all_phases_are_told_in_order(make: Make, make_plan: MakePlan) -> None:
    events: list[Event] = []
    make(make_plan(), events.append)
    order = [HERE.index(e.phase) for e in events]
    assert order == sorted(order)
    assert {event.phase for event in events} == set(HERE)
    assert [e.step for e in events if e.phase == "write"] == list(range(10))
    elapsed = [e.elapsed for e in events]
    assert elapsed == sorted(elapsed)


def test_a_render_teaches_the_next_estimate(make: Make, make_plan: MakePlan, store: Store) -> None:
    def estimate_of(**values: object) -> str:
        return make_plan(lambda m, d: measurements_of(store, m, d), **values).estimate.source

    assert estimate_of() == "card"
    record = make(make_plan())
    [known] = store.measurements.recent("cpu x1", "tiny")
    assert (known.width, known.height, known.frames, known.steps) == (64, 64, 9, 2)
    assert known.guided
    total = known.load_seconds + known.overhead_seconds + known.steps * known.seconds_per_step
    # Scoring and writing are not part of it.
    assert 0 < total <= record.timings["total"]
    assert estimate_of() == "measured"
    assert estimate_of(frames=17) == "interpolated"


def test_pictures_are_kept_and_given_to_the_model(
    make: Make, make_plan: MakePlan, store: Store, picture: Path
) -> None:
    plan = make_plan(image=picture, last_image=picture, format="png")
    record = make(plan)
    digest = file_digest(picture)
    assert record.inputs == {"image": digest, "last_image": digest}
    assert store.assets.path(digest).read_bytes() == picture.read_bytes()
    other = make(make_plan(format="png"))
    assert not np.array_equal(read_video(record.path)[0], read_video(other.path)[0])


def test_a_video_is_continued_from_its_last_frames(
    make: Make, make_plan: MakePlan, tmp_path: Path
) -> None:
    file = tmp_path / "long"
    frames = np.stack([np.full((64, 64, 3), 10 * i, np.uint8) for i in range(20)])
    write_video(file, frames, 12, format="png")
    plan = make_plan(prompt="", video=file)
    assert plan.context_frames == 9
    given = read_inputs(plan).video
    assert given is not None
    assert given[:, 0, 0, 0].tolist() == [10 * i for i in range(11, 20)]
    record = make(plan)
    assert record.frames == 17
    assert record.inputs == {}  # a folder of frames stays where it is


def test_pictures_are_fitted_to_the_clip(make_plan: MakePlan, tmp_path: Path) -> None:
    file = tmp_path / "wide.png"
    Image.new("RGB", (300, 100), (255, 0, 0)).save(file)
    image = read_inputs(make_plan(image=file, size=(64, 64))).image
    assert image is not None
    assert image.shape == (64, 64, 3)
    assert (image == (255, 0, 0)).all()


@pytest.mark.parametrize("phase", HERE)
def test_stopped_in_any_phase_nothing_is_left(
    make: Make, make_plan: MakePlan, store: Store, out: Path, phase: str
) -> None:
    class Stop(Exception):
        pass

    def stop(event: Event) -> None:
        if event.phase == phase and event.step in (0, 2, 5):
            raise Stop

    for format_ in ("mp4", "png"):
        with pytest.raises(Stop):
            make(make_plan(format=format_), stop)
        assert left(out) == []
    assert store.clips.list() == []
    assert store.measurements.recent("cpu x1", "tiny") == ()


@pytest.mark.parametrize("step", ["render", "score", "write"])
def test_what_fails_leaves_no_file_and_no_record(
    make: Make,
    make_plan: MakePlan,
    store: Store,
    out: Path,
    backend: LocalBackend,
    monkeypatch: pytest.MonkeyPatch,
    step: str,
) -> None:
    error: Exception = {
        "render": InsufficientMemory("full"),
        "score": ModelBroken("odd"),
        "write": OutputFailed("full"),
    }[step]

    def fail(*_: object, **__: object) -> None:
        raise error

    place = {"render": backend, "score": module, "write": module}[step]
    name = {"render": "render", "score": "score", "write": "write_video"}[step]
    monkeypatch.setattr(place, name, fail)
    with pytest.raises(type(error)):
        make(make_plan())
    assert left(out) == []
    assert store.clips.list() == []


def test_an_input_may_vanish_once_it_was_read(
    make: Make, make_plan: MakePlan, store: Store, picture: Path
) -> None:
    def lose(event: Event) -> None:
        if event.phase == "decode":
            picture.unlink()

    digest = file_digest(picture)
    record = make(make_plan(image=picture), lose)
    assert record.inputs == {"image": digest}
    assert store.assets.path(digest).is_file()


def test_a_place_that_cannot_be_written_is_found_before_rendering(
    make: Make, make_plan: MakePlan, tmp_path: Path
) -> None:
    events: list[Event] = []
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "clip.mp4", tmp_path / ("x" * 300)):
        with pytest.raises(OutputFailed):
            make(make_plan(output=output), events.append)
    assert events == []


def test_an_existing_file_stays_whole_until_the_new_one_is(
    make: Make, make_plan: MakePlan, tmp_path: Path
) -> None:
    wanted = tmp_path / "mine.mp4"
    wanted.write_bytes(b"old")

    def stop(event: Event) -> None:
        if event.phase == "write" and event.step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make(make_plan(output=wanted), stop)
    assert wanted.read_bytes() == b"old"
    make(make_plan(output=wanted))
    assert probe(wanted).frames == 9
