from __future__ import annotations

import json
from pathlib import Path

import pytest

from hand_made import tensors
from kinoloom.errors import ModelBroken
from kinoloom.weights.files import MAX_JSON_BYTES, read_header, read_json

GOOD = tensors({"a": (2, 3), "b": (4,)})


def header(data: object, body: int = 0) -> bytes:
    text = json.dumps(data).encode()
    return len(text).to_bytes(8, "little") + text + b"\0" * body


def test_a_header(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(GOOD)
    assert read_header(file).shapes == {"a": (2, 3), "b": (4,)}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"1234567",
        GOOD[:-1],
        GOOD + b"x",
        GOOD[:20],
        b"\xff" * 64,
        (1 << 40).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"[]",
        (2).to_bytes(8, "little") + b"\xff\xff",
        header({"a": 3}),
        header({"a": {"shape": 3, "data_offsets": [0, 1]}}, 1),
        header({"a": {"shape": [1], "data_offsets": [0]}}),
        header({"a": {"shape": [-1], "data_offsets": [0, 1]}}, 1),
        header({"a": {"shape": ["1"], "data_offsets": [0, 1]}}, 1),
        header({"a": {"shape": [1], "data_offsets": [0, True]}}, 1),
    ],
)
def test_a_damaged_file(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.safetensors"
    file.write_bytes(content)
    with pytest.raises(ModelBroken) as caught:
        read_header(file)
    assert str(file) in caught.value.message
    assert caught.value.hints


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{", b"\xff", b"[" * 100_000, b" " * (MAX_JSON_BYTES + 1)]
)
def test_a_file_that_is_no_mapping(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "a.json"
    file.write_bytes(content)
    with pytest.raises(ModelBroken):
        read_json(file)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    for read in (read_json, read_header):
        with pytest.raises(ModelBroken, match="cannot be used"):
            read(tmp_path / "none")
