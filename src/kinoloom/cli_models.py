"""What can be done with models from the command line?"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from kinoloom.outcome import FAILED, outcome, plain_view, settings_now

if TYPE_CHECKING:
    from kinoloom.models import Elsewhere
    from kinoloom.weights.inventory import Inventory
    from kinoloom.weights.pull import Progress

models_app = typer.Typer(
    help="The models that Kinoloom knows: what they need, and how they get here.",
    no_args_is_help=True,
)

AsJson = Annotated[bool, typer.Option("--json", help="Answer as JSON, for programs.")]
ModelId = Annotated[str, typer.Argument(metavar="MODEL", help="The model's id.")]
_KEPT = "Interrupted; what has arrived stays, and the same command goes on with it."


@models_app.command("list")
def models_list(
    task: Annotated[
        str | None, typer.Option(help="Only models for t2v, i2v, flf2v, extend, inpaint or r2v.")
    ] = None,
    family: Annotated[str | None, typer.Option(help="Only models of this family.")] = None,
    as_json: AsJson = False,
) -> None:
    """List the models, what they can do, and whether they can run here."""
    with outcome(plain_view(as_json)):
        from kinoloom import models, tables
        from kinoloom.terminal import write_json

        rows, problems = models.list_models(settings_now(), task=task, family=family)
        if as_json:
            write_json({"models": rows, "problems": problems})
        else:
            tables.show_models(rows, problems)


@models_app.command("show")
def models_show(model: ModelId, as_json: AsJson = False) -> None:
    """Show what is known about a model, and what of that nobody has verified."""
    with outcome(plain_view(as_json)):
        from kinoloom import models
        from kinoloom.terminal import write_json

        card = models.show_model(model, settings_now())
        if as_json:
            write_json(card)
        else:
            _show_card(card)


@models_app.command("check")
def models_check(model: ModelId, as_json: AsJson = False) -> None:
    """Look at every file of a model and at what it asks of this machine.

    Exit codes: 0 ready, 1 not ready; what is said last then is what makes it so.
    """
    with outcome(plain_view(as_json)):
        from kinoloom import models
        from kinoloom.terminal import write_json

        found = models.check_model(model, settings_now())
        if as_json:
            write_json(found.as_dict())
        elif isinstance(found, models.Elsewhere):
            _show_elsewhere(found)
        else:
            _show_inventory(found)
        if not found.ready:
            raise typer.Exit(FAILED)


@models_app.command("pull")
def models_pull(
    model: ModelId,
    accept_licence: Annotated[
        bool, typer.Option("--accept-licence", help="I have read the licence; it holds for me.")
    ] = False,
    update: Annotated[
        bool, typer.Option("--update", help="Take the newest revision instead of the pinned one.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download what a model lacks on this disk, and check it.

    Going on where an earlier download ended. Exit codes: 0 done, 1 failed, 130 interrupted.
    """
    with outcome(plain_view(as_json), _KEPT):
        from kinoloom import models
        from kinoloom.terminal import write, write_json

        settings = settings_now()
        card = models.show_model(model, settings)
        if card["backend"] != "local" and not as_json:
            write(f"{model} runs on {card['backend']}: there is nothing to download")
            return
        if not as_json:
            for line in _licence_lines(card["licence"]):
                write(line, to_error=True)
        with _watching(as_json) as on_progress:
            done = models.pull_model(
                model,
                settings,
                accept_licence=accept_licence,
                update=update,
                on_progress=on_progress,
            )
        if as_json:
            write_json(
                {
                    "type": "success",
                    "model": done.model,
                    "bytes": done.size,
                    "files": done.files,
                    "pinned": done.pinned,
                    "newer": done.newer,
                }
            )
            return
        if done.files:
            write(f"{done.model} is here: {done.files} files, {_size(done.size)} downloaded")
        else:
            write(f"{done.model} is on this disk already: it comes with Kinoloom or was downloaded")
        for repo, commit in done.pinned.items():
            write(f"{repo} is pinned to {commit[:12]}")
        for repo, commit in done.newer.items():
            write(f"{repo} has a newer revision, {commit[:12]}; to take it:")
            write(f"  -> kinoloom models pull {done.model} --update")


