"""How does a command end: with which exit code, and what is said when it fails?"""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn

import typer

if TYPE_CHECKING:
    from kinoloom.config import Settings
    from kinoloom.terminal import View
    from kinoloom.terminal_film import FilmView

FAILED, USAGE, INTERRUPTED = 1, 2, 130


def settings_now() -> Settings:
    """The settings that hold for a command; see `load_settings`."""
    from kinoloom.config import load_settings

    return load_settings()


def plain_view(as_json: bool) -> View:
    """The view of a command that shows no job."""
    from kinoloom.terminal import view_for

    return view_for(as_json, quiet=not as_json)


@contextmanager
def outcome(
    view: View | FilmView, interrupted: str = "Interrupted; nothing partial was left behind."
) -> Iterator[None]:
    """Turn how a command ends into what is shown and the exit code."""
    from kinoloom.errors import Cancelled, InvalidRequest, KinoloomError

    def stop(number: int, frame: object) -> NoReturn:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KinoloomError as error:
        view.failed(error)
        raise typer.Exit(USAGE if isinstance(error, InvalidRequest) else FAILED) from None
    except KeyboardInterrupt:
        view.failed(Cancelled(interrupted))
        raise typer.Exit(INTERRUPTED) from None
    finally:
        signal.signal(signal.SIGTERM, previous)
