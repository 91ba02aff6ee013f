from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.source import Part
from kinoloom.catalog.speed import PresetLora
from kinoloom.config import Settings
from kinoloom.errors import InvalidRequest, ModelBroken, ModelNotFound
from kinoloom.lora_request import LoraRequest
from kinoloom.planner.loras import PlannedLora, plan_loras
from kinoloom.planner.weights import file_identity
from kinoloom.weights.places import Located

LAYER = "transformer_blocks.0.attn1.to_q"
CARD = Catalog.load().get("spark")


@pytest.fixture(autouse=True)
def no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def folder(settings: Settings) -> Path:
    """Where the user's LoRAs for the family lie."""
    found = settings.home / "loras" / CARD.family
    found.mkdir(parents=True)
    return found


@pytest.fixture
def located(tmp_path: Path) -> Located:
    """A model with two transformers, of which one layer each is on the disk."""
    for name, width in (("transformer", 8), ("transformer_2", 6)):
        place = tmp_path / "model" / name
        place.mkdir(parents=True)
        weights = {f"{LAYER}.weight": np.zeros((width, width), np.float32)}
        save_file(weights, place / "model.safetensors")
    return Located(folder=tmp_path / "model")


def write(
    file: Path, width: int = 8, layer: str = f"transformer.{LAYER}", fill: float = 0.0
) -> Path:
    tensors = {
        f"{layer}.lora_A.weight": np.full((2, width), fill, np.float32),
        f"{layer}.lora_B.weight": np.full((width, 2), fill, np.float32),
    }
    save_file(tensors, file)
    return file


def planned(
    *names: Any, located: Located | None, settings: Settings, card: ModelCard = CARD
) -> tuple[PlannedLora, ...]:
    asked = [n for n in names if isinstance(n, LoraRequest)]
    preset = [n for n in names if isinstance(n, PresetLora)]
    return plan_loras(asked, preset, card, located, settings)


def test_a_lora_is_found_with_what_it_holds(
    folder: Path, located: Located, settings: Settings
) -> None:
    file = write(folder / "film-look.safetensors")
    asked = LoraRequest(name="film-look", weight=0.5)
    (found,) = planned(asked, located=located, settings=settings)
    assert (found.name, found.path, found.weight) == ("film-look", file, 0.5)
    assert found.component == "transformer"
    assert found.digest == file_identity(file)
    write(folder / "film-look.safetensors", fill=1.0)
    # Two writes within one tick of the file system's clock look alike; a user's never are so close.
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1_000_000_000))
    (changed,) = planned(asked, located=located, settings=settings)
    assert changed.digest != found.digest


def test_those_of_the_preset_come_first(
    folder: Path, located: Located, settings: Settings, tmp_path: Path
) -> None:
    write(folder / "film-look.safetensors")
    fast = write(tmp_path / "fast.safetensors", width=6)
    preset = PresetLora(source=Part(path=fast), weight=0.9, component="transformer_2")
    found = planned(LoraRequest(name="film-look"), preset, located=located, settings=settings)
    assert [(f.path.name, f.weight, f.component) for f in found] == [
        ("fast.safetensors", 0.9, "transformer_2"),
        ("film-look.safetensors", 1.0, "transformer"),
    ]


def test_a_name_that_nothing_has_names_the_nearest(
    folder: Path, located: Located, settings: Settings
) -> None:
    write(folder / "film-look.safetensors")
    with pytest.raises(ModelNotFound, match="film-lok") as caught:
        planned(LoraRequest(name="film-lok"), located=located, settings=settings)
    assert "film-look" in caught.value.hints[0]


def test_a_pickle_is_refused(located: Located, settings: Settings, tmp_path: Path) -> None:
    for name in ("a.pt", "a.ckpt", "a.bin"):
        (tmp_path / name).write_bytes(b"\x80\x04.")
        with pytest.raises(ModelBroken) as caught:
            planned(LoraRequest(name=str(tmp_path / name)), located=located, settings=settings)
        assert caught.value.hints


