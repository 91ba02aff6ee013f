from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from kinoloom.catalog.card import Schedule, Source
from kinoloom.catalog.loader import Catalog
from kinoloom.planner import key as key_module
from kinoloom.planner.inputs import ImageInput, Inputs
from kinoloom.planner.key import plan_key, weights_identity

SPARK = Catalog.load().get("spark")


def picture(name: str, digest: str) -> Inputs:
    return Inputs(image=ImageInput(path=Path(name), width=1, height=1, digest=digest))


def key(**changes: Any) -> str:
    values: dict[str, Any] = {
        "card": SPARK,
        "task": "t2v",
        "prompt": "a red ball",
        "negative": "",
        "size": (256, 160),
        "frames": 25,
        "context_frames": 0,
        "fps": 12.0,
        "steps": 20,
        "guidance": 3.0,
        "seed": 7,
        "inputs": Inputs(),
    }
    values |= changes
    return plan_key(values.pop("card"), **values)


def test_the_same_again_has_the_same_key() -> None:
    assert key() == key()
    assert len(key()) == 64
    assert key(fps=12) == key(fps=12.0), "a whole number is no other rate"


def test_whatever_decides_the_frames_changes_the_key() -> None:
    changes: list[dict[str, Any]] = [
        {"task": "i2v"},
        {"prompt": "a blue ball"},
        {"negative": "blur"},
        {"size": (160, 256)},
        {"frames": 33},
        {"context_frames": 9},
        {"fps": 24.0},
        {"steps": 21},
        {"guidance": 3.5},
        {"seed": 8},
        {"inputs": picture("a.png", "sha256:1")},
        {"inputs": picture("a.png", "sha256:2")},
        {"card": SPARK.model_copy(update={"id": "spark2"})},
        {"card": SPARK.model_copy(update={"adapter": "wan"})},
        {"card": SPARK.model_copy(update={"schedule": Schedule(kind="shifted", shift=3)})},
        {"card": SPARK.model_copy(update={"source": Source(repo="a/b")})},
        {"card": SPARK.model_copy(update={"source": Source(repo="a/b", revision="1")})},
    ]
    keys = [key(), *(key(**change) for change in changes)]
    assert len(set(keys)) == len(keys)


def test_the_place_of_a_picture_is_part_of_the_key() -> None:
    one = ImageInput(path=Path("a"), width=1, height=1, digest="sha256:1")
    two = ImageInput(path=Path("b"), width=1, height=1, digest="sha256:2")
    forward = key(task="flf2v", inputs=Inputs(image=one, last_image=two))
    assert forward != key(task="flf2v", inputs=Inputs(image=two, last_image=one))


def test_what_only_describes_does_not_change_the_key() -> None:
    described = SPARK.model_copy(
        update={"title": "X", "notes": ["y"], "timing": None, "vocabulary": None}
    )
    assert key(card=described) == key()
    same = key(inputs=picture("a.png", "sha256:1"))
    assert key(inputs=picture("elsewhere/b.png", "sha256:1")) == same


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    (folder / "vae").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "vae" / "model.safetensors").write_bytes(bytes(1000))
    return folder


def test_retrained_weights_are_other_weights(weights: Path) -> None:
    before = weights_identity(Source(path=weights))
    assert before == weights_identity(Source(path=weights))
    file = weights / "vae" / "model.safetensors"
    stat = file.stat()
    file.write_bytes(bytes(999) + b"\x01")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    assert before != weights_identity(Source(path=weights))


def test_a_large_file_is_known_by_its_slices(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_module, "_WHOLE", 100)
    monkeypatch.setattr(key_module, "_SLICE", 10)
    seen = {weights_identity(Source(path=weights))}
    file = weights / "vae" / "model.safetensors"
    for i, content in enumerate((b"\x01" + bytes(999), bytes(999) + b"\x01", bytes(1001)), 1):
        file.write_bytes(content)
        os.utime(file, ns=(i * 10**9, i * 10**9))
        seen.add(weights_identity(Source(path=weights)))
    assert len(seen) == 4


def test_a_renamed_or_another_file_counts_but_a_text_for_readers_does_not(weights: Path) -> None:
    before = weights_identity(Source(path=weights))
    (weights / "README.md").write_text("words")
    assert weights_identity(Source(path=weights)) == before
    (weights / "model_index.json").rename(weights / "other.json")
    assert weights_identity(Source(path=weights)) != before


def test_weights_that_are_not_there_or_not_here(tmp_path: Path) -> None:
    assert weights_identity(Source(path=tmp_path / "none")).startswith("missing:")
    assert weights_identity(Source(repo="a/b")) == "a/b@latest"
    assert weights_identity(Source(repo="a/b", revision="c0ffee")) == "a/b@c0ffee"
