from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import av
import pytest

import kinoloom
from kinoloom.backends.local import hardware
from kinoloom.config import load_settings
from kinoloom.doctor import Check, examine


@pytest.fixture(autouse=True)
def forgotten() -> Iterator[None]:
    hardware.gpu_name.cache_clear()
    yield
    hardware.gpu_name.cache_clear()


def checks() -> dict[str, Check]:
    return {c.name: c for c in examine(load_settings())}


def test_a_machine_that_is_ready(studio: Path) -> None:
    found = checks()
    assert found["versions"].detail.startswith(f"kinoloom {kinoloom.__version__}, Python 3.")
    assert found["settings"].detail == "defaults; no kinoloom.yaml"
    assert found["device"].detail.startswith(f"cpu x{hardware.cores()}, torch 2.")
    assert found["model tiny"] == Check("model tiny", "ok", "ready: t2v, i2v, flf2v, extend")
    for name in ("codecs", "store", "data folder", "output folder"):
        assert found[name].state == "ok"
    assert "no clips yet" in found["store"].detail
    assert not (studio / "out").exists()  # looking changes nothing outside the store
    kinoloom.generate("a red ball")
    assert "newest clip 20" in checks()["store"].detail


def test_the_settings_file_is_named(studio: Path) -> None:
    (studio / "kinoloom.yaml").write_text("dtype: float32\n")
    assert str(studio / "kinoloom.yaml") in checks()["settings"].detail


@pytest.mark.usefixtures("studio")
def test_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "torch_version", lambda: None)
    device = checks()["device"]
    assert device.state == "failed"
    assert "kinoloom[local]" in device.hint


@pytest.mark.usefixtures("studio")
def test_a_gpu_that_is_asked_for_and_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "gpu_name", lambda: None)
    monkeypatch.setenv("KINOLOOM_DEVICE", "cuda:1")
    device = checks()["device"]
    assert device.state == "failed"
    assert "cuda:1" in device.detail
    monkeypatch.setattr(hardware, "gpu_name", lambda: "NVIDIA H200")
    assert checks()["device"].state == "ok"


@pytest.mark.usefixtures("studio")
def test_a_driver_that_this_torch_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho NVIDIA H200\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setattr(hardware, "torch_version", lambda: "2.13.0+cpu")
    device = checks()["device"]
    assert device.state == "warning"
    assert "CUDA build" in device.hint


def test_a_model_without_its_weights(studio: Path, tiny_cards: Path) -> None:
    cards = studio / "cards"
    cards.mkdir()
    shutil.copy(tiny_cards / "tiny.yaml", cards)
    (cards / "odd.yaml").write_text("id: odd\n")
    settings = load_settings(models=cards)
    found = examine(settings)
    [model] = [c for c in found if c.name == "model tiny"]
    assert model.state == "failed"
    assert str(cards / "tiny") in model.detail
    assert model.hint == "check the path in the model's card"
    problems = [c for c in found if c.name == "model cards"]
    assert problems
    assert {c.state for c in problems} == {"warning"}
    assert all("odd.yaml" in c.detail for c in problems)


@pytest.mark.usefixtures("studio")
def test_a_pyav_without_a_codec(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(av, "codecs_available", {"libvpx-vp9"})
    codecs = checks()["codecs"]
    assert codecs.state == "failed"
    assert "libx264" in codecs.detail
    assert "libvpx" not in codecs.detail
    assert "pip install" in codecs.hint


def test_a_damaged_store(studio: Path) -> None:
    checks()
    database = studio / "home" / "kinoloom.sqlite3"
    for extra in studio.glob("home/kinoloom.sqlite3-*"):
        extra.unlink()
    database.write_bytes(b"no database at all" * 100)
    store = checks()["store"]
    assert store.state == "failed"
    assert str(database) in store.detail


@pytest.mark.usefixtures("studio")
def test_a_disk_that_is_nearly_full(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    found = checks()
    for name in ("data folder", "output folder"):
        assert found[name].state == "warning"
        assert "0.0 GB free" in found[name].detail


def test_a_check_as_data() -> None:
    assert Check("a", "ok", "b").as_dict() == {
        "name": "a",
        "state": "ok",
        "detail": "b",
        "hint": "",
    }