def test_a_lora_of_another_family_or_size_is_refused(
    folder: Path, located: Located, settings: Settings
) -> None:
    write(folder / "other.safetensors", layer="diffusion_model.blocks.0.self_attn.q")
    write(folder / "larger.safetensors", width=16)
    for name in ("other", "larger"):
        with pytest.raises(InvalidRequest, match="another model") as caught:
            planned(LoraRequest(name=name), located=located, settings=settings)
        assert caught.value.problems[0].field == "loras"


def test_each_is_checked_against_the_component_that_it_changes(
    located: Located, settings: Settings, tmp_path: Path
) -> None:
    file = write(tmp_path / "fast.safetensors", width=8)
    preset = PresetLora(source=Part(path=file), component="transformer_2")
    with pytest.raises(InvalidRequest, match="another size"):
        planned(preset, located=located, settings=settings)


@pytest.mark.parametrize(
    ("name", "components"),
    [
        ("film", ["transformer", "transformer_2"]),
        ("film-slow-highlights", ["transformer", "transformer_2"]),
        ("Film_HighNoise_v2", ["transformer"]),
        ("film-HIGH", ["transformer"]),
        ("wan2.2_t2v_low_noise_film", ["transformer_2"]),
    ],
)
def test_every_expert_gets_a_lora_unless_its_file_names_one(
    folder: Path, settings: Settings, name: str, components: list[str]
) -> None:
    card = Catalog.load().get("wan-2.2-t2v-a14b").model_copy(update={"family": CARD.family})
    write(folder / f"{name}.safetensors")
    asked = LoraRequest(name=name, weight=0.5)
    found = planned(asked, located=None, settings=settings, card=card)
    assert [f.component for f in found] == components
    assert {f.weight for f in found} == {0.5}


def test_a_lora_must_fit_every_expert_that_it_is_for(
    folder: Path, located: Located, settings: Settings
) -> None:
    card = CARD.model_copy(update={"experts": {"transformer": ["high"], "transformer_2": ["low"]}})
    write(folder / "film.safetensors", width=8)
    write(folder / "film-high.safetensors", width=8)
    assert planned(LoraRequest(name="film-high"), located=located, settings=settings, card=card)
    with pytest.raises(InvalidRequest, match="another size"):
        planned(LoraRequest(name="film"), located=located, settings=settings, card=card)


def test_a_part_in_the_components_place_is_what_counts(
    folder: Path, located: Located, settings: Settings, tmp_path: Path
) -> None:
    write(folder / "small.safetensors", width=6)
    parts = {"transformer": tmp_path / "model" / "transformer_2"}
    moved = Located(folder=located.folder, parts=parts)
    assert planned(LoraRequest(name="small"), located=moved, settings=settings)
    with pytest.raises(InvalidRequest):
        planned(LoraRequest(name="small"), located=located, settings=settings)


def test_without_the_model_only_the_file_is_looked_at(folder: Path, settings: Settings) -> None:
    write(folder / "other.safetensors", layer="diffusion_model.blocks.0.self_attn.q")
    assert planned(LoraRequest(name="other"), located=None, settings=settings)
    save_file({"weight": np.zeros(3, np.float32)}, folder / "none.safetensors")
    with pytest.raises(InvalidRequest, match="no LoRA"):
        planned(LoraRequest(name="none"), located=None, settings=settings)


def test_a_presets_lora_that_is_not_here_says_how_to_get_it(
    located: Located, settings: Settings
) -> None:
    preset = PresetLora(source=Part(repo="owner/fast", file="fast.safetensors"))
    with pytest.raises(ModelNotFound, match=r"owner/fast:fast\.safetensors") as caught:
        planned(preset, located=located, settings=settings)
    assert caught.value.hints[0] == "kinoloom models pull spark"


def test_no_weights_are_loaded_for_it(
    folder: Path, located: Located, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder / "film-look.safetensors")
    monkeypatch.setitem(sys.modules, "torch", None)  # importing it now is an error
    monkeypatch.setitem(sys.modules, "diffusers", None)
    assert planned(LoraRequest(name="film-look"), located=located, settings=settings)
