"""Who may use the server, as seen from the command line?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from kinoloom.outcome import outcome, plain_view, settings_now

if TYPE_CHECKING:
    from kinoloom.store.keys import ApiKey

keys_app = typer.Typer(
    help="The API keys of `kinoloom serve`: who may use it, for what, and for how much.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")]


@keys_app.command("create")
def keys_create(
    name: Annotated[str, typer.Argument(help="What to call the key, such as who gets it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            help="read, write or admin (all of it, and what others made); may be repeated."
            " Without: read and write.",
        ),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="US dollars that its jobs may cost in all.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, once: only its hash is kept."""
    with outcome(plain_view(as_json)):
        from kinoloom.store.held import held_store
        from kinoloom.terminal import write, write_json

        scopes = scope or ["read", "write"]
        _check(name, scopes, budget)
        key, secret = held_store(settings_now()).keys.create(name, scopes, budget)
        if as_json:
            write_json(key.as_dict() | {"key": secret})
            return
        write(f"The key {key.name} ({_scopes(key)}) cannot be shown again:", to_error=True)
        write(secret)


@keys_app.command("list")
def keys_list(as_json: AsJson = False) -> None:
    """List the keys and what their jobs have cost."""
    with outcome(plain_view(as_json)):
        from kinoloom.store.held import held_store
        from kinoloom.terminal import write, write_json

        keys = held_store(settings_now()).keys
        rows = [key.as_dict() | {"spent": keys.spent(key.id)} for key in keys.list()]
        if as_json:
            write_json({"keys": rows})
            return
        for row in rows:
            state = "revoked" if row["revoked_at"] else ", ".join(row["scopes"])
            limit = "" if row["budget"] is None else f" of ${row['budget']:.2f}"
            used = (row["last_used_at"] or "never")[:16]
            write(
                f"{row['prefix']}...  {row['name']}: {state};"
                f" ${row['spent']:.2f}{limit} spent; last used {used}"
            )
        if not rows:
            write("There are no keys; `kinoloom keys create NAME` makes one.")


@keys_app.command("revoke")
def keys_revoke(
    key: Annotated[str, typer.Argument(help="The key's name, its id, or how it begins.")],
    as_json: AsJson = False,
) -> None:
    """End a key at once. What it made stays."""
    with outcome(plain_view(as_json)):
        from kinoloom.errors import NotFound
        from kinoloom.store.held import held_store
        from kinoloom.terminal import write, write_json

        revoked = held_store(settings_now()).keys.revoke(key)
        if revoked is None:
            raise NotFound(
                f"There is no key {key!r} in use.", hints=["`kinoloom keys list` shows them."]
            )
        if as_json:
            write_json(revoked.as_dict())
        else:
            write(f"The key {revoked.name} no longer works.")


def _check(name: str, scopes: list[str], budget: float | None) -> None:
    """Raises InvalidRequest listing what is wrong with a new key."""
    from kinoloom.errors import InvalidRequest, Problem, nearest_names
    from kinoloom.store.keys import SCOPES

    problems = []
    if not name.strip() or len(name) > 100 or not name.isprintable():
        problems.append(Problem("name", name, "1 to 100 printable characters"))
    for scope in scopes:
        if scope not in SCOPES:
            near = nearest_names(scope, SCOPES, count=1)
            problems.append(
                Problem("--scope", scope, "read, write or admin", near[0] if near else None)
            )
    if budget is not None and not 0 <= budget < float("inf"):
        problems.append(Problem("--budget", budget, "0 or more US dollars"))
    if problems:
        raise InvalidRequest(problems)


def _scopes(key: ApiKey) -> str:
    return ", ".join(key.as_dict()["scopes"])
