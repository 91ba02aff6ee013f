from __future__ import annotations

from pathlib import Path

import pytest

from hand_made import pipeline_files, write, write_card
from kinoloom import models
from kinoloom.catalog.card import ModelCard
from kinoloom.catalog.loader import Catalog
from kinoloom.config import load_settings
from kinoloom.errors import InvalidRequest, ModelNotFound
from kinoloom.store.store import Store
from kinoloom.weights import cache, remove
from kinoloom.weights.places import Places


@pytest.fixture
def packaged(place: Path) -> ModelCard:
    """A packaged card whose repository is in the cache, and pinned."""
    card = next(c for c in Catalog.load() if c.source.repo and not c.source.parts)
    commit = "a" * 40
    write(cache.repo_folder(str(card.source.repo)) / "snapshots" / commit, pipeline_files())
    with Store.open(place / "home") as store:
        store.models.pin(str(card.source.repo), commit)
    return card


def test_a_users_card_goes_and_the_files_stay(place: Path) -> None:
    folder = write(place / "m", pipeline_files())
    file = write_card(place / "home" / "cards", f"{{path: {folder}}}")
    with pytest.raises(InvalidRequest) as caught:
        models.remove_model("made", load_settings())
    assert caught.value.hints[0] == "kinoloom models remove made --yes"
    assert file.exists()
    done = models.remove_model("made", load_settings(), yes=True)
    assert done.paths == (file,)
    assert str(folder) in done.kept[0]
    assert not file.exists()
    assert (folder / "model_index.json").is_file()


def test_downloaded_files_go(place: Path, packaged: ModelCard) -> None:
    folder = cache.repo_folder(str(packaged.source.repo))
    other = write(cache.repo_folder("other/repo") / "snapshots" / ("b" * 40), pipeline_files())
    done = models.remove_model(packaged.id, load_settings(), yes=True)
    assert done.paths == (folder,)
    assert done.size == sum(map(len, pipeline_files().values()))
    assert not folder.exists()
    assert other.is_dir()
    with Store.open(place / "home") as store:
        assert store.models.pins() == {}


def test_what_another_model_uses_is_kept(place: Path, packaged: ModelCard) -> None:
    write_card(place / "home" / "cards", f"{{repo: {packaged.source.repo}}}")
    assert Places.of(load_settings()).find(Catalog.load(place / "home" / "cards").get("made"))
    with pytest.raises(InvalidRequest) as caught:
        models.remove_model(packaged.id, load_settings(), yes=True)
    assert "used by made" in caught.value.hints[0]


def test_what_cannot_be_removed(place: Path) -> None:
    with pytest.raises(InvalidRequest, match="comes with Kinoloom"):
        models.remove_model("spark", load_settings(), yes=True)
    card = next(c for c in Catalog.load() if c.source.repo)
    with pytest.raises(InvalidRequest, match="Nothing of"):
        models.remove_model(card.id, load_settings(), yes=True)
    with pytest.raises(ModelNotFound):
        models.remove_model("none", load_settings(), yes=True)


def test_a_card_in_a_file_with_others(place: Path) -> None:
    cards = place / "home" / "cards"
    one = write_card(cards, "{repo: o/n}").read_text(encoding="utf-8")
    lines = one.replace("id: made\n", "").splitlines()
    (cards / "made.yaml").unlink()
    shared = "".join(f"  {line}\n" for line in lines)
    (cards / "two.yaml").write_text(f"shared:\n{shared}models:\n  - id: a\n  - id: b\n", "utf-8")
    catalog = Catalog.load(cards)
    with pytest.raises(InvalidRequest) as caught:
        remove.plan(catalog.get("a"), load_settings(), catalog)
    assert "two.yaml" in caught.value.hints[0]
