from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import listing
from kinoloom.config import Settings
from kinoloom.store.store import Store


def _check(settings: Settings) -> None:
    listing.fill(settings, 7)
    with Store.of(settings) as store:
        clips, jobs = store.clips.list(100), store.jobs.list(limit=100)
        assert len(clips) == len({clip.id for clip in clips}) == 7
        assert len(jobs) == len({job.id for job in jobs}) == 7
        assert len(store.events.after(0)) == 7
        assert {clip.poster for clip in clips} == {clips[-1].poster}
        assert clips[0].plan == clips[-1].plan
        assert jobs[0].plan == jobs[-1].plan
        assert len(store.clips.list(100, search="number 5")) == 1
        assert len(store.jobs.list(limit=100, search="ball")) == 7


def test_rows_are_copied_whole(tmp_path: Path) -> None:
    _check(Settings(home=tmp_path, device="cpu"))


def test_rows_are_copied_whole_on_postgres(tmp_path: Path, current_postgres: str) -> None:
    _check(Settings(home=tmp_path, device="cpu", database_url=current_postgres))  # type: ignore[arg-type]


def test_both_sides_do_the_same_work_in_turn() -> None:
    done: list[str] = []

    def work(name: str) -> listing.Work:
        return lambda: done.append(name) or 5

    few, many = {"list": work("few")}, {"list": work("many")}
    assert set(listing.compare(few, many, 3)) == {"list"}
    assert done == ["few", "many"] * 4


def test_a_page_that_is_not_full_is_no_figure(capsys: pytest.CaptureFixture[str]) -> None:
    full = listing.Side({"list": lambda: listing.PAGE}, {})
    short = listing.Side({"list": lambda: listing.PAGE - 1}, {})
    with pytest.raises(SystemExit, match="list is not a page"):
        listing.show("SQLite", full, short)
    assert not capsys.readouterr().out
