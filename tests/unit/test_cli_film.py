from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner, Result

import kinoloom
from kinoloom import cli
from kinoloom.config import load_settings
from kinoloom.errors import Conflict, InvalidRequest, NotFound
from kinoloom.film.board import Storyboard
from kinoloom.film_api import Film, FilmTarget, films_of, format_for
from kinoloom.jobs.film_here import FilmHere
from kinoloom.jobs.film_names import FilmNames
from kinoloom.jobs.film_status import FilmStatus
from kinoloom.jobs.planning import machine_of
from kinoloom.store.films import FilmRecord
from kinoloom.store.held import held_store
from kinoloom.store.jobs import JobRecord
from kinoloom.store.store import Store
from kinoloom.store.workers import WorkerQueue, WorkerRecord

Kinoloom = Callable[..., Result]

STORY = """\
title: Two balls
model: tiny
size: [64, 64]
fps: 8
seed: 3
shots:
  - {id: first, prompt: a red ball, frames: 9}
  - {id: second, prompt: a blue ball, frames: 9}
"""


def run(*arguments: object, text: str | None = None) -> Result:
    """Run a command; an exception that is no exit fails the test."""
    result = CliRunner().invoke(cli.app, ["film", *map(str, arguments)], input=text)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def place(folder: Path, cards: Path, patch: pytest.MonkeyPatch) -> None:
    """A user's place: a current folder, a store of its own, and the tiny model."""
    patch.chdir(folder)
    patch.setattr("platformdirs.user_config_dir", lambda *_, **__: str(folder / "conf"))
    for name, value in {
        "KINOLOOM_HOME": folder / "home",
        "KINOLOOM_OUTPUTS": folder / "out",
        "KINOLOOM_MODELS": cards,
        "KINOLOOM_DEFAULT_MODEL": "tiny",
        "KINOLOOM_DEVICE": "cpu",
        "COLUMNS": "200",
        "OMP_NUM_THREADS": "1",
    }.items():
        patch.setenv(name, str(value))


