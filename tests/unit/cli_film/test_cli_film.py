"""Can a film be written, checked, named, planned, taken anew and deleted by commands?"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from kinoloom.config import load_settings
from kinoloom.errors import InvalidRequest, NotFound
from kinoloom.film.board import Storyboard
from kinoloom.film_api import FilmTarget, films_of, format_for
from kinoloom.jobs.film_names import FilmNames
from kinoloom.store.films import FilmRecord
from kinoloom.store.store import Store
from unit.cli_film.storyteller import STORY, made_of, run

# --- new and check --------------------------------------------------------------------------


def test_a_new_storyboard_is_right_as_it_is(studio: Path) -> None:
    made = run("new", "--title", "My: film", "--mode", "keyframe")
    assert (made.exit_code, made.stdout.splitlines()[0]) == (0, "film.yaml")
    data = yaml.safe_load((studio / "film.yaml").read_text())
    assert (data["title"], data["mode"]) == ("My: film", "keyframe")
    checked = json.loads(run("check", "film.yaml", "--json").stdout)
    assert (checked["shots"], checked["mode"]) == (3, "keyframe")
    assert "film.yaml is right: 3 shots" in run("check", "film.yaml").stdout


def test_a_file_that_is_there_is_not_replaced(story: Path) -> None:
    for name in (story, story.parent):
        refused = run("new", name)
        assert refused.exit_code == 1
        assert "is there already" in refused.stderr
    assert story.read_text() == STORY
    assert run("new", story, "--force").exit_code == 0
    assert story.read_text() != STORY


@pytest.mark.parametrize("source", ["story.txt", "-"])
def test_a_text_becomes_shots(studio: Path, source: str) -> None:
    text = "A red ball rolls over the grass: slowly. Yes.\n\n'No!' she says, and the moon rises."
    (studio / "story.txt").write_text(text)
    made = run("new", "a.yaml", "--from", source, "--json", text=text)
    assert json.loads(made.stdout) == {"file": "a.yaml", "shots": 2, "note": None}
    shots = yaml.safe_load((studio / "a.yaml").read_text())["shots"]
    assert [shot["id"] for shot in shots] == ["shot-001", "shot-002"]
    assert "".join(shot["prompt"] for shot in shots).replace(" ", "") == "".join(text.split())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--mode", "both"), "keyframe or chaining"),
        (("--title", ""), "title"),
        (("--from", "none.txt"), "No such file"),
        (("--from", "bytes.txt"), "UTF-8"),
        (("--from", "long.txt"), "100000 bytes"),
        (("--from", "empty.txt"), "a text with words"),
        (("--from", "short.txt", "--chat"), "reword.url"),
    ],
)
def test_what_no_storyboard_can_be_made_of(
    studio: Path, arguments: tuple[str, ...], words: str
) -> None:
    (studio / "bytes.txt").write_bytes(b"\xff\xfe\xff")
    (studio / "long.txt").write_text("word " * 30_000)
    (studio / "empty.txt").write_text("...\n")
    (studio / "short.txt").write_text("A red ball.")
    refused = run("new", "a.yaml", *arguments)
    assert refused.exit_code == 2
    assert words in refused.stderr
    assert not (studio / "a.yaml").exists()


def test_every_mistake_has_its_line(story: Path) -> None:
    story.write_text(STORY.replace("fps: 8", "fbs: 8").replace("frames: 9}", "frames: many}", 1))
    refused = run("check", story)
    assert refused.exit_code == 2
    assert "line 4: fbs" in refused.stderr
    assert "nearest is fps" in refused.stderr
    assert "line 7: shots[0].frames" in refused.stderr
    error = json.loads(run("check", story, "--json").stdout)["error"]
    assert [problem["field"] for problem in error["problems"]] == [
        "line 4: fbs",
        "line 7: shots[0].frames",
    ]
    for command in ("plan", "render"):
        assert run(command, story).exit_code == 2


# --- names ----------------------------------------------------------------------------------


def test_a_film_has_three_names(story: Path) -> None:
    record = made_of(story)
    for name in (story, "film.yaml", record.id, "Two balls", "two BALLS"):
        status = json.loads(run("status", name, "--json").stdout)
        assert status["film"]["id"] == record.id
    listed = json.loads(run("list", "--json").stdout)["films"]
    assert [film["id"] for film in listed] == [record.id]
    assert "Two balls" in run("list").stdout


def test_a_file_stays_the_same_film_and_a_moved_one_does_not(story: Path) -> None:
    record = made_of(story)
    assert made_of(story) == record
    story.write_text(STORY.replace("Two balls", "Three balls"))
    changed = made_of(story)
    assert (changed.id, changed.title) == (record.id, "Three balls")
    moved = story.rename(story.with_name("other.yaml"))
    assert made_of(moved).id != record.id
    run("delete", record.id)
    story.write_text(STORY)
    assert made_of(story).id != record.id


def test_a_film_changed_elsewhere_says_again_what_its_file_says(story: Path) -> None:
    record = made_of(story)
    with films_of(load_settings()) as (films, _):
        board = films.get(record.id).storyboard | {"title": "Elsewhere"}
        films.update(record.id, Storyboard.model_validate(board))
    assert made_of(story).title == "Two balls"


@pytest.mark.parametrize("note", ["", "[]", "{", '{"film": 3}', '{"film": "gone"}'])
def test_a_broken_note_begins_a_new_film(story: Path, note: str) -> None:
    record = made_of(story)
    (file,) = (load_settings().home / "films").iterdir()
    file.write_text(note)
    assert run("status", story).exit_code == 1
    assert made_of(story).id != record.id


@pytest.mark.parametrize("command", ["plan", "render", "status", "delete"])
def test_a_name_of_nothing_is_said_so(story: Path, command: str) -> None:
    made_of(story)
    for name, words in (
        ("Two bals", "Is 'Two balls' meant?"),
        ("none.yaml", "none.yaml"),
        ("x" * 5000, "There is no film"),
    ):
        refused = run(command, name)
        assert refused.exit_code in (1, 2)
        assert words in refused.stderr
        assert len(refused.stderr) < 1000


def test_a_title_of_two_films_names_neither(story: Path, studio: Path) -> None:
    (studio / "again.yaml").write_text(STORY)
    ids = {made_of(story).id, made_of(studio / "again.yaml").id}
    refused = run("status", "Two balls")
    assert refused.exit_code == 1
    assert all(one in refused.stderr for one in ids)


def test_names_are_read_without_trust(store: Store, studio: Path) -> None:
    with films_of(load_settings()) as (films, _):
        names = FilmNames(films, load_settings().home)
        with pytest.raises(NotFound):
            names.find("a\0b")


# --- plan, shots, takes ---------------------------------------------------------------------


def test_a_plan_shows_every_shot_and_makes_nothing(story: Path) -> None:
    shown = run("plan", story)
    assert shown.exit_code == 0
    for words in ("first", "tiny on local", "2 shots, 18 frames", "cost: free", "a blue ball"):
        assert words in shown.stdout
    plan = json.loads(run("plan", story, "--json", "--max-cost", "2.50").stdout)
    assert [shot["id"] for shot in plan["shots"]] == ["first", "second"]
    assert (plan["frames"], plan["clips"], plan["budget"]) == (18, 2, "2.5")
    assert json.loads(run("list", "--json").stdout) == {"films": []}
    record = made_of(story)
    again = json.loads(run("plan", record.id, "--json", "--max-cost", "3").stdout)
    assert (again["budget"], again["shots"]) == ("3", plan["shots"])
    assert run("plan", story, "--max-cost", "much").exit_code == 2


def test_new_takes_wait_for_the_next_render(story: Path) -> None:
    made_of(story)
    taken = run("retake", story, "second", "--seed", "5", "--candidates", "2")
    assert taken.stdout.splitlines() == [
        "second: take 1, seed 5",
        "second: take 2, seed 6",
        f"next: kinoloom film render {story}",
    ]
    third = json.loads(run("retake", story, "second", "--prompt", "a ball", "--json").stdout)
    assert [take["prompt"] for take in third["takes"]] == ["a ball"]
    takes = json.loads(run("takes", story, "second", "--json").stdout)["takes"]
    assert [take["chosen"] for take in takes] == [False, False, True]
    assert "chosen" in run("takes", story, "second").stdout
    chosen = json.loads(run("choose", story, "second", "1", "--json").stdout)
    assert (chosen["take"]["number"], chosen["take"]["seed"]) == (1, 5)
    assert "second: take 2, seed 6, chosen" in run("choose", story, "second", "2").stdout


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("retake", "third"), 1, "no shot 'third'"),
        (("retake", "first", "--seed", "-1"), 2, "seed"),
        (("retake", "first", "--candidates", "0"), 2, "candidates"),
        (("takes", "frist"), 1, "first"),
        (("choose", "first", "7"), 1, "no take 7"),
    ],
)
def test_what_cannot_be_taken(
    story: Path, arguments: tuple[str, ...], code: int, words: str
) -> None:
    made_of(story)
    refused = run(arguments[0], story, *arguments[1:])
    assert refused.exit_code == code
    assert words in refused.stderr


def test_a_film_that_was_not_rendered_is_not_exported(story: Path) -> None:
    made_of(story)
    refused = run("export", story, "-o", "film.mp4")
    assert refused.exit_code == 1
    assert "kinoloom film render" in refused.stderr


def test_a_film_is_forgotten_and_its_file_stays(story: Path) -> None:
    record = made_of(story)
    assert run("delete", story).stdout == f"Two balls ({record.id}) is deleted\n"
    assert story.exists()
    assert run("status", record.id).exit_code == 1


# --- formats --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "kind"),
    [
        ("a.mp4", None, "mp4"),
        ("a.WEBM", None, "webm"),
        ("a.mov", None, "prores"),
        ("a.otio", None, "otio"),
        ("a.png", None, "sheet"),
        ("frames", None, "png"),
        ("a.b", "png", "png"),
        ("a.mov", "prores", "prores"),
    ],
)
def test_a_name_says_the_format(name: str, given: str | None, kind: str) -> None:
    assert format_for(Path(name), given) == kind


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("a.avi", None),
        ("a.mp4", "webm"),
        ("a.mp4", "gif"),
        ("a.png", "png"),
        ("a", "mp4"),
        ("", "mp4"),
    ],
)
def test_a_name_that_says_another_format_is_refused(name: str, given: str | None) -> None:
    with pytest.raises(InvalidRequest):
        format_for(Path(name), given)


def test_where_a_film_goes_when_nobody_says(studio: Path) -> None:
    settings = load_settings()
    record = FilmRecord(title="A Walk!", mode="chaining", storyboard={}, id="0-12345678")
    for output, given, path in (
        (None, None, settings.outputs / "a-walk-12345678.mp4"),
        (None, "png", settings.outputs / "a-walk-12345678"),
        (studio, "prores", studio / "a-walk-12345678.mov"),
        (studio / "x.webm", None, studio / "x.webm"),
    ):
        target = FilmTarget.of(output, given, settings)
        assert target.path(record) == path
        target.check()
    for output, given in ((None, "otio"), (Path("x.otio"), None), (None, "gif")):
        with pytest.raises(InvalidRequest):
            FilmTarget.of(output, given, settings)
