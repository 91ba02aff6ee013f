from __future__ import annotations

import json
from pathlib import Path

import pytest

from hand_made import INDEX, pipeline_files, tensors, write, write_card
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import load_settings
from kinoloom.errors import DownloadFailed, InvalidRequest, ModelBroken, ModelNotFound
from kinoloom.weights.add import Added, add
from kinoloom.weights.places import locate

LTX = {
    "model.diffusion_model.patchify_proj.weight": (8, 6),
    "model.diffusion_model.transformer_blocks.0.scale_shift_table": (6, 8),
}


@pytest.fixture
def folder(place: Path) -> Path:
    return write(place / "My Model", pipeline_files())


def added(target: object, name: str | None = None) -> tuple[Added, ModelCard]:
    settings = load_settings()
    done = add(str(target), settings, Catalog.load(settings.models), id_=name)
    catalog = Catalog.load(settings.models)
    catalog.check()
    return done, catalog.get(done.model)


def test_a_folder(folder: Path) -> None:
    done, card = added(folder)
    assert (done.model, done.card.name) == ("my-model", "my-model.yaml")
    like = Catalog.load().get(done.like)
    assert (card.sizes, card.frames, card.steps) == (like.sizes, like.frames, like.steps)
    assert card.tasks == like.tasks == done.tasks
    assert any(p.class_name == INDEX["_class_name"] for p in like.pipelines.values())
    assert card.source.path == folder
    assert card.timing is None
    assert card.unverified
    assert card.memory is not None
    assert set(card.memory.components) == {"text_encoder", "transformer", "vae"}
    assert locate(card, load_settings()).folder == folder


def test_the_nearest_card_in_size_counts(folder: Path, place: Path) -> None:
    sizes = "memory: {components: {text_encoder: 200, transformer: 1000, vae: 300}}\n"
    write_card(place / "home" / "cards", "{repo: o/n}", name="near", extra=sizes)
    assert added(folder)[0].like == "near"


@pytest.mark.parametrize("name", ["near", "spark"])
def test_an_id_that_is_taken(folder: Path, place: Path, name: str) -> None:
    write_card(place / "home" / "cards", "{repo: o/n}", name="near")
    with pytest.raises(InvalidRequest) as caught:
        added(folder, name)
    assert f"--id {name}-2" in caught.value.hints[0]
    assert added(folder, "other")[0].model == "other"


@pytest.mark.parametrize("name", ["", "../x", "A", "a b", "x" * 101])
def test_an_id_that_is_none(folder: Path, name: str) -> None:
    with pytest.raises(InvalidRequest):
        added(folder, name)


def test_folders_that_are_no_model(folder: Path, place: Path) -> None:
    (place / "empty").mkdir()
    for wrong in (place / "empty", folder / "vae"):
        with pytest.raises(ModelBroken, match="no model in diffusers' layout"):
            added(wrong)
    (folder / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    (folder / "vae" / "diffusion_pytorch_model.bin").touch()
    with pytest.raises(ModelBroken) as caught:
        added(folder)
    assert "pickle" in caught.value.cause
    assert not (place / "home" / "cards").exists()


def test_a_pipeline_that_nobody_knows(folder: Path) -> None:
    (folder / "model_index.json").write_text(json.dumps(INDEX | {"_class_name": "OddPipeline"}))
    with pytest.raises(ModelNotFound, match="OddPipeline"):
        added(folder)


@pytest.mark.parametrize("target", ["", "nowhere", "a\0b", "/none/at/all", "a/b/c"])
def test_a_place_that_is_none(place: Path, target: str) -> None:
    with pytest.raises(InvalidRequest):
        added(target)


def test_a_single_file_and_a_folder_of_its_build(folder: Path, place: Path) -> None:
    write_card(place / "home" / "cards", f"{{path: '{folder}'}}", name="base")
    file = place / "tuned.safetensors"
    file.write_bytes(tensors(LTX))
    done, card = added(file)
    assert (done.model, done.like) == ("tuned", "base")
    assert (card.source.file, card.source.config) == (file, folder)
    assert locate(card, load_settings()).file == file


def test_a_single_file_of_another_size(folder: Path, place: Path) -> None:
    write_card(place / "home" / "cards", f"{{path: '{folder}'}}", name="base")
    file = place / "large.safetensors"
    file.write_bytes(tensors(LTX | {"model.diffusion_model.patchify_proj.weight": (16, 6)}))
    with pytest.raises(ModelNotFound) as caught:
        added(file)
    assert "LTX-Video" in caught.value.message
    assert caught.value.hints[0].startswith("kinoloom models pull ")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.ckpt", b"x", "not opened"),
        ("a.bin", b"x", "not opened"),
        ("a.txt", b"x", "no model"),
        ("a.safetensors", b"x", "cannot be used"),
        ("a.safetensors", tensors({"x": (1,)}), "no architecture"),
        ("a.safetensors", tensors({"blocks.0.q.lora_A.weight": (1,)}), "a LoRA"),
    ],
)
def test_files_that_are_no_model(place: Path, name: str, content: bytes, said: str) -> None:
    (place / name).write_bytes(content)
    with pytest.raises(ModelBroken, match=said) as caught:
        added(place / name)
    assert caught.value.hints


def test_a_repository_that_is_on_this_disk(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place / "roots" / "o" / "n", pipeline_files())
    monkeypatch.setenv("KINOLOOM_MODEL_ROOTS", str(place / "roots"))
    done, card = added("o/n")
    assert (card.source.repo, done.hints[0]) == ("o/n", "kinoloom models pull n")


def test_a_repository_without_a_network(place: Path) -> None:
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        added("o/n")
