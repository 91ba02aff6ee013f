"""Is a film rendered once, told of and exported, whoever was killed or runs elsewhere?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import Result

import kinoloom
from kinoloom.config import load_settings
from kinoloom.errors import Conflict, NotFound
from kinoloom.film_api import Film, films_of
from kinoloom.jobs.film_here import FilmHere
from kinoloom.jobs.film_status import FilmStatus
from kinoloom.jobs.planning import machine_of
from kinoloom.store.films import FilmRecord
from kinoloom.store.job_record import JobRecord
from kinoloom.store.store import Store
from kinoloom.store.workers import WorkerQueue, WorkerRecord
from unit.cli_film.storyteller import STORY, made_of, place, run

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