@pytest.fixture
def studio(tmp_path: Path, tiny_cards: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    place(tmp_path, tiny_cards, monkeypatch)
    return tmp_path


@pytest.fixture
def story(studio: Path) -> Path:
    file = studio / "film.yaml"
    file.write_text(STORY)
    return file


@pytest.fixture
def store(studio: Path) -> Store:
    return held_store(load_settings())


def made_of(file: Path) -> FilmRecord:
    """The film of a file, as `render` would begin it."""
    from kinoloom.film.storyboard import read_storyboard

    with films_of(load_settings()) as (_, names):
        return names.made_of(file, read_storyboard(file))


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


# --- rendering ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory, tiny_cards: Path) -> Iterator[Result]:
    """A film that the tiny model made in the current folder, and what the command told."""
    folder = tmp_path_factory.mktemp("film")
    with pytest.MonkeyPatch.context() as patch:
        place(folder, tiny_cards, patch)
        (folder / "film.yaml").write_text(STORY)
        yield run("render", "film.yaml", "--json", "-o", "film.mp4")


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.mark.slow
def test_a_film_is_rendered_and_told_of(rendered: Result) -> None:
    from kinoloom.media.reader import probe

    assert rendered.exit_code == 0, rendered.output
    told = lines(rendered)
    assert [line["type"] for line in (told[0], told[-1])] == ["plan", "success"]
    progress = [line for line in told if line["type"] == "progress"]
    assert [line["done"] for line in progress] == sorted(line["done"] for line in progress)
    assert (progress[-1]["done"], progress[-1]["total"]) == (2, 2)
    assert told[-1]["path"] == "film.mp4"
    assert (probe("film.mp4").frames, probe("film.mp4").fps) == (18, 8)
    status = json.loads(run("status", "film.yaml", "--json").stdout)
    assert [shot["state"] for shot in status["shots"]] == ["done", "done"]
    shown = run("status", "film.yaml").stdout
    assert "2 of 2 shots done, finished" in shown


@pytest.mark.slow
def test_rendered_again_it_is_there_already(rendered: Result) -> None:
    before = json.loads(run("status", "film.yaml", "--json").stdout)["shots"]
    again = run("render", "film.yaml", "--quiet")
    assert again.exit_code == 0, again.output
    path = Path(again.stdout.strip())
    assert path.parent.name == "out"
    assert path.read_bytes() == Path("film.mp4").read_bytes()
    after = json.loads(run("status", "film.yaml", "--json").stdout)["shots"]
    assert [shot["clips"] for shot in after] == [shot["clips"] for shot in before]


@pytest.mark.slow
def test_a_film_is_exported_in_other_forms(rendered: Result) -> None:
    assert run("export", "film.yaml", "-o", "frames").exit_code == 0
    assert len(list(Path("frames").glob("*.png"))) == 18
    assert run("export", "Two balls", "-o", "sheet.png").stdout == "sheet.png\n"
    assert Path("sheet.png").read_bytes().startswith(b"\x89PNG")
    assert json.loads(run("export", "film.yaml", "-o", "a.otio", "--json").stdout) == {
        "path": "a.otio"
    }
    assert json.loads(Path("a.otio").read_text())["OTIO_SCHEMA"] == "Timeline.1"


@pytest.mark.slow
def test_a_program_uses_the_same_film(rendered: Result) -> None:
    film = kinoloom.Film.load("film.yaml")
    assert film.plan().reused == 2
    assert film.status().done == 2
    assert film.export("copy.mp4").read_bytes() == Path("film.mp4").read_bytes()
    with pytest.raises(NotFound):
        kinoloom.Film.load("Three balls")


# --- a command that was killed, another one, a worker -------------------------------------------


class Watch:
    """Remembers what it is told, and may stop it."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.seen: list[FilmStatus] = []
        self.on_film: Callable[[], None] = lambda: None

    def note(self, text: str) -> None:
        self.notes.append(text)

    def film(self, status: FilmStatus) -> None:
        self.seen.append(status)
        self.on_film()


def begun(record: FilmRecord, store: Store, **changes: Any) -> JobRecord:
    """The job of a film, in a command's queue and handed to its process."""
    with films_of(load_settings()) as (films, _):
        job = films.render(record.id, origin="cli", queue="cli-gone")
    moved = store.jobs.move(job.id, "running", expect=["queued"], worker_to="cli-gone", **changes)
    assert moved is not None
    return moved


def test_what_a_killed_command_had_is_taken_from_it(story: Path, store: Store) -> None:
    record = made_of(story)
    job = begun(record, store)
    with FilmHere(load_settings()) as here:
        left = here.interrupted(record.id)
        assert left is not None
        assert (left.id, left.state, left.run) == (job.id, "held", job.run + 1)
        assert here.interrupted(record.id) == left


def test_a_storyboard_changed_after_a_kill_is_rendered_all_the_same(
    story: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = made_of(story)
    job = begun(record, store)
    story.write_text(STORY.replace("a blue ball", "a green ball"))
    asked: list[str] = []
    monkeypatch.setattr(FilmHere, "render", lambda _here, film, _view, **_: asked.append(film))
    notes: list[str] = []
    Film.load(story).render(on_note=notes.append)
    assert asked == [record.id]
    assert (store.jobs.get(job.id) or job).state == "cancelled"
    assert job.id in notes[0]
    changed = store.films.get(record.id)
    assert changed is not None
    assert changed.storyboard["shots"][1]["prompt"] == "a green ball"


def worker(store: Store, name: str, *queues: str) -> None:
    """A worker of another machine that gave a sign just now."""
    now = datetime.now(UTC)
    places = tuple(WorkerQueue(queue, "cpu") for queue in queues)
    store.workers.beat(
        WorkerRecord(
            id=name,
            host="elsewhere",
            pid=1,
            queues=places,
            machine=asdict(machine_of(load_settings())),
            version="1",
            started_at=now,
            beat_at=now,
        )
    )


def test_two_commands_do_not_render_one_film(story: Path, store: Store) -> None:
    record = made_of(story)
    begun(record, store)
    worker(store, "cli-gone")
    with FilmHere(load_settings()) as here, pytest.raises(Conflict, match="another command"):
        here.render(record.id, Watch())
    refused = run("render", story)
    assert (refused.exit_code, "another command" in refused.stderr) == (1, True)


@pytest.mark.parametrize("killed", [False, True])
def test_a_worker_that_runs_gets_the_film(
    story: Path, store: Store, killed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kinoloom.jobs import film_here as module

    record, watch = made_of(story), Watch()
    left = begun(record, store) if killed else None
    worker(store, "machine", "cpu", "film")

    def end() -> None:
        job = watch.seen[-1].job
        if job is not None and job.state == "queued":
            assert job.queue == "film"
            error = {"kind": "timeout", "message": "Too late.", "cause": "", "hints": []}
            store.events.add(job.id, "log", {"message": "something to know"})
            store.jobs.move(job.id, "failed", expect=["queued"], error=error)

    monkeypatch.setattr(module, "_LOOK_SECONDS", 0.0)
    watch.on_film = end
    with FilmHere(load_settings()) as here, pytest.raises(kinoloom.KinoloomError, match="Too late"):
        here.render(record.id, watch)
    job = watch.seen[-1].job
    assert job is not None
    assert (left is not None and left.id == job.id) == killed
    assert any("worker that is running" in note for note in watch.notes)
    assert "something to know" in watch.notes


def test_a_key_cancels_the_film(story: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    record, watch = made_of(story), Watch()
    worker(store, "machine", "cpu", "film")

    def stop() -> None:
        raise KeyboardInterrupt

    watch.on_film = stop
    with FilmHere(load_settings()) as here, pytest.raises(KeyboardInterrupt):
        here.render(record.id, watch)
    job = watch.seen[-1].job
    assert job is not None
    assert (store.jobs.get(job.id) or job).state == "cancelled"
    monkeypatch.setattr(Film, "render", lambda *_, **__: stop())
    shown = run("render", story)
    assert shown.exit_code == 130
    assert "what is finished stays" in shown.stderr


# --- what is shown --------------------------------------------------------------------------


def status_of(record: FilmRecord, **changes: Any) -> FilmStatus:
    with films_of(load_settings()) as (films, _):
        return replace(films.status(record.id), **changes)


def test_progress_is_told_by_shots(story: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from kinoloom.terminal_film import PlainFilmView, QuietFilmView, status_line

    status = status_of(made_of(story), done=1, step="second", eta=80.0, spent="0.6")
    line = "1 of 2 shots done, second, 1 min 20 s left, 0.60 USD spent"
    assert status_line(status) == line
    assert status_line(replace(status, reserved="0.4")) == line + ", 0.40 USD reserved"
    view = PlainFilmView()
    for _ in range(3):
        view.film(status)
    assert capsys.readouterr().err == line + "\n"
    view.made(status, Path("a.mp4"))
    assert capsys.readouterr().out.splitlines()[:2] == ["a.mp4", "2 shots; 0.60 USD spent"]
    QuietFilmView().made(status, Path("a.mp4"))
    assert capsys.readouterr().out == "a.mp4\n"


def test_a_bar_leaves_nothing_behind(story: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from kinoloom.terminal_film import BarFilmView

    view = BarFilmView()
    status = status_of(made_of(story), done=1, step="[bold]", eta=80.0, spent="0.6")
    view.film(status)
    view.film(replace(status, done=2, eta=None))
    view.made(status, Path("a.mp4"))
    assert capsys.readouterr().out.startswith("a.mp4\n")
    view.failed(NotFound("Nothing."))
    assert "Nothing." in capsys.readouterr().err


def test_what_failed_is_shown_with_its_hint(
    story: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from kinoloom import tables_film

    error = {"kind": "timeout", "message": "Too late.", "hints": ["Smaller."]}
    status = status_of(made_of(story))
    shots = [dict(shot, state="failed", error=error) for shot in status.shots]
    tables_film.show_status(replace(status, shots=tuple(shots)))
    shown = capsys.readouterr().out
    assert "- first: Too late." in shown
    assert "  -> Smaller." in shown


def test_names_are_read_without_trust(store: Store, studio: Path) -> None:
    with films_of(load_settings()) as (films, _):
        names = FilmNames(films, load_settings().home)
        with pytest.raises(NotFound):
            names.find("a\0b")
