from __future__ import annotations

from pathlib import Path

import pytest

from hand_made import write
from kinoloom.errors import InvalidRequest
from kinoloom.weights import comfy

YAML = """\
comfyui:
  base_path: {base}
  checkpoints: models/checkpoints
  loras: |
    models/loras
    more/loras
  unet: models/unet
first:
  base_path: {base}/fast
  is_default: true
  checkpoints: ckpt
none:
"""


def test_the_folders_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "extra_model_paths.yaml"
    file.write_text(YAML.format(base=tmp_path))
    found = comfy.read(file).folders
    assert found["checkpoints"] == [tmp_path / "fast" / "ckpt", tmp_path / "models" / "checkpoints"]
    assert found["loras"] == [tmp_path / "models" / "loras", tmp_path / "more" / "loras"]
    assert found["diffusion_models"] == [tmp_path / "models" / "unet"]


def test_a_tree_and_its_file(tmp_path: Path) -> None:
    tree = tmp_path / "ComfyUI"
    write(tree, {"models/checkpoints/deep/a.safetensors": b"a", "models/loras/b.safetensors": b"b"})
    write(tmp_path, {"else/c.safetensors": b"c", "else/model.safetensors": b"m"})
    (tree / comfy.FILE_NAME).write_text("x:\n  base_path: ..\n  vae: else\n")
    found = comfy.read(tree)
    assert found.find("a.safetensors", "checkpoints") == (
        tree / "models" / "checkpoints" / "deep" / "a.safetensors"
    )
    assert found.find("b.safetensors", "checkpoints") is None
    assert found.find("b.safetensors", "loras") is not None
    assert found.find("c.safetensors") is not None
    assert found.find("model.safetensors") is None  # a name that says nothing


def test_without_the_setting_there_is_nothing() -> None:
    assert comfy.read(None).folders == {}


@pytest.mark.parametrize(
    "content",
    [
        b"- a\n",
        b"a: [\n",
        b"\xff\xfe\x00",
        b"#" * (comfy.MAX_BYTES + 1),
        b"a: &x {b: c}\nd: *x\n",
        b"a: !!python/object/apply:os.getcwd []\n",
    ],
)
def test_a_file_that_is_something_else(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "paths.yaml"
    file.write_bytes(content)
    with pytest.raises(InvalidRequest) as caught:
        comfy.read(file)
    assert str(file) in caught.value.message


def test_a_place_where_nothing_is(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="comfyui"):
        comfy.read(tmp_path / "none")


def test_odd_values_are_left_out(tmp_path: Path) -> None:
    file = tmp_path / "paths.yaml"
    file.write_text("a: {checkpoints: [1], vae: 3, loras: l, 5: x}\nb: 3\nc: [x]\n")
    assert comfy.read(file).folders == {"loras": [tmp_path / "l"], "5": [tmp_path / "x"]}
