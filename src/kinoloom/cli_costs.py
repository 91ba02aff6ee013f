"""What did services cost, as seen from the command line?"""

from __future__ import annotations

from typing import Annotated

import typer

from kinoloom.outcome import outcome, plain_view, settings_now


def costs(
    by: Annotated[str, typer.Option(help="day, backend, model, film or key.")] = "day",
    since: Annotated[
        str | None, typer.Option(help="The first day (UTC) that counts, as 2026-11-01.")
    ] = None,
    until: Annotated[
        str | None, typer.Option(help="The last day (UTC) that counts, as 2026-11-30.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")] = False,
) -> None:
    """Show what services cost, and what is left of the budgets."""
    with outcome(plain_view(as_json)):
        from kinoloom import tables
        from kinoloom.jobs.costs import checked_day, checked_group, cost_report
        from kinoloom.store.held import held_store
        from kinoloom.terminal import write_json

        group = checked_group(by)
        first, last = checked_day("--since", since), checked_day("--until", until)
        settings = settings_now()
        found = cost_report(settings, held_store(settings), group, first, last)
        if as_json:
            write_json(found)
        else:
            tables.show_costs(found)
