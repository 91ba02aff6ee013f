"""What can be done with films, as seen from the command line?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinoloom.outcome import outcome, plain_view, settings_now

if TYPE_CHECKING:
    from kinoloom.film_api import Film

film_app = typer.Typer(
    help="Films: storyboards of any length, made shot by shot, that never start over.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")]
File = Annotated[Path, typer.Argument(help="A storyboard: YAML or JSON.")]
Name = Annotated[str, typer.Argument(metavar="FILM", help="Its storyboard file, id or title.")]
Shot = Annotated[str, typer.Argument(help="The shot's id, see `kinoloom film status`.")]
MaxCost = Annotated[
    str | None,
    typer.Option(help="The most that the film may cost, in place of the storyboard's budget."),
]
Format = Annotated[
    str | None, typer.Option("--format", help="mp4, webm, prores or png (a folder).")
]


@film_app.command("new")
def film_new(
    file: Annotated[Path, typer.Argument(help="The storyboard to write.")] = Path("film.yaml"),
    from_: Annotated[
        str | None, typer.Option("--from", help="A text to make shots of; - reads standard input.")
    ] = None,
    title: Annotated[str | None, typer.Option(help="What the film is called.")] = None,
    mode: Annotated[str | None, typer.Option(help="chaining or keyframe.")] = None,
    chat: Annotated[
        bool,
        typer.Option("--chat", help="Let the chat model of the setting reword.url make the shots."),
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write a storyboard: a sample that explains every field, or a text as shots."""
    with outcome(plain_view(as_json)):
        from kinoloom import film_api
        from kinoloom.errors import Conflict
        from kinoloom.film.storyboard import read_storyboard
        from kinoloom.media.output import disk_errors, whole_file
        from kinoloom.terminal import quoted, write, write_json
        from kinoloom.terminal_film import counted_shots

        if not force and (file.exists() or file.is_symlink()):
            raise Conflict(
                f"{file} is there already.", hints=["Choose another name, or give --force."]
            )
        text, note = film_api.new_storyboard(
            title=title,
            mode=mode,
            text=None if from_ is None else _text(from_),
            chat=chat,
            settings=settings_now(),
        )
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(file) as part, disk_errors(file):
            part.write_text(text, encoding="utf-8")
        shots = len(read_storyboard(file).shots)
        if as_json:
            write_json({"file": str(file), "shots": shots, "note": note})
            return
        write(str(file))
        if note is not None:
            write(f"note: {note}")
        write(f"{counted_shots(shots)}; next: kinoloom film plan {quoted(str(file))}")


@film_app.command("check")
def film_check(file: File, as_json: AsJson = False) -> None:
    """Find every mistake in a storyboard, with its line. Exit codes: 0 none, 2 some."""
    with outcome(plain_view(as_json)):
        from kinoloom.film.shots import film_frames, shots_of
        from kinoloom.film.storyboard import read_storyboard
        from kinoloom.terminal import duration, write, write_json
        from kinoloom.terminal_film import counted_shots

        board = read_storyboard(file)
        shots = shots_of(board)
        frames = film_frames(shots)
        if as_json:
            facts = {"file": str(file), "title": board.title, "mode": board.mode}
            write_json(facts | {"shots": len(shots), "frames": frames, "fps": board.fps})
        else:
            length = f"{frames} frames at {board.fps:g} fps ({duration(frames / board.fps)})"
            write(f"{file} is right: {counted_shots(len(shots))}, {length}, {board.mode}")


@film_app.command("plan")
def film_plan(name: Name, max_cost: MaxCost = None, as_json: AsJson = False) -> None:
    """Show what each shot will take and cost, before anything is spent."""
    with outcome(plain_view(as_json)):
        from kinoloom.film_api import Film
        from kinoloom.terminal import write_json

        plan = Film.load(name, max_cost=max_cost, settings=settings_now()).plan()
        if as_json:
            write_json(plan.model_dump(mode="json"))
        else:
            from kinoloom import tables_film

            tables_film.show_film_plan(plan)


@film_app.command("render")
def film_render(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="File or folder to write.")
    ] = None,
    format_: Format = None,
    max_cost: MaxCost = None,
    unknown_price: Annotated[
        bool, typer.Option("--unknown-price", help="Yes to models whose price is not known.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON event a line.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only the path.")] = False,
) -> None:
    """Make a film, or what is missing of it; run again after a crash, it goes on.

    Of a film that was made before only the shots are made again that the storyboard changed. Exit
    codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (finished shots stay).
    """
    from kinoloom.terminal_film import film_view_for

    view = film_view_for(as_json, quiet)
    with outcome(view, "Interrupted; what is finished stays, and is not made again."):
        from kinoloom.film_api import Film, FilmTarget

        settings = settings_now()
        target = FilmTarget.of(output, format_, settings)
        film = Film.load(name, max_cost=max_cost, settings=settings)
        target.check()  # not found out only after hours
        view.film_plan(film.plan())
        status = film.render(on_progress=view.film, on_note=view.note, unknown_price=unknown_price)
        path = film.export(target.path(status.film), target.format)
        view.made(status, path)


