from __future__ import annotations

import io
from pathlib import Path

import pytest

from kinoloom import prompts as module
from kinoloom.errors import InvalidMedia
from kinoloom.prompts import read_prompts


def test_a_prompt_a_line(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("a red ball\r\n\n  ein grüner Stern  \n# a remark\n  # another\n".encode())
    assert read_prompts(file) == ["a red ball", "ein grüner Stern"]


def test_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("one\ntwo"))
    assert read_prompts(Path("-")) == ["one", "two"]


@pytest.mark.parametrize("content", [b"", b"\n\n", b"# only a remark\n"])
def test_a_file_without_a_prompt(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes(content)
    with pytest.raises(InvalidMedia, match="no list of prompts") as caught:
        read_prompts(file)
    assert "no line with a prompt" in caught.value.cause


def test_what_cannot_be_read(tmp_path: Path) -> None:
    binary = tmp_path / "clip.mp4"
    binary.write_bytes(b"\x00\xff\xfe")
    for file, cause in (
        (binary, "UTF-8"),
        (tmp_path / "none.txt", "No such file"),
        (tmp_path, "directory"),
    ):
        with pytest.raises(InvalidMedia, match="cannot be read") as caught:
            read_prompts(file)
        assert cause in caught.value.cause
        assert caught.value.hints


def test_a_file_that_is_too_large_for_a_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_BYTES", 20)
    file = tmp_path / "prompts.txt"
    file.write_text("a ball\n" * 2)
    assert len(read_prompts(file)) == 2
    file.write_text("a ball\n" * 3)
    with pytest.raises(InvalidMedia, match="no list of prompts") as caught:
        read_prompts(file)
    assert "over 20 bytes" in caught.value.cause