@models_app.command("add")
def models_add(
    target: Annotated[
        str,
        typer.Argument(
            metavar="PATH_OR_REPO",
            help="A folder in diffusers' layout, a .safetensors file, OWNER/NAME of the Hub, or"
            " replicate:OWNER/NAME.",
        ),
    ],
    id_: Annotated[str | None, typer.Option("--id", help="The new model's id.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a model card for a checkpoint of your own."""
    with outcome(plain_view(as_json)):
        from kinoloom import models
        from kinoloom.terminal import write, write_json

        added = models.add_model(target, settings_now(), model=id_)
        if as_json:
            write_json(
                {
                    "model": added.model,
                    "card": str(added.card),
                    "like": added.like,
                    "tasks": list(added.tasks),
                    "hints": list(added.hints),
                }
            )
            return
        write(f"{added.model} can do {', '.join(added.tasks)}; its rules are those of {added.like}")
        for hint in added.hints:
            write(f"  -> {hint}")


@models_app.command("remove")
def models_remove(
    model: ModelId,
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove your own model's card, or the downloaded files of another model."""
    with outcome(plain_view(as_json)):
        from kinoloom import models
        from kinoloom.terminal import write, write_json

        removed = models.remove_model(model, settings_now(), yes=yes)
        if as_json:
            paths = [str(p) for p in removed.paths]
            write_json({"removed": paths, "bytes": removed.size, "kept": list(removed.kept)})
            return
        for path in removed.paths:
            write(f"removed {path}")
        write(f"{_size(removed.size)} are free again")
        for kept in removed.kept:
            write(f"kept: {kept}")


def _show_card(card: dict[str, Any]) -> None:
    """A card's facts, the unverified ones marked as such."""
    from kinoloom import tables
    from kinoloom.terminal import write

    write(f"{card['id']}: {card['title']}. {card['summary']}")
    tables.show_facts(_facts(card))
    for name, preset in card.get("presets", {}).items():
        shift = f", shift {preset['shift']:g}" if "shift" in preset else ""
        steps = f"{preset['steps']} steps, guidance {preset['guidance']:g}{shift}"
        write(f"preset {name}: {preset['title']}; {steps}")
    for note in card.get("notes", []):
        write(f"- {note}")
    for fact in card.get("unverified", []):
        write(f"- unverified: {fact}")


def _facts(card: dict[str, Any]) -> Iterator[tuple[str, str]]:
    source, sizes, frames = card["source"], card["sizes"], card["frames"]
    yield "family", card["family"]
    yield "tasks", ", ".join(card["tasks"])
    if card["backend"] != "local":
        yield "backend", card["backend"]
        yield "price", _price(card)
    if "retirement" in card:
        then = f"; then {card['successor']}" if "successor" in card else ""
        yield "retired on", card["retirement"] + then
    places = ("repo", "path", "file", "package", "service")
    yield "from", str(next(source[n] for n in places if n in source))
    for name, part in source.get("parts", {}).items():
        inside = [str(part[n]) for n in ("repo", "path", "subfolder", "file") if part.get(n)]
        yield f"{name} from", "/".join(inside)
    yield "sizes", ", ".join(f"{w}x{h}" for w, h in sizes["native"])
    yield "frames", f"{frames['multiple']}n+{frames['offset']}, at most {frames['maximum']}"
    yield "fps", f"{card['fps']['default']:g}"
    steps = card["steps"]
    if steps["maximum"]:  # else nobody is asked for any
        yield "steps", f"{steps['default']} ({steps['minimum']} to {steps['maximum']})"
        yield "guidance", f"{card['guidance']['default']:g}"
    if card.get("remote"):
        yield "sound", card["remote"]["audio"]
    if "shift" in card:
        yield "shift", f"{card['shift']:g}"
    if "memory" in card:
        parts = card["memory"]["components"]
        yield "weights", ", ".join(f"{n} {_size(b)}" for n, b in parts.items())
    faster = card["acceleration"]
    kinds = [f"{n}: {faster[n]['kind']}" for n in ("balanced", "fast") if n in faster]
    kinds += [n for n in ("compile", "fp8") if faster.get(n)]
    kinds += [f"attention: {', '.join(faster['attention'])}"] if faster.get("attention") else []
    if card["backend"] == "local":
        yield "faster with", "; ".join(kinds) or "nothing that is known to be right"
    for line in _licence_lines(card["licence"]):
        yield "licence", line.removeprefix("licence ")


def _licence_lines(licence: dict[str, Any]) -> Iterator[str]:
    yield f"licence {licence['id']}: {licence['url']}"
    if licence["territory"] != "worldwide":
        yield f"it does not hold everywhere: {licence['territory']}"
    if licence.get("gated"):
        yield "its repository is given only to those who agreed to its terms there"


def _price(card: dict[str, Any]) -> str:
    """What it costs, who says so and when."""
    price = card.get("price")
    if not isinstance(price, dict):
        return str(card["price_words"])
    sure = "" if price["verified"] else ", which the service itself has not confirmed"
    return f"{card['price_words']}, by {price['source']} on {price['date']}{sure}"


def _show_elsewhere(found: Elsewhere) -> None:
    """A model of another backend: what it costs, and whether that can run it."""
    from kinoloom.terminal import write

    there = f", as {found.service} there" if found.service else ""
    write(f"{found.model} runs on {found.backend}{there}: no file of it is needed here")
    write(f"price: {found.price}")
    if found.retirement:
        then = f"; its successor: {found.successor}" if found.successor else ""
        write(f"it is switched off on {found.retirement}{then}")
    for line in _licence_lines(found.licence):
        write(line)
    _show_readiness(found)


def _show_readiness(found: Inventory | Elsewhere) -> None:
    from kinoloom.terminal import write

    write("ready" if found.ready else "not ready")
    for reason in found.reasons:
        write(f"- {reason}")
    for hint in found.hints:
        write(f"  -> {hint}")


def _show_inventory(found: Inventory) -> None:
    """Every file, what the model asks for, and whether it is ready."""
    from kinoloom import tables
    from kinoloom.terminal import write

    write(f"{found.model}: {found.place or 'not on this disk'}")
    rows = [
        (n.path, n.state, "" if n.size is None else _size(n.size), n.reason) for n in found.files
    ]
    tables.show_files(rows)
    needed = "not known" if found.disk_needed is None else _size(found.disk_needed)
    free = "not known" if found.disk_free is None else _size(found.disk_free)
    write(
        f"disk: {_size(found.size)} here, {needed} more needed; {free} free in {found.disk_place}"
    )
    if found.vram_all is not None and found.vram_needed is not None:
        free = "not known" if found.vram_free is None else _size(found.vram_free)
        write(
            f"memory: {_size(found.vram_all)} for all of it at once, {_size(found.vram_needed)} for"
            f" its largest component; free on the device: {free}"
        )
    write(f"packages: {'missing ' + ', '.join(found.packages) if found.packages else 'all here'}")
    for line in _licence_lines(found.licence):
        write(line)
    if found.licence["accepted"]:
        write(f"accepted on {found.licence['accepted'][:10]}")
    for repo, commit in found.pinned.items():
        write(f"{repo} is pinned to {commit[:12]}")
    for note in found.notes:
        write(f"note: {note}")
    _show_readiness(found)


@contextmanager
def _watching(as_json: bool) -> Iterator[Callable[[Progress], None]]:
    """Shows a download: as JSON lines, with a bar at a terminal, else a line for each file."""
    from kinoloom.terminal import write, write_json

    seen: set[str] = set()

    def tell(progress: Progress) -> None:
        if as_json:
            write_json({"type": "progress", **vars(progress)})
        elif progress.file not in seen:
            done = f"{_size(progress.done)} of {_size(progress.total)}"
            write(f"{progress.file} ({done})", to_error=True)
        seen.add(progress.file)

    if as_json or not sys.stderr.isatty():
        yield tell
        return
    from rich import progress as rich
    from rich.console import Console

    with rich.Progress(
        rich.BarColumn(bar_width=32),
        rich.DownloadColumn(),
        rich.TransferSpeedColumn(),
        rich.TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    ) as bar:
        task = bar.add_task("", total=None)
        yield lambda now: bar.update(task, total=now.total, completed=now.done)


def _size(count: float) -> str:
    """Bytes as ``512 B``, ``3.4 MB`` or ``28.6 GB``."""
    for unit in ("B", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