@film_app.command("list")
def film_list(
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List films, the newest first."""
    with outcome(plain_view(as_json)):
        from kinoloom import film_api, tables_film
        from kinoloom.terminal import write_json

        with film_api.films_of(settings_now()) as (films, _):
            found = films.list(limit=limit)
        if as_json:
            write_json({"films": [film.as_dict() for film in found]})
        else:
            tables_film.show_films(found)


@film_app.command("status")
def film_status(name: Name, as_json: AsJson = False) -> None:
    """Show how far a film is, shot by shot, and what it cost by now."""
    with outcome(plain_view(as_json)):
        from kinoloom import tables_film
        from kinoloom.terminal import write_json

        status = _film(name).status()
        if as_json:
            write_json(status.as_dict())
        else:
            tables_film.show_status(status)


@film_app.command("retake")
def film_retake(
    name: Name,
    shot: Shot,
    seed: Annotated[int | None, typer.Option(help="Of the first take; else another one.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Other words for the shot.")] = None,
    candidates: Annotated[int, typer.Option(help="How many takes.")] = 1,
    as_json: AsJson = False,
) -> None:
    """Ask for new takes of one shot; the next `render` makes them, and the others stay."""
    with outcome(plain_view(as_json)):
        from kinoloom import tables_film
        from kinoloom.terminal import quoted, write, write_json

        film = _film(name)
        takes = film.retake(shot, seed=seed, prompt=prompt, candidates=candidates)
        if as_json:
            write_json({"takes": [take.as_dict() for take in takes]})
            return
        for take in takes:
            write(tables_film.take_line(take))
        write(f"next: kinoloom film render {quoted(name)}")


@film_app.command("takes")
def film_takes(name: Name, shot: Shot, as_json: AsJson = False) -> None:
    """List the takes of a shot; the chosen one is in the film."""
    with outcome(plain_view(as_json)):
        from kinoloom import tables_film
        from kinoloom.film_api import takes_of
        from kinoloom.terminal import write_json

        takes = takes_of(_film(name).status(), shot)
        if as_json:
            write_json({"takes": list(takes)})
        else:
            tables_film.show_takes(takes)


@film_app.command("choose")
def film_choose(
    name: Name,
    shot: Shot,
    take: Annotated[int, typer.Argument(help="The number, see `kinoloom film takes`.")],
    as_json: AsJson = False,
) -> None:
    """Put another take of a shot into the film; nothing is paid again for what was made."""
    with outcome(plain_view(as_json)):
        from kinoloom import tables_film
        from kinoloom.terminal import write, write_json

        chosen, next_ = _film(name).choose(shot, take)
        if as_json:
            write_json({"take": chosen.as_dict(), "next": next_})
        else:
            write(f"{tables_film.take_line(chosen)}, chosen")
            write(f"next: {next_}")


@film_app.command("export")
def film_export(
    name: Name,
    output: Annotated[Path, typer.Option("--output", "-o", help="File or folder to write.")],
    format_: Annotated[
        str | None,
        typer.Option("--format", help="mp4, webm, prores, png, otio (a timeline) or sheet."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write the film, a timeline for an editor or a picture of all shots to a file.

    The name says the format: .mp4, .webm, .mov (ProRes), .otio, .png (the sheet), or none for a
    folder of pictures.
    """
    with outcome(plain_view(as_json)):
        from kinoloom.terminal import write, write_json

        path = _film(name).export(output, format_)
        if as_json:
            write_json({"path": str(path)})
        else:
            write(str(path))


@film_app.command("delete")
def film_delete(name: Name, as_json: AsJson = False) -> None:
    """Forget a film and its takes; their clips, and the storyboard's file, stay."""
    with outcome(plain_view(as_json)):
        from kinoloom.terminal import write, write_json

        record = _film(name).delete()
        if as_json:
            write_json({"deleted": record.id})
        else:
            write(f"{record.title} ({record.id}) is deleted")


def _film(name: str) -> Film:
    """A film that there is. Raises NotFound and Conflict."""
    from kinoloom.film_api import Film

    return Film.find(name, settings=settings_now())


def _text(source: str) -> str:
    """What is in a text file, or on standard input."""
    import sys

    from kinoloom.errors import InvalidRequest, Problem
    from kinoloom.film.split import MAX_TEXT_BYTES

    try:
        if source == "-":
            raw = sys.stdin.buffer.read(MAX_TEXT_BYTES + 1)
        else:
            with Path(source).open("rb") as stream:
                raw = stream.read(MAX_TEXT_BYTES + 1)
        if len(raw) > MAX_TEXT_BYTES:
            problem = Problem("--from", source, f"a text of at most {MAX_TEXT_BYTES} bytes")
            raise InvalidRequest([problem])
        return raw.decode("utf-8-sig")
    except OSError as error:
        problem = Problem("--from", source, f"a file that can be read ({error.strerror})")
    except UnicodeDecodeError:
        problem = Problem("--from", source, "a text in UTF-8")
    raise InvalidRequest([problem])
