"""What can make clips, as seen from the command line?"""

from __future__ import annotations

from typing import Annotated

import typer

from kinoloom.outcome import outcome, plain_view, settings_now


def backends(
    check: Annotated[
        bool, typer.Option("--check", help="Try each key with one call that costs nothing.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")] = False,
) -> None:
    """List what can make clips: whether it is ready, what it costs, and what is missing.

    A backend that does not answer within seconds is told as such.
    """
    with outcome(plain_view(as_json)):
        from kinoloom import tables
        from kinoloom.readiness import list_backends
        from kinoloom.terminal import write_json

        rows = list_backends(settings_now(), verify=check)
        if as_json:
            write_json({"backends": rows})
        else:
            tables.show_backends(rows)
