from __future__ import annotations

import os
from pathlib import Path

import pytest

from kinoloom.catalog.source import Part, Source
from kinoloom.planner import weights as module
from kinoloom.planner.weights import file_identity, weights_identity
from kinoloom.weights.places import Located

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    folder = tmp_path / "weights"
    (folder / "vae").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    (folder / "vae" / "model.safetensors").write_bytes(bytes(1000))
    return folder


def snapshot(hub: Path, repo: str, commit: str = COMMIT) -> Path:
    """A snapshot as Hugging Face's cache lays it out."""
    folder = hub / f"models--{repo.replace('/', '--')}" / "snapshots" / commit
    folder.mkdir(parents=True)
    return folder


def main(source: Source, located: Located | None = None) -> str:
    found = weights_identity(source, located)
    assert set(found) == {""}
    return found[""]


def test_retrained_weights_are_other_weights(weights: Path) -> None:
    before = main(Source(path=weights))
    assert before == main(Source(path=weights))
    file = weights / "vae" / "model.safetensors"
    stat = file.stat()
    file.write_bytes(bytes(999) + b"\x01")
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000_000))
    assert before != main(Source(path=weights))


def test_a_large_file_is_known_by_its_slices(
    weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WHOLE", 100)
    monkeypatch.setattr(module, "_SLICE", 10)
    seen = {main(Source(path=weights))}
    file = weights / "vae" / "model.safetensors"
    for i, content in enumerate((b"\x01" + bytes(999), bytes(999) + b"\x01", bytes(1001)), 1):
        file.write_bytes(content)
        os.utime(file, ns=(i * 10**9, i * 10**9))
        seen.add(main(Source(path=weights)))
    assert len(seen) == 4


def test_a_renamed_or_another_file_counts_but_a_text_for_readers_does_not(weights: Path) -> None:
    before = main(Source(path=weights))
    (weights / "README.md").write_text("words")
    assert main(Source(path=weights)) == before
    (weights / "model_index.json").rename(weights / "other.json")
    assert main(Source(path=weights)) != before


def test_a_single_file_counts_by_its_content(tmp_path: Path) -> None:
    file, other = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    file.write_bytes(b"1")
    other.write_bytes(b"1")
    assert main(Source(file=file)) == main(Source(file=other)) == file_identity(file)
    other.write_bytes(b"22")
    assert main(Source(file=file)) != main(Source(file=other))


def test_weights_that_are_not_there_or_not_here(tmp_path: Path) -> None:
    assert main(Source(path=tmp_path / "none")).startswith("missing:")
    assert main(Source(file=tmp_path / "none")).startswith("missing:")
    assert main(Source(repo="a/b")) == "a/b@latest"
    assert main(Source(repo="a/b", revision="c0ffee")) == "a/b@c0ffee"


def test_a_repository_counts_by_the_commit_that_is_on_this_disk(
    tmp_path: Path, weights: Path
) -> None:
    located = Located(folder=snapshot(tmp_path, "a/b"))
    assert main(Source(repo="a/b"), located) == f"a/b@{COMMIT}"
    assert main(Source(repo="a/b", revision="main"), located) == f"a/b@{COMMIT}"
    newer = Located(folder=snapshot(tmp_path, "a/b", COMMIT[::-1]))
    assert main(Source(repo="a/b"), newer) == f"a/b@{COMMIT[::-1]}"
    # A copy elsewhere has no commit: what the card asks for is all that is known.
    assert main(Source(repo="a/b", revision="v1"), Located(folder=weights)) == "a/b@v1"


def test_every_part_counts_for_itself(tmp_path: Path, weights: Path) -> None:
    parts = {
        "transformer": Part(repo="c/d", subfolder="inner"),
        "ip_adapter": Part(repo="c/d", file="adapter.safetensors"),
        "vae": Part(path=weights, subfolder="vae"),
        "gone": Part(path=tmp_path / "none"),
    }
    source = Source(repo="a/b", parts=parts)
    place = snapshot(tmp_path, "c/d") / "inner"
    located = Located(folder=snapshot(tmp_path, "a/b"), parts={"transformer": place})
    found = weights_identity(source, located)
    assert found.pop("vae").startswith("sha256:")
    assert found.pop("gone").startswith("missing:")
    assert found == {
        "": f"a/b@{COMMIT}",
        "transformer": f"c/d@{COMMIT}/inner/",
        "ip_adapter": "c/d@latest//adapter.safetensors",
    }
    before = weights_identity(source)["vae"]
    (weights / "vae" / "model.safetensors").write_bytes(bytes(1001))
    assert weights_identity(source)["vae"] != before
