"""What can be done with jobs, and what was done by now, as seen from the command line?"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from kinoloom.outcome import outcome, plain_view, settings_now

if TYPE_CHECKING:
    from kinoloom.jobs.service import JobService
    from kinoloom.store.job_record import JobRecord
    from kinoloom.store.remote_calls import RemoteCall

jobs_app = typer.Typer(
    help="The jobs that wait, run, or are done: of commands, of the server, of other machines.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")]
Id = Annotated[str, typer.Argument(help="The job's id, see `kinoloom jobs list`.")]


@jobs_app.command("list")
def jobs_list(
    state: Annotated[
        list[str] | None,
        typer.Option(
            help="held, queued, running, cancelling, succeeded, failed, cancelled or dead;"
            " may be repeated."
        ),
    ] = None,
    queue: Annotated[str | None, typer.Option(help="Only of this queue.")] = None,
    model: Annotated[str | None, typer.Option(help="Only of this model.")] = None,
    search: Annotated[str, typer.Option(help="Words of the prompt.")] = "",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 20,
    as_json: AsJson = False,
) -> None:
    """List jobs, the newest first."""
    with _service(as_json) as service:
        from kinoloom import tables
        from kinoloom.jobs.service import checked_states
        from kinoloom.terminal import write_json

        found = service.list(
            limit=limit,
            states=checked_states(state or ()),
            queue=queue,
            model=model,
            search=search,
        )
        if as_json:
            write_json({"jobs": [job.as_dict() for job in found]})
        else:
            tables.show_jobs(found)


@jobs_app.command("show")
def jobs_show(job: Id, as_json: AsJson = False) -> None:
    """Show a job: its state, what was told of it, the calls to services, and how it ended."""
    with _service(as_json) as service:
        from kinoloom import tables
        from kinoloom.terminal import write, write_json

        found, events, calls = service.get(job), service.events(job), service.calls(job)
        if as_json:
            told = {
                "events": [event.as_dict() for event in events],
                "calls": [call.as_dict() for call in calls],
            }
            write_json(found.as_dict() | told)
        else:
            tables.show_job(found, events)
            for call in calls:
                write(_call_line(call))


@jobs_app.command("cancel")
def jobs_cancel(job: Id, as_json: AsJson = False) -> None:
    """Stop a job: at once when it waits, at its next step when it runs."""
    _change(job, as_json, lambda service: service.cancel(job))


@jobs_app.command("hold")
def jobs_hold(job: Id, as_json: AsJson = False) -> None:
    """Let a job wait until it is released."""
    _change(job, as_json, lambda service: service.hold(job))


@jobs_app.command("release")
def jobs_release(job: Id, as_json: AsJson = False) -> None:
    """Let a job that is held, or whose command was killed, go on at a worker."""
    _change(job, as_json, lambda service: service.release(job))


@jobs_app.command("retry")
def jobs_retry(job: Id, as_json: AsJson = False) -> None:
    """Run a job again that failed or was cancelled."""
    _change(job, as_json, lambda service: service.retry(job))


@jobs_app.command("resolve")
def jobs_resolve(
    job: Id,
    remote_id: Annotated[
        str | None, typer.Option(help="The service has the order, and calls it this.")
    ] = None,
    not_accepted: Annotated[
        bool, typer.Option("--not-accepted", help="The service does not have the order.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Say whether a service has an order, where it gave no answer and cannot be asked.

    The job then goes on at a worker, or where none is running when its command is run again.
    """
    _change(
        job,
        as_json,
        lambda service: service.resolve(job, remote_id=remote_id, not_accepted=not_accepted),
    )


def stats(as_json: AsJson = False) -> None:
    """Show what was made by now: clips, frames, time, caches, queues, cost."""
    with _service(as_json) as service:
        from kinoloom import tables
        from kinoloom.terminal import write_json

        found = service.statistics()
        if as_json:
            write_json(found)
        else:
            tables.show_statistics(found)


def _call_line(call: RemoteCall) -> str:
    """A call to a service in one line."""
    from kinoloom.planner.cost import shown

    costs = "price unknown"
    if (paid := call.charged) is not None:
        costs = f"charged {shown(paid, call.currency)}"
    elif not call.open:
        costs = "charge unknown"
    elif call.reserved is not None:
        costs = f"{shown(call.reserved, call.currency)} set aside"
    there = f" as {call.remote_id}" if call.remote_id is not None else ""
    return f"take {call.take + 1}, {call.model} on {call.backend}{there}: {call.state}, {costs}"


def _change(job: str, as_json: bool, change: Callable[[JobService], JobRecord]) -> None:
    with _service(as_json) as service:
        from kinoloom.terminal import write, write_json

        changed = change(service)
        if as_json:
            write_json(changed.as_dict())
        else:
            write(f"{changed.id} is {changed.state}")


@contextmanager
def _service(as_json: bool) -> Iterator[JobService]:
    with outcome(plain_view(as_json)):
        from kinoloom.jobs.service import JobService
        from kinoloom.store.held import held_store

        settings = settings_now()
        service = JobService(settings, held_store(settings))
        try:
            yield service
        finally:
            service.close()
