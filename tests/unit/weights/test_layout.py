from __future__ import annotations

import json
from pathlib import Path

import pytest

from hand_made import INDEX, pipeline_files, tensors, write
from kinoloom.errors import ModelBroken
from kinoloom.weights import layout
from kinoloom.weights.layout import Component

SHARDS = "transformer/diffusion_pytorch_model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "model", pipeline_files())


def bad(folder: Path) -> dict[str, tuple[str, str]]:
    found = layout.pipeline_needs(folder)
    return {n.path: (n.state, n.reason) for n in found if n.state != "found"}


def test_a_whole_folder(folder: Path) -> None:
    assert bad(folder) == {}
    assert {n.path for n in layout.pipeline_needs(folder)} == set(pipeline_files())
    sizes = {n.path: n.size for n in layout.pipeline_needs(folder)}
    assert sizes == {name: len(content) for name, content in pipeline_files().items()}


@pytest.mark.parametrize("name", sorted(set(pipeline_files()) - {"model_index.json"}))
def test_every_file_is_missed(folder: Path, name: str) -> None:
    (folder / name).unlink()
    component = name.split("/", maxsplit=1)[0]
    found = bad(folder)
    assert found
    assert all(
        path.startswith(component) and state == "missing" for path, (state, _) in found.items()
    )


@pytest.mark.parametrize("name", [n for n in pipeline_files() if n.endswith(".safetensors")])
def test_weights_that_are_cut_off(folder: Path, name: str) -> None:
    file = folder / name
    file.write_bytes(file.read_bytes()[:-5])
    assert bad(folder)[name][0] == "broken"
    assert "5 bytes are missing" in bad(folder)[name][1]


def test_a_pickle_in_place_of_the_weights(folder: Path) -> None:
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "vae" / "diffusion_pytorch_model.bin").touch()
    assert "diffusion_pytorch_model.bin is there, a pickle" in bad(folder)["vae/*.safetensors"][1]


def test_another_variant_of_the_weights(folder: Path) -> None:
    vae = folder / "vae"
    (vae / "diffusion_pytorch_model.safetensors").rename(
        vae / "diffusion_pytorch_model.bf16.safetensors"
    )
    assert "another variant" in bad(folder)["vae/*.safetensors"][1]


def halved(files: dict[str, bytes]) -> dict[str, bytes]:
    """The files with all weights as the variant fp16, named as diffusers names them."""
    found = {}
    for name, content in files.items():
        if name.endswith(".index.json"):
            name = name.replace(".index.json", ".index.fp16.json")
            content = content.replace(b"model-0", b"model.fp16-0")
        elif "-of-" in name:
            name = name.replace("model-0", "model.fp16-0")
        elif name.endswith(".safetensors"):
            name = name.replace(".safetensors", ".fp16.safetensors")
        found[name] = content
    return found


def test_weights_that_are_there_in_half_precision_only(tmp_path: Path) -> None:
    files = halved(pipeline_files())
    folder = write(tmp_path / "model", files)
    assert bad(folder) == {}
    assert {n.path for n in layout.pipeline_needs(folder)} == set(files)
    assert {layout.variant_in(folder / n) for n in ("transformer", "vae")} == {"fp16"}
    wanted = layout.components(Path("model_index.json"), INDEX)
    assert set(layout.select(files, "", wanted)) == set(files)
    (folder / "transformer/diffusion_pytorch_model.fp16-00002-of-00002.safetensors").unlink()
    assert [state for state, _ in bad(folder).values()] == ["missing"]


def test_full_precision_goes_before_half(tmp_path: Path) -> None:
    both = halved(pipeline_files()) | pipeline_files()
    folder = write(tmp_path / "model", both)
    assert {n.path for n in layout.pipeline_needs(folder)} == set(pipeline_files())
    assert layout.variant_in(folder / "vae") is None
    wanted = layout.components(Path("model_index.json"), INDEX)
    assert set(layout.select(both, "", wanted)) == set(pipeline_files())


def test_a_download_that_is_not_finished(folder: Path) -> None:
    (folder / "vae" / "x.incomplete").touch()
    assert bad(folder)["vae/x.incomplete"] == ("broken", "its download is not finished")


