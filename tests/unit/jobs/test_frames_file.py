from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from kinoloom.backends.base import Audio
from kinoloom.errors import InvalidMedia, OutputFailed
from kinoloom.jobs.frames_file import load_audio, load_frames, save_audio, save_frames


def test_frames_come_back_without_being_read_into_memory(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (3, 4, 5, 3), dtype=np.uint8)
    save_frames(tmp_path / "take.npy", frames)
    found = load_frames(tmp_path / "take.npy")
    assert np.array_equal(found, frames)
    assert isinstance(found, np.memmap)
    assert not found.flags.writeable
    assert [file.name for file in tmp_path.iterdir()] == ["take.npy"]


def test_sound_comes_back_with_its_rate(tmp_path: Path) -> None:
    samples = np.linspace(-1, 1, 20, dtype=np.float32).reshape(2, 10)
    save_audio(tmp_path / "take.npz", Audio(samples, 48_000))
    found = load_audio(tmp_path / "take.npz")
    assert np.array_equal(found.samples, samples)
    assert found.rate == 48_000
    assert [file.name for file in tmp_path.iterdir()] == ["take.npz"]


@pytest.mark.parametrize("content", [None, b"", b"nothing", b"\x93NUMPY\x01\x00"])
def test_what_is_damaged_is_told(tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "take"
    if content is not None:
        file.write_bytes(content)
    for load in (load_frames, load_audio):
        with pytest.raises(InvalidMedia, match="cannot be read"):
            load(file)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 5, 3), np.uint8),
        np.zeros((2, 4, 5, 4), np.uint8),
        np.zeros((2, 4, 5, 3), np.float32),
    ],
)
def test_what_are_no_frames_is_told(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "take.npy", array)
    with pytest.raises(InvalidMedia, match="cannot be read"):
        load_frames(tmp_path / "take.npy")


def test_objects_are_never_unpickled(tmp_path: Path) -> None:
    np.save(tmp_path / "take.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "take.npz", samples=np.array([{}], dtype=object), rate=1)
    with pytest.raises(InvalidMedia):
        load_frames(tmp_path / "take.npy")
    with pytest.raises(InvalidMedia):
        load_audio(tmp_path / "take.npz")


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputFailed):
        save_frames(tmp_path / "file" / "take.npy", np.zeros((1, 2, 2, 3), np.uint8))
