from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml

from kinoloom.catalog.loader import Catalog
from kinoloom.catalog.reading import MAX_CARD_BYTES, CatalogProblems, read_cards
from kinoloom.errors import ModelNotFound
from kinoloom.planner.vocabulary import unknown_words


def spark(**changes: Any) -> dict[str, Any]:
    data = Catalog.load().get("spark").model_dump(mode="json", exclude_none=True)
    return data | changes


def write(folder: Path, name: str, data: Any) -> Path:
    file = folder / name
    text = data if isinstance(data, str) else yaml.safe_dump(data)
    file.write_text(text, encoding="utf-8")
    return file


def test_the_packaged_cards_are_all_right() -> None:
    catalog = Catalog.load()
    assert catalog.problems == ()
    assert catalog.notices == ()
    assert "spark" in catalog
    assert [c.id for c in catalog] == sorted(c.id for c in catalog)
    assert len(catalog) == len(catalog.list())
    catalog.check()


def test_spark_does_the_four_tasks_and_knows_its_world() -> None:
    card = Catalog.load().get("spark")
    assert set(card.tasks) == {"t2v", "i2v", "flf2v", "extend"}
    assert card.sizes.default == (256, 160)
    assert card.vocabulary is not None
    assert {"red", "purple", "pink"} <= set(card.vocabulary.groups["colours"])
    assert {"ball", "star"} <= set(card.vocabulary.groups["shapes"])


def test_models_by_task() -> None:
    catalog = Catalog.load()
    assert "spark" in [c.id for c in catalog.doing("flf2v")]


@pytest.mark.parametrize("wrong", ["sprak", "Spark", "spark2", "SPARKS"])
def test_an_unknown_model_names_the_nearest(wrong: str) -> None:
    with pytest.raises(ModelNotFound) as caught:
        Catalog.load().get(wrong)
    assert caught.value.hints[0] == "Did you mean spark?"
    assert wrong in caught.value.message


def test_a_name_like_no_other_gets_the_list() -> None:
    with pytest.raises(ModelNotFound) as caught:
        Catalog.load().get("zzzz")
    assert "spark" in caught.value.cause
    assert not any("Did you mean" in h for h in caught.value.hints)


def test_no_folder_no_cards(tmp_path: Path) -> None:
    assert len(Catalog.load(tmp_path / "none")) == len(Catalog.load())


def test_a_users_card_joins(tmp_path: Path) -> None:
    write(tmp_path, "mine.yaml", spark(id="mine"))
    write(tmp_path, "notes.txt", "not a card")
    (tmp_path / "folder.yaml").mkdir()
    catalog = Catalog.load(tmp_path)
    assert catalog.get("mine").title == "Spark"
    assert "spark" in catalog
    assert catalog.problems == ()


@pytest.mark.parametrize("path", ["weights/mine", "./weights/mine"])
def test_a_users_weights_are_found_beside_the_card(tmp_path: Path, path: str) -> None:
    file = write(tmp_path, "mine.yaml", spark(id="mine", source={"path": path}))
    assert read_cards(file)[0].source.folder == tmp_path / "weights/mine"


def test_absolute_weights_stay_where_they_are(tmp_path: Path) -> None:
    file = write(tmp_path, "mine.yaml", spark(id="mine", source={"path": "/models/mine"}))
    assert read_cards(file)[0].source.folder == Path("/models/mine")


def test_a_users_card_takes_the_place_of_ours_and_says_so(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", spark(title="My spark"))
    catalog = Catalog.load(tmp_path)
    assert catalog.get("spark").title == "My spark"
    assert len(catalog.notices) == 1
    assert "spark" in catalog.notices[0]
    assert "a.yaml" in catalog.notices[0]
    assert catalog.problems == ()


def test_two_cards_of_the_users_cannot_share_an_id(tmp_path: Path) -> None:
    write(tmp_path, "a.yaml", spark(id="mine", title="First"))
    write(tmp_path, "b.yaml", spark(id="mine", title="Second"))
    catalog = Catalog.load(tmp_path)
    assert catalog.get("mine").title == "First"
    (problem,) = catalog.problems
    assert (Path(problem.file).name, problem.field) == ("b.yaml", "id")
    assert "a.yaml" in problem.reason


def test_a_broken_card_is_reported_and_hides_no_other(tmp_path: Path) -> None:
    broken = spark(id="broken", colour="red")
    broken["frames"]["default"] = 24
    broken["steps"]["preview"] = "few"
    write(tmp_path, "broken.yaml", broken)
    write(tmp_path, "fine.yaml", spark(id="fine"))
    catalog = Catalog.load(tmp_path)
    assert "fine" in catalog
    assert "spark" in catalog
    assert "broken" not in catalog
    assert {p.field for p in catalog.problems} == {"colour", "frames", "steps.preview"}
    assert {Path(p.file).name for p in catalog.problems} == {"broken.yaml"}
    with pytest.raises(CatalogProblems) as caught:
        catalog.check()
    assert "frames: default 24 is not 8n+1" in caught.value.cause
    assert caught.value.hints
    with pytest.raises(ModelNotFound, match="broken") as missing:
        catalog.get("broken")
    assert "cannot be read" in missing.value.cause


def test_a_mistyped_field_gets_a_suggestion(tmp_path: Path) -> None:
    file = write(tmp_path, "a.yaml", spark(licens={"id": "x"}))
    with pytest.raises(CatalogProblems, match="1 model card") as caught:
        read_cards(file)
    assert "licens: no such field; did you mean licence?" in caught.value.cause


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "must be a mapping"),
        ("- a\n- b\n", "must be a mapping"),
        ("just words", "must be a mapping"),
        ("id: [unclosed", "not valid YAML"),
        ("id: a\nid: b\n", "'id' stands twice in line 2"),
        ("sizes: {minimum: 1, minimum: 2}", "'minimum' stands twice"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("a: !!python/object/apply:os.system ['true']", "not valid YAML"),
        ("date: 2026-02-31", "not valid YAML"),
        ("a: \x07", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("? [a, b]\n: c\n", "not valid YAML"),
        ("#" * (MAX_CARD_BYTES + 1), "larger than"),
    ],
)
def test_what_is_no_card_at_all(tmp_path: Path, text: str, reason: str) -> None:
    write(tmp_path, "a.yaml", text)
    catalog = Catalog.load(tmp_path)
    (problem,) = catalog.problems
    assert reason in problem.reason
    assert problem.field == ""
    assert "spark" in catalog


