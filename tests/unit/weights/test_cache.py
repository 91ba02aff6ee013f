from __future__ import annotations

from pathlib import Path

import pytest

from kinoloom.weights import cache

A, B, C = "a" * 40, "b" * 40, "c" * 40


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    for commit in (A, B):
        (tmp_path / "models--o--n" / "snapshots" / commit).mkdir(parents=True)
    (tmp_path / "models--o--n" / "refs").mkdir()
    return tmp_path / "models--o--n"


def test_the_root_is_that_of_huggingface_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert cache.cache_root() == tmp_path / ".cache" / "huggingface" / "hub"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "x"))
    assert cache.cache_root() == tmp_path / "x" / "huggingface" / "hub"
    monkeypatch.setenv("HF_HOME", "~/h")
    assert cache.cache_root() == tmp_path / "h" / "hub"
    monkeypatch.setenv("HF_HUB_CACHE", "$HF_HOME/c")
    assert cache.cache_root() == tmp_path / "h" / "c"


def test_the_pinned_revision_comes_first(repo: Path) -> None:
    (repo / "refs" / "main").write_text(B)
    snapshots = repo / "snapshots"
    assert cache.snapshots("o/n") == [snapshots / B, snapshots / A]
    assert cache.snapshots("o/n", pinned=A) == [snapshots / A, snapshots / B]
    assert cache.snapshots("o/n", pinned=C) == [snapshots / B, snapshots / A]
    assert cache.snapshots("o/other") == []


def test_a_revision_allows_no_other(repo: Path) -> None:
    (repo / "refs" / "v1").write_text(A)
    assert cache.snapshots("o/n", A) == cache.snapshots("o/n", "v1") == [repo / "snapshots" / A]
    for revision in (C, "v2", "../refs/v1", "../../x", ""):
        assert cache.snapshots("o/n", revision, pinned=A) == []


@pytest.mark.parametrize("content", ["", "../../..", "x" * 1000, A[:-1]])
def test_a_ref_that_is_none(repo: Path, content: str) -> None:
    (repo / "refs" / "v1").write_text(content)
    assert cache.snapshots("o/n", "v1") == []


def test_the_commit_of_a_folder(repo: Path, tmp_path: Path) -> None:
    assert cache.commit_of(repo / "snapshots" / A / "vae") == A
    assert cache.commit_of(tmp_path) is None
