"""Who may use the server, as seen from the command line?"""

from __future__ import annotations

from decimal import Decimal
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
        str | None,
        typer.Option(
            help="What its jobs may cost in all, such as 2.50, in the currency of the budgets in"
            " your settings (USD, unless they say another)."
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it, once: only its hash is kept."""
    with outcome(plain_view(as_json)):
        from kinoloom.store.held import held_store
        from kinoloom.terminal import write, write_json

        scopes = scope or ["read", "write"]
        amount = _checked(name, scopes, budget)
        key, secret = held_store(settings_now()).keys.create(name, scopes, amount)
        if as_json:
            write_json(key.as_dict() | {"key": secret})
            return
        write(f"The key {key.name} ({_scopes(key)}) cannot be shown again:", to_error=True)
        write(secret)


@keys_app.command("list")
def keys_list(as_json: AsJson = False) -> None:
    """List the keys and what their jobs have cost."""
    with outcome(plain_view(as_json)):
        from kinoloom.planner.cost import shown
        from kinoloom.store.held import held_store
        from kinoloom.store.money import plain
        from kinoloom.terminal import write, write_json

        settings = settings_now()
        store, currency = held_store(settings), settings.budgets.currency
        rows = []
        for key in store.keys.list():
            spent = store.remote_calls.spent(owner=key.id, currency=currency)
            rows.append(key.as_dict() | {"spent": plain(spent), "currency": currency})
        if as_json:
            write_json({"keys": rows})
            return
        for row in rows:
            state = "revoked" if row["revoked_at"] else ", ".join(row["scopes"])
            limit = (
                "" if row["budget"] is None else f" of {shown(Decimal(row['budget']), currency)}"
            )
            used = (row["last_used_at"] or "never")[:16]
            write(
                f"{row['prefix']}...  {row['name']}: {state};"
                f" {shown(Decimal(row['spent']), currency)}{limit} spent; last used {used}"
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


def _checked(name: str, scopes: list[str], budget: str | None) -> Decimal | None:
    """The budget of a new key. Raises InvalidRequest listing what is wrong with it."""
    from pydantic import TypeAdapter, ValidationError

    from kinoloom.config_sections import Amount
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
    amount = None
    try:
        if budget is not None:
            amount = TypeAdapter(Amount).validate_python(budget)
    except ValidationError:
        allowed = "an amount of 0 or more such as 2.50, with at most 6 decimals"
        problems.append(Problem("--budget", budget, allowed))
    if problems:
        raise InvalidRequest(problems)
    return amount


def _scopes(key: ApiKey) -> str:
    return ", ".join(key.as_dict()["scopes"])
