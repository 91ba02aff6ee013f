from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from hand_made import pipeline_files, write, write_card
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import load_settings
from kinoloom.weights import inventory
from kinoloom.weights.places import Places

MEMORY = "memory: {components: {transformer: 5000, vae: 1000}}\n"


def card(place: Path, source: str, *, licence: str = "") -> ModelCard:
    file = write_card(place / "home" / "cards", source, extra=MEMORY)
    text = file.read_text(encoding="utf-8").replace("licence: {", f"licence: {{{licence}")
    file.write_text(text, encoding="utf-8")
    return Catalog.load(place / "home" / "cards").get("made")


def places() -> Places:
    return Places.of(load_settings())


def test_a_whole_model_is_ready(place: Path) -> None:
    files = pipeline_files()
    folder = write(place / "m", files)
    found = inventory.take(card(place, f"{{path: {folder}}}"), places(), vram_free=5500)
    assert found.ready
    assert (found.reasons, found.hints, found.notes) == ((), (), ())
    assert (found.place, found.size) == (str(folder), sum(map(len, files.values())))
    assert {n.path for n in found.files} == set(files)
    assert (found.disk_needed, found.vram_needed, found.vram_all) == (0, 5000, 6000)
    assert found.as_dict()["files"][0]["state"] == "found"


def test_what_is_missing_is_named_with_its_remedy(place: Path) -> None:
    made = card(place, "{repo: o/n}")
    found = inventory.take(made, places())
    assert not found.ready
    assert found.hints == ("kinoloom models pull made",)
    assert (found.place, found.files, found.disk_needed) == (None, (), 6000)
    commit = place / "hf" / "hub" / "models--o--n" / "snapshots" / ("a" * 40)
    write(commit, pipeline_files())
    (commit / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    found = inventory.take(made, places(), pinned={"o/n": "a" * 40, "x/y": "b" * 40})
    assert not found.ready
    assert "vae/*.safetensors" in found.reasons[0]
    assert found.hints == ("kinoloom models pull made",)
    assert found.pinned == {"o/n": "a" * 40}
    assert found.disk_needed == 6000 - found.size


def test_packages_disk_and_device(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(free=10))
    made = card(place, "{repo: o/n}")
    found = inventory.take(
        made, places(), packages=["torch"], install="pip install x", vram_free=4999
    )
    assert [r.split()[0] for r in found.reasons] == ["not", "The", "about"]
    assert found.hints[0] == "pip install x"
    assert "HF_HOME" in found.hints[-1]
    assert "largest component" in found.notes[0]


def test_a_licence_that_has_to_be_accepted(place: Path) -> None:
    made = card(place, "{repo: o/n}", licence="territory: not in Utopia, ")
    found = inventory.take(made, places())
    assert "Utopia" in found.reasons[-1]
    assert found.hints == ("kinoloom models pull made --accept-licence",)
    now = datetime.now(UTC)
    found = inventory.take(made, places(), accepted=now)
    assert found.hints == ("kinoloom models pull made",)
    assert found.licence["accepted"] == now.isoformat()


def test_a_newer_revision_is_a_note(place: Path) -> None:
    found = inventory.take(card(place, "{repo: o/n}"), places(), newer={"o/n": "c" * 40})
    assert "kinoloom models pull made --update" in found.notes[0]


def test_a_broken_index_is_a_reason(place: Path) -> None:
    folder = write(place / "m", pipeline_files() | {"model_index.json": b"[]"})
    found = inventory.take(card(place, f"{{path: {folder}}}"), places())
    assert not found.ready
    assert "model_index.json" in found.reasons[0]