def test_bytes_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_bytes(b"\xff\xfe\x00id")
    (problem,) = Catalog.load(tmp_path).problems
    assert "UTF-8" in problem.reason


def test_a_file_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(CatalogProblems) as caught:
        read_cards(tmp_path / "none.yaml")
    assert "No such file" in caught.value.cause


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    file = write(tmp_path, "cards", "x")
    (problem,) = Catalog.load(file).problems
    assert "cannot be read" in problem.reason


def test_sparks_card_lists_the_words_that_its_tokenizer_reads() -> None:
    file = Path(__file__).parents[3] / "training" / "spark" / "words.json"
    trained = json.loads(file.read_text(encoding="utf-8"))
    vocabulary = Catalog.load().get("spark").vocabulary
    assert vocabulary is not None
    for _, phrases in trained["rules"]:
        for phrase in phrases:
            assert unknown_words(phrase, vocabulary) == []
    assert set(vocabulary.ignored) == set(trained["ignored"])


FAMILY = """\
shared:
  title: Shared
  sizes: {default: [64, 64]}
models:
  - {id: one, source: {path: one}}
  - {id: two, title: Two, source: {path: two}, sizes: {default: [32, 32]}}
"""


def write_family(folder: Path, text: str = FAMILY) -> Path:
    """A family's file made of spark's card, with what `text` says on top."""
    card = yaml.safe_load((resources.files("kinoloom.catalog") / "cards/spark.yaml").read_text())
    says = yaml.safe_load(text)
    for name in ("id", "source", "title"):
        del card[name]
    card["sizes"] |= {"multiple_of": 32, "minimum": 32, "only_native": False}
    sizes = says["shared"].pop("sizes", {})
    says["shared"] = card | says["shared"] | {"sizes": card["sizes"] | sizes}
    for model in says["models"]:
        if "sizes" in model:
            model["sizes"]["native"] = [[32, 32], [64, 64]]
    says["shared"]["sizes"]["native"] = [[64, 64]]
    file = folder / "family.yaml"
    file.write_text(yaml.safe_dump(says), encoding="utf-8")
    return file


def test_a_family_shares_what_its_models_do_not_say(tmp_path: Path) -> None:
    one, two = read_cards(write_family(tmp_path))
    assert (one.id, one.title, one.sizes.default) == ("one", "Shared", (64, 64))
    assert (two.id, two.title, two.sizes.default) == ("two", "Two", (32, 32))
    assert two.sizes.native == [(32, 32), (64, 64)]  # a list takes the place of the shared one
    assert one.sizes.multiple_of == two.sizes.multiple_of == 32  # mappings are merged
    assert two.source.folder == tmp_path / "two"


def test_mistakes_in_a_family_say_in_which_model(tmp_path: Path) -> None:
    file = write_family(tmp_path, FAMILY + "  - {id: two, source: {path: x}}\n  - {id: No!}\n")
    with pytest.raises(CatalogProblems) as caught:
        read_cards(file)
    said = {p.field: p.reason for p in caught.value.problems}
    assert said["models"] == "the id 'two' stands twice"
    assert said["models.3.source"] == "is missing"
    assert "models.3.id" in said


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("models: 7", "must be a list"),
        ("models: [7]", "must be a list"),
        ("shared: 7\nmodels: []", "must be a mapping"),
        ("id: x\nmodels: []", "not id"),
    ],
)
def test_a_family_that_is_none(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "family.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(CatalogProblems) as caught:
        read_cards(file)
    assert reason in caught.value.cause
