"""How are the server and its workers started from the command line?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from kinoloom.outcome import outcome, plain_view

if TYPE_CHECKING:
    from kinoloom.config import Settings

DatabaseUrl = Annotated[
    str | None,
    typer.Option(help="postgresql://user:password@host/name, for several machines."),
]


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    database_url: DatabaseUrl = None,
    require_key: Annotated[
        bool, typer.Option("--require-key", help="Ask for API keys on this machine too.")
    ] = False,
    no_worker: Annotated[
        bool, typer.Option("--no-worker", help="Only the API; workers run elsewhere.")
    ] = False,
) -> None:
    """Start the API, its live events, and a worker that renders.

    Listens on this machine alone, without keys. Any other --host needs keys: kinoloom keys create.
    """
    with outcome(plain_view(as_json=False), interrupted="The server was ended."):
        from kinoloom.terminal import write

        settings = _settings(database_url)
        run = _server()
        from kinoloom.jobs.supervisor import WorkerSupervisor

        run(
            settings,
            host=host,
            port=port,
            require_key=require_key,
            start_worker=None if no_worker else lambda: WorkerSupervisor(settings),
            on_ready=lambda url: write(f"Kinoloom is at {url} (Ctrl-C ends it)"),
        )


def worker(
    name: Annotated[
        str | None, typer.Option(help="What to call it, the same after a restart; else the host.")
    ] = None,
    queue: Annotated[
        list[str] | None,
        typer.Option("--queue", help="Queue to serve, such as gpu, cpu or api; may be repeated."),
    ] = None,
    database_url: DatabaseUrl = None,
    supervised: Annotated[
        bool, typer.Option("--supervised", hidden=True, help="End with the process that began it.")
    ] = False,
) -> None:
    """Run the jobs that wait in queues, on this machine.

    Without --queue it serves what this machine can do. On SIGTERM or Ctrl-C it stops, and what it
    was rendering waits for another worker.
    """
    with outcome(plain_view(as_json=False), interrupted="The worker was ended."):
        from kinoloom.jobs.running import run_worker

        run_worker(_settings(database_url), name=name, queues=queue, supervised=supervised)


def _settings(database_url: str | None) -> Settings:
    from kinoloom.config import load_settings

    return load_settings(database_url=database_url)


def _server() -> Callable[..., None]:
    """`kinoloom.server.serve.serve`. Raises MissingPackage without the server's packages."""
    from kinoloom.errors import MissingPackage

    try:
        from kinoloom.server.serve import serve as run
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"The server needs the package {error.name}.",
            hints=["pip install 'kinoloom[server]'"],
        ) from error
    return run
