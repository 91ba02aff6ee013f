from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from kinoloom.errors import OutputFailed
from kinoloom.media import output
from kinoloom.media.output import check_writable, disk_errors, whole_file, whole_folder


def test_missing_parents_are_created_and_nothing_else_stays(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b" / "clip.mp4", 1000)
    assert list((tmp_path / "a" / "b").iterdir()) == []


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "clip.mp4").mkdir()
    with pytest.raises(OutputFailed) as caught:
        check_writable(tmp_path / "clip.mp4")
    assert "folder" in caught.value.cause
    assert caught.value.hints
    check_writable(tmp_path / "clip.mp4", folder=True)


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    for path, folder in ((tmp_path / "taken" / "clip.mp4", False), (tmp_path / "taken", True)):
        with pytest.raises(OutputFailed) as caught:
            check_writable(path, folder=folder)
        assert "file" in caught.value.cause


def test_more_bytes_than_any_disk_has(tmp_path: Path) -> None:
    with pytest.raises(OutputFailed) as caught:
        check_writable(tmp_path / "clip.mp4", 10**18)
    assert "MB are needed" in caught.value.cause


@pytest.mark.parametrize("name", ["x" * 300 + ".mp4", "a\0b.mp4"])
def test_impossible_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(OutputFailed):
        check_writable(tmp_path / name)


def test_no_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    root = os.geteuid() == 0
    if root:  # who may write everywhere
        os.seteuid(65534)
    try:
        with pytest.raises(OutputFailed) as caught:
            check_writable(tmp_path / "clip.mp4")
    finally:
        if root:
            os.seteuid(0)
        tmp_path.chmod(0o700)
    assert "may not write" in caught.value.cause


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EFBIG])
def test_errors_of_the_disk_come_with_a_cause_and_hints(number: int) -> None:
    with pytest.raises(OutputFailed) as caught, disk_errors(Path("clip.mp4")):
        raise OSError(number, os.strerror(number))
    assert caught.value.cause != os.strerror(number)
    assert caught.value.hints


def test_an_unknown_error_keeps_its_own_words() -> None:
    with pytest.raises(OutputFailed) as caught, disk_errors(Path("clip.mp4")):
        raise OSError(errno.ENOTTY, "not a typewriter")
    assert caught.value.cause == "not a typewriter"


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_file_appears_whole_or_not_at_all(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "clip.mp4"
    path.write_text("old")

    def fail_half_way() -> None:
        with whole_file(path) as part:
            part.write_text("half")
            raise error

    with pytest.raises(error):
        fail_half_way()
    assert [p.name for p in tmp_path.iterdir()] == ["clip.mp4"]
    assert path.read_text() == "old"
    with whole_file(path) as part:
        part.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_what_a_kill_left_goes_with_the_next_write_of_the_same_mark(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    with whole_file(path, mark="job") as part:
        part.write_text("new")
        left = tmp_path / part.name.replace("job-", "job-killed-")
    left.write_text("half")
    others = tmp_path / left.name.replace("job-", "other-")
    others.write_text("half")
    with whole_file(path, mark="job") as part:
        part.write_text("newer")
    assert sorted(tmp_path.iterdir()) == sorted([path, others])
    assert path.read_text() == "newer"


def test_a_longest_possible_name_still_works(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    with whole_file(path) as part:
        part.write_text("new")
    assert path.read_text() == "new"


def test_a_folder_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "frames"

    def fail_half_way() -> None:
        with whole_folder(path, lambda _: True) as part:
            (part / "a").write_text("half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail_half_way()
    assert list(tmp_path.iterdir()) == []
    for text in ("first", "second"):
        with whole_folder(path, lambda _: True) as part:
            (part / text).write_text(text)
        assert [p.name for p in path.iterdir()] == [text]
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]


def test_a_folder_of_the_users_own_is_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "photos"
    path.mkdir()
    (path / "holiday.jpg").write_text("precious")
    with pytest.raises(OutputFailed), whole_folder(path, lambda _: False):
        pass
    assert (path / "holiday.jpg").read_text() == "precious"


def test_the_old_folder_comes_back_when_the_swap_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "frames"
    with whole_folder(path, lambda _: True) as part:
        (part / "old").write_text("old")
    rename = Path.rename

    def fail(self: Path, target: Path) -> Path:
        if target == path and "back" not in done:
            done.append("back")
            raise OSError(errno.EIO, "broken")
        return rename(self, target)

    done: list[str] = []
    monkeypatch.setattr(output.Path, "rename", fail)
    with pytest.raises(OutputFailed), whole_folder(path, lambda _: True) as part:
        (part / "new").write_text("new")
    assert [p.name for p in path.iterdir()] == ["old"]
    assert [p.name for p in tmp_path.iterdir()] == ["frames"]
