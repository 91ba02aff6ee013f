from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from kinoloom.errors import OutputFailed
from kinoloom.jobs.clip import Made
from kinoloom.jobs.progress import Event
from kinoloom.media.settings import read_settings
from kinoloom.planner.plan import Plan
from kinoloom.store.store import Store

pytestmark = pytest.mark.usefixtures("one_thread")

MakePlan = Callable[..., Plan]
Run = Callable[..., Made]


def reused(store: Store) -> int:
    return store.statistics.totals().get("clips.reused", 0)


def test_the_very_same_clip_is_not_rendered_again(
    run: Run, make_plan: MakePlan, store: Store, out: Path
) -> None:
    first = run(make_plan())
    events: list[Event] = []
    again = run(make_plan(), events.append)
    assert not first.reused
    assert again.reused
    assert again.record == first.record
    assert events == []
    assert list(out.iterdir()) == [first.record.path]
    assert len(store.clips.list()) == 1
    assert len(store.measurements.recent("cpu x1", "tiny")) == 1
    assert reused(store) == 1


@pytest.mark.parametrize(
    "change",
    [{"seed": 8}, {"steps": 3}, {"prompt": "blue"}, {"format": "gif"}, {"cache": "bypass"}],
    ids=lambda c: next(iter(c)),
)
def test_whatever_is_asked_otherwise_is_rendered(
    run: Run, make_plan: MakePlan, store: Store, change: dict[str, object]
) -> None:
    first = run(make_plan())
    other = run(make_plan(**change))
    assert not other.reused
    assert other.record.path != first.record.path
    assert len(store.clips.list()) == 2


def test_a_folder_of_frames_is_always_rendered(run: Run, make_plan: MakePlan) -> None:
    run(make_plan(format="png"))
    assert not run(make_plan(format="png")).reused


def test_of_two_formats_the_one_that_is_asked_for_is_found(run: Run, make_plan: MakePlan) -> None:
    mp4, gif = run(make_plan()).record, run(make_plan(format="gif")).record
    assert run(make_plan()).record == mp4
    assert run(make_plan(format="gif")).record == gif


def test_a_clip_whose_file_is_gone_is_rendered_anew(run: Run, make_plan: MakePlan) -> None:
    first = run(make_plan()).record
    first.path.unlink()
    again = run(make_plan())
    assert not again.reused
    assert again.record.path.is_file()
    assert again.record.id != first.id


def test_a_file_that_is_something_else_by_now_is_not_taken_for_it(
    run: Run, make_plan: MakePlan
) -> None:
    first, other = run(make_plan()).record, run(make_plan(seed=8)).record
    shutil.copyfile(other.path, first.path)
    assert not run(make_plan()).reused
    run(make_plan()).record.path.write_bytes(b"no video")
    assert not run(make_plan()).reused


def test_an_older_file_is_found_when_the_newer_one_is_gone(run: Run, make_plan: MakePlan) -> None:
    old = run(make_plan()).record
    new = run(make_plan(cache="bypass")).record
    assert run(make_plan()).record == new
    new.path.unlink()
    assert run(make_plan()).record == old


def test_with_an_output_of_ones_own_the_clip_is_copied_there(
    run: Run, make_plan: MakePlan, tmp_path: Path
) -> None:
    first = run(make_plan()).record
    wanted = tmp_path / "mine.mp4"
    made = run(make_plan(output=wanted))
    assert made.reused
    assert made.record.path == wanted
    assert wanted.read_bytes() == first.path.read_bytes()
    settings = read_settings(wanted)
    assert settings is not None
    assert settings["clip"] == first.id == made.record.id
    assert run(make_plan(output=first.path)).record == first


def test_into_a_folder_the_clip_is_copied_under_its_name(
    run: Run, make_plan: MakePlan, tmp_path: Path
) -> None:
    first = run(make_plan()).record
    folder = tmp_path / "takes"
    folder.mkdir()
    made = run(make_plan(output=folder))
    assert made.reused
    assert made.record.path == folder / first.path.name
    assert made.record.path.read_bytes() == first.path.read_bytes()


def test_a_copy_never_takes_the_place_of_another_file_in_a_folder(
    run: Run, make_plan: MakePlan, tmp_path: Path
) -> None:
    first = run(make_plan()).record
    folder = tmp_path / "takes"
    folder.mkdir()
    (folder / first.path.name).write_bytes(b"mine")
    made = run(make_plan(output=folder))
    assert (folder / first.path.name).read_bytes() == b"mine"
    assert made.record.path.read_bytes() == first.path.read_bytes()


def test_a_copy_that_cannot_be_written_is_told(
    run: Run, make_plan: MakePlan, tmp_path: Path
) -> None:
    run(make_plan())
    (tmp_path / "file").touch()
    with pytest.raises(OutputFailed):
        run(make_plan(output=tmp_path / "file" / "clip.mp4"))


def test_a_clip_that_is_its_folders_own_is_found_there(
    run: Run, make_plan: MakePlan, out: Path
) -> None:
    first = run(make_plan()).record
    made = run(make_plan(output=out))
    assert made.reused
    assert made.record == first
    assert list(out.iterdir()) == [first.path]
