from __future__ import annotations

from pathlib import Path

import pytest

from hand_made import pipeline_files, tensors, write, write_card
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import load_settings
from kinoloom.errors import ModelBroken, ModelNotFound
from kinoloom.store.store import Store
from kinoloom.weights.places import find_lora, locate

A, B = "a" * 40, "b" * 40


def card(place: Path, source: str) -> ModelCard:
    write_card(place / "home" / "cards", source)
    return Catalog.load(place / "home" / "cards").get("made")


def snapshot(place: Path, commit: str, repo: str = "o--n") -> Path:
    return place / "hf" / "hub" / f"models--{repo}" / "snapshots" / commit


def test_a_folder(place: Path) -> None:
    folder = write(place / "m", pipeline_files())
    found = locate(card(place, f"{{path: {folder}}}"), load_settings())
    assert (found.folder, found.file, found.parts, found.revision) == (folder, None, {}, None)
    assert found.main == folder


def test_the_shipped_model(place: Path) -> None:
    spark = Catalog.load().get("spark")
    assert locate(spark, load_settings()).folder == spark.source.folder


def test_the_cache_and_its_pinned_revision(place: Path) -> None:
    made = card(place, "{repo: o/n}")
    with pytest.raises(ModelNotFound) as caught:
        locate(made, load_settings())
    assert caught.value.hints[0] == "kinoloom models pull made"
    for commit in (A, B):
        write(snapshot(place, commit), pipeline_files())
    for commit in (A, B):
        with Store.open(place / "home") as store:
            store.models.pin("o/n", commit)
        found = locate(made, load_settings())
        assert (found.folder, found.revision) == (snapshot(place, commit), commit)


@pytest.mark.parametrize("name", ["o/n", "o--n", "n"])
def test_extra_roots(place: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    folder = write(place / "second" / name, pipeline_files())
    monkeypatch.setenv("KINOLOOM_MODEL_ROOTS", f"{place / 'first'}:{place / 'second'}")
    assert locate(card(place, "{repo: o/n}"), load_settings()).folder == folder


def test_a_comfyui_tree(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = place / "ComfyUI" / "models"
    folder = write(tree / "diffusers" / "n", pipeline_files())
    write(tree, {"checkpoints/x.safetensors": tensors({"a": (1,)})})
    write(tree, {"animatediff_models/motion.safetensors": tensors({"a": (1,)})})
    monkeypatch.setenv("KINOLOOM_COMFYUI", str(place / "ComfyUI"))
    made = card(place, "{repo: o/n, parts: {motion: {repo: o/m, file: motion.safetensors}}}")
    found = locate(made, load_settings())
    assert found.folder == folder
    assert found.parts == {"motion": tree / "animatediff_models" / "motion.safetensors"}
    single = locate(card(place, f"{{file: x.safetensors, config: {folder}}}"), load_settings())
    assert single.file == single.main == tree / "checkpoints" / "x.safetensors"
    assert single.config == folder


def test_parts(place: Path) -> None:
    files = pipeline_files()
    vae = {n: c for n, c in files.items() if n.startswith("vae/")}
    folder = write(place / "m", {n: c for n, c in files.items() if n not in vae})
    write(snapshot(place, A, "o--v"), vae | {"lora.safetensors": tensors({"a": (1,)})})
    source = (
        f"{{path: {folder}, parts: {{vae: {{repo: o/v, subfolder: vae}},"
        " lora: {repo: o/v, file: lora.safetensors}}}"
    )
    found = locate(card(place, source), load_settings())
    at = snapshot(place, A, "o--v")
    assert found.parts == {"vae": at / "vae", "lora": at / "lora.safetensors"}
    (at / "vae" / "config.json").unlink()
    with pytest.raises(ModelNotFound, match="vae") as caught:
        locate(card(place, source), load_settings())
    assert caught.value.hints[0] == "kinoloom models pull made"


def test_a_folder_that_is_not_whole(place: Path) -> None:
    folder = write(place / "m", pipeline_files())
    made = card(place, f"{{path: {folder}}}")
    (folder / "vae" / "diffusion_pytorch_model.safetensors").write_bytes(b"12345678")
    with pytest.raises(ModelBroken) as caught:
        locate(made, load_settings())
    assert str(folder) in caught.value.message
    assert "vae/diffusion_pytorch_model.safetensors" in caught.value.cause
    (folder / "model_index.json").unlink()
    with pytest.raises(ModelBroken, match="not complete"):
        locate(made, load_settings())


def test_nothing_is_made_by_looking(place: Path) -> None:
    with pytest.raises(ModelNotFound):
        locate(card(place, "{repo: o/n}"), load_settings())
    assert {f.name for f in place.rglob("*")} == {"home", "cards", "made.yaml"}


def test_loras(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = tensors({"a.lora_A.weight": (1,)})
    own = write(place / "home" / "loras" / "ltx", {"mine.safetensors": content})
    comfy = write(place / "C" / "models" / "loras", {"deep/theirs.safetensors": content})
    repo = write(snapshot(place, A), {"x.safetensors": content})
    two = write(
        snapshot(place, A, "o--two"), dict.fromkeys(("x.safetensors", "y.safetensors"), content)
    )
    monkeypatch.setenv("KINOLOOM_COMFYUI", str(place / "C"))
    settings = load_settings()
    for name, file in {
        str(own / "mine.safetensors"): own / "mine.safetensors",
        "mine": own / "mine.safetensors",
        "mine.safetensors": own / "mine.safetensors",
        "theirs": comfy / "deep" / "theirs.safetensors",
        "deep/theirs": comfy / "deep" / "theirs.safetensors",
        "o/n": repo / "x.safetensors",
        "o/two:y.safetensors": two / "y.safetensors",
    }.items():
        assert find_lora(name, "ltx", settings) == file
    for name in ("mine", "o/two", "o/none", "../ltx/mine", "o/n:../x", "", "a\0b", "/none", "mein"):
        family = "wan" if name == "mine" else "ltx"
        with pytest.raises(ModelNotFound) as caught:
            find_lora(name, family, settings)
        assert caught.value.hints
    assert "mine" in caught.value.hints[0]
    with pytest.raises(ModelBroken, match="not opened"):
        find_lora("x.pt", "ltx", settings)