@pytest.mark.parametrize(
    "shard",
    ["../../x.safetensors", "/etc/x.safetensors", "a.bin", ".x.safetensors", "a\0.safetensors", 3],
)
def test_hostile_names_of_shards(folder: Path, shard: object) -> None:
    (folder / SHARDS).write_text(json.dumps({"weight_map": {"a": shard}}))
    state, reason = bad(folder)[SHARDS]
    assert state == "broken"
    assert reason


@pytest.mark.parametrize("content", ["{}", "[]", '{"weight_map": []}', '{"weight_map": {}}', "{"])
def test_an_index_of_nothing(folder: Path, content: str) -> None:
    (folder / SHARDS).write_text(content)
    assert bad(folder)[SHARDS][0] == "broken"


@pytest.mark.parametrize(
    "change",
    [
        {"../vae": ["diffusers", "A"]},
        {"a/b": ["diffusers", "A"]},
        {"": ["diffusers", "A"]},
        {"a": ["diffusers"]},
        {"a": ["diffusers", 3]},
        {"a": ["x", "y", "z"]},
    ],
)
def test_a_hostile_list_of_components(folder: Path, change: dict[str, object]) -> None:
    (folder / "model_index.json").write_text(json.dumps(INDEX | change))
    with pytest.raises(ModelBroken, match="model_index"):
        list(layout.pipeline_needs(folder))


@pytest.mark.parametrize("name", [None, 3, "../x", ["a", "b"], ""])
def test_a_class_that_is_none(folder: Path, name: object) -> None:
    (folder / "model_index.json").write_text(json.dumps(INDEX | {"_class_name": name}))
    with pytest.raises(ModelBroken, match="model_index"):
        layout.pipeline_class(folder)


def test_what_is_supplied_is_not_needed(folder: Path) -> None:
    paths = [n.path for n in layout.pipeline_needs(folder, supplied=("vae", "transformer"))]
    assert not [p for p in paths if p.startswith(("vae", "transformer"))]
    assert layout.pipeline_class(folder) == INDEX["_class_name"]


def test_a_component_alone(tmp_path: Path) -> None:
    write(tmp_path / "p", {"preprocessor_config.json": b"{}"})
    assert [n.state for n in layout.component_needs(tmp_path / "p")] == ["found"]
    write(tmp_path / "m", {"config.json": b"{}"})
    assert [n.state for n in layout.component_needs(tmp_path / "m")] == ["found", "missing"]
    assert {n.state for n in layout.component_needs(tmp_path / "none")} == {"missing"}


def test_a_byte_tokenizer_has_no_vocabulary(tmp_path: Path) -> None:
    write(tmp_path, {"tokenizer_config.json": b"{}"})
    for kind, states in {"ByT5Tokenizer": {"found"}, "T5Tokenizer": {"found", "missing"}}.items():
        needs = layout.component_needs(tmp_path, Component("tokenizer", kind))
        assert {n.state for n in needs} == states


def test_a_single_file(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors").write_bytes(tensors({"a": (1,)}))
    (tmp_path / "a.ckpt").touch()
    assert layout.file_need(tmp_path / "a.safetensors").state == "found"
    assert "pickle" in layout.file_need(tmp_path / "a.ckpt").reason
    assert layout.file_need(tmp_path / "b.safetensors").state == "missing"


def test_the_choice_among_a_repositorys_files() -> None:
    names = [*pipeline_files(), "vae/diffusion_pytorch_model.safetensors.index.fp16.json"]
    names += ["vae/diffusion_pytorch_model.fp16-00001-of-00002.safetensors", "vae/x/config.json"]
    names += ["a/../vae/config.json", "/vae/config.json", "transformer/model.bin"]
    wanted = layout.components(Path("model_index.json"), INDEX)
    chosen = layout.select(names, "", wanted)
    assert set(chosen) == set(pipeline_files())
    weights = [n.endswith(".safetensors") for n in chosen]
    assert weights == sorted(weights)
    assert layout.select(names, "transformer") == [
        n for n in chosen if n.startswith("transformer/")
    ]
