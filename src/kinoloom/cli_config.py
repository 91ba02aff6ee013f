"""How are the settings looked at and checked from the command line?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kinoloom.outcome import outcome, plain_view

if TYPE_CHECKING:
    from kinoloom.config_load import Loaded

config_app = typer.Typer(
    help="The settings: which hold, what may be set, and what is wrong with a file.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")]


@config_app.command("check")
def config_check(
    file: Annotated[
        Path | None,
        typer.Argument(help="The settings file; without, the one that counts here."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Explain every mistake in the settings, with its line, and what looks odd.

    Exit codes: 0 they can be used, 2 they cannot.
    """
    with outcome(plain_view(as_json)):
        from kinoloom.config import settings_file
        from kinoloom.config_warnings import warnings
        from kinoloom.terminal import write, write_json

        found = file or settings_file()
        odd = warnings(_checked(found, with_environment=file is None))
        if as_json:
            write_json(
                {"file": None if found is None else str(found), "problems": [], "warnings": odd}
            )
            return
        for warning in odd:
            write(f"!!  {warning}")
        what = "the defaults and the environment" if found is None else str(found)
        write(f"ok  {what}: no mistakes")


@config_app.command("sample")
def config_sample(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="A new file, such as kinoloom.yaml; else it is shown."),
    ] = None,
) -> None:
    """Write a settings file with every setting in a comment: what it is, and its default."""
    with outcome(plain_view(as_json=False)):
        from kinoloom.config_view import sample
        from kinoloom.terminal import write

        if output is None:
            typer.echo(sample(), nl=False)
            return
        _write_new(output, sample())
        write(f"{output}; what holds: kinoloom config show")


@config_app.command("show")
def config_show(as_json: AsJson = False) -> None:
    """Show every setting as it holds now, and who says so; secrets as ***."""
    with outcome(plain_view(as_json)):
        import os

        from kinoloom import tables
        from kinoloom.config import settings_file
        from kinoloom.config_load import load
        from kinoloom.config_view import rows
        from kinoloom.terminal import write_json

        file = settings_file()
        found = rows(load(file, os.environ))
        if as_json:
            write_json({"file": None if file is None else str(file), "settings": found})
        else:
            tables.show_settings_in_use(found)


def _checked(file: Path | None, *, with_environment: bool) -> Loaded:
    """The settings of a file. Raises InvalidRequest with all mistakes of it and the environment.

    The file is read alone as well: a mistake in it that a variable covers up is still one.
    """
    import os

    from kinoloom.config_load import PREFIX, load
    from kinoloom.errors import InvalidRequest, Problem

    alone = {name: text for name, text in os.environ.items() if not name.startswith(PREFIX)}
    problems: dict[str, Problem] = {}
    loaded: Loaded | None = None
    first: InvalidRequest | None = None
    for environment in (alone, dict(os.environ)) if with_environment else (alone,):
        try:
            loaded = load(file, environment)
        except InvalidRequest as error:
            first = first or error
            problems |= {str(problem): problem for problem in error.problems}
    if first is not None or loaded is None:
        raise InvalidRequest(
            list(problems.values()),
            message=first.message if first is not None else "",
            hints=[
                "Correct or remove what is named above; what may be set: kinoloom config sample"
            ],
        )
    return loaded


def _write_new(file: Path, text: str) -> None:
    """Write a file that is not there yet, which only its owner may read: keys will stand in it."""
    import os

    from kinoloom.errors import InvalidRequest, OutputFailed, Problem

    try:
        number = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(number, "w", encoding="utf-8") as stream:
            stream.write(text)
    except FileExistsError:
        raise InvalidRequest(
            [Problem("--output", str(file), "a file that is not there yet")],
            hints=["Choose another name, or remove that file first."],
        ) from None
    except OSError as error:
        raise OutputFailed(
            f"{file} cannot be written.",
            cause=error.strerror or str(error),
            hints=["Choose a folder that exists and that you may write to."],
        ) from error
