from __future__ import annotations

import gc
import os
from pathlib import Path

import pytest
import torch

from kinoloom.backends.local.sharing import Shared, identity


class Loader:
    """Makes a module anew at each call, and counts them."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> torch.nn.Module:
        self.calls += 1
        return torch.nn.Linear(2, 2)


@pytest.fixture
def load() -> Loader:
    return Loader()


def in_cache(hub: Path, repo: str, blobs: dict[str, str], component: str = "vae") -> Path:
    """A component of a repository as Hugging Face's cache lays it out: links to named blobs."""
    root = hub / f"models--{repo}"
    folder = root / "snapshots" / "0123" / component
    folder.mkdir(parents=True)
    (root / "blobs").mkdir()
    for name, blob in blobs.items():
        (root / "blobs" / blob).write_text(blob)
        (folder / name).symlink_to(root / "blobs" / blob)
    return folder


def test_the_same_folder_is_loaded_once(tmp_path: Path, load: Loader) -> None:
    (tmp_path / "config.json").write_text("{}")
    shared = Shared()
    first = shared.module(tmp_path, torch.float32, load)
    assert shared.module(tmp_path, torch.float32, load) is first
    assert load.calls == 1


def test_another_dtype_is_another_module(tmp_path: Path, load: Loader) -> None:
    shared = Shared()
    first = shared.module(tmp_path, torch.float32, load)
    assert shared.module(tmp_path, torch.bfloat16, load) is not first


def test_equal_blobs_of_two_repositories_are_one_module(tmp_path: Path, load: Loader) -> None:
    blobs = {"config.json": "aaa", "model.safetensors": "bbb"}
    one, two = in_cache(tmp_path, "a--b", blobs), in_cache(tmp_path, "c--d", blobs, "vae_2")
    other = in_cache(tmp_path, "e--f", blobs | {"model.safetensors": "ccc"})
    renamed = in_cache(tmp_path, "g--h", {"config.json": "aaa", "weights.safetensors": "bbb"})
    assert identity(one) == identity(two)
    assert len({identity(folder) for folder in (one, other, renamed)}) == 3
    shared = Shared()
    first = shared.module(one, torch.float32, load)
    assert shared.module(two, torch.float32, load) is first
    assert shared.module(other, torch.float32, load) is not first
    assert load.calls == 2


def test_a_copy_elsewhere_is_its_own(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text("{}")
    assert identity(tmp_path / "a") != identity(tmp_path / "b")
    assert identity(tmp_path / "a" / "config.json") != identity(tmp_path / "b" / "config.json")


def test_a_changed_file_is_another_module(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"1")
    before = identity(tmp_path)
    os.utime(file, ns=(0, 0))
    touched = identity(tmp_path)
    file.write_bytes(b"22")
    os.utime(file, ns=(0, 0))
    assert len({before, touched, identity(tmp_path)}) == 3
    (tmp_path / "README.md").write_text("words")
    (tmp_path / "empty").mkdir()
    assert identity(tmp_path) not in (before, touched)
    os.utime(file, ns=(0, 0))
    file.write_bytes(b"1")
    os.utime(file, ns=(0, 0))
    assert identity(tmp_path) == touched, "texts and empty folders do not count"


def test_what_no_pipeline_holds_is_freed(tmp_path: Path, load: Loader) -> None:
    shared = Shared()
    held = shared.module(tmp_path, torch.float32, load)
    del held
    gc.collect()
    shared.module(tmp_path, torch.float32, load)
    assert load.calls == 2


def test_what_is_no_module_is_not_kept(tmp_path: Path) -> None:
    """A tokenizer or a processor is small, and some cannot be referred to weakly."""
    shared = Shared()
    first = shared.module(tmp_path, torch.float32, dict)
    assert shared.module(tmp_path, torch.float32, dict) is not first
