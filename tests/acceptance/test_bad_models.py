"""What a user does wrong with a model is a named error with the next step, before weights load."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

CODE = """
import json, sys
import kinoloom
try:
    kinoloom.generate(**json.loads(sys.argv[1]))
    said = {"kind": "none"}
except kinoloom.KinoloomError as error:
    said = error.as_dict()
print(json.dumps(said | {"torch": "torch" in sys.modules}))
"""


@pytest.fixture
def models(tiny_cards: Path, tmp_path: Path) -> Path:
    """A copy of the folder with the tiny model, to be spoilt."""
    return Path(shutil.copytree(tiny_cards, tmp_path / "models"))


@pytest.fixture
def ask(models: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    def run(**request: Any) -> dict[str, Any]:
        values = {"prompt": "a red ball", "model": "tiny"} | request
        env = os.environ | {
            "KINOLOOM_HOME": str(tmp_path / "home"),
            "KINOLOOM_OUTPUTS": str(tmp_path / "out"),
            "KINOLOOM_MODELS": str(models),
            "KINOLOOM_DEVICE": "cpu",
        }
        done = subprocess.run(
            [sys.executable, "-c", CODE, json.dumps(values)],
            capture_output=True,
            text=True,
            env=env,
            cwd=tmp_path,
            check=True,
        )
        said: dict[str, Any] = json.loads(done.stdout)
        assert not said["torch"], "torch was loaded first"
        assert said["kind"] != "none"
        assert said["message"]
        return said

    return run


Ask = Callable[..., dict[str, Any]]


def test_a_picture_that_is_missing_or_no_picture(ask: Ask, tmp_path: Path) -> None:
    assert ask(image="gone.png")["kind"] == "invalid_media"
    (tmp_path / "text.png").write_text("not a picture", encoding="utf-8")
    assert ask(image="text.png")["kind"] == "invalid_media"


def test_sizes_and_frames_that_nobody_can_make(ask: Ask) -> None:
    assert ask(size=[5, 5])["kind"] == "invalid_params"
    assert ask(frames=0)["kind"] == "invalid_params"


def test_inputs_that_the_model_does_not_take(ask: Ask, tmp_path: Path) -> None:
    Image.new("RGB", (64, 64)).save(tmp_path / "a.png")
    said = ask(references=["a.png"])
    assert said["kind"] == "invalid_params"
    assert "animatediff" in said["cause"] or "animatediff" in json.dumps(said)


def test_a_lora_that_is_unknown_pickled_or_of_another_family(ask: Ask, tmp_path: Path) -> None:
    assert ask(loras=["nothing"])["kind"] == "model_not_found"
    (tmp_path / "old.ckpt").write_bytes(b"\x80\x04.")
    assert ask(loras=["old.ckpt"])["kind"] == "model_broken"
    foreign = {
        "transformer.blocks.0.attn1.to_q.lora_A.weight": torch.zeros(4, 5120),
        "transformer.blocks.0.attn1.to_q.lora_B.weight": torch.zeros(5120, 4),
    }
    save_file(foreign, tmp_path / "wan.safetensors")
    said = ask(loras=["wan.safetensors"])
    assert said["kind"] == "invalid_params"
    assert said["hints"]


def test_a_half_downloaded_folder(ask: Ask, models: Path) -> None:
    [file] = (models / "tiny/transformer").glob("*.safetensors")
    with file.open("r+b") as stream:
        stream.truncate(file.stat().st_size // 2)
    said = ask()
    assert said["kind"] == "model_broken"
    assert "transformer" in said["cause"]
    file.unlink()
    assert ask()["kind"] == "model_broken"


def test_pickled_weights(ask: Ask, models: Path) -> None:
    [file] = (models / "tiny/transformer").glob("*.safetensors")
    file.rename(file.with_name("diffusion_pytorch_model.bin"))
    said = ask()
    assert said["kind"] == "model_broken"
    assert ".bin" in said["cause"]


def test_presets_and_accelerations_that_are_not_there(ask: Ask) -> None:
    assert ask(preset="turbo")["kind"] == "invalid_params"
    assert ask(acceleration="warp")["kind"] == "invalid_params"


def test_too_little_memory(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KINOLOOM_MEMORY_BUDGET", "1MB")
    said = ask(model="spark")  # whose card says how large it is
    assert said["kind"] == "insufficient_vram"
    assert "memory_budget" in json.dumps(said["hints"])
