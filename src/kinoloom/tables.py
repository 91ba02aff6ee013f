"""How are plans, settings, scores, models and checks shown to a person?"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from kinoloom.terminal import duration, harmless, plan_line, plan_notes, scores_line, write

if TYPE_CHECKING:
    from kinoloom.doctor import Check
    from kinoloom.planner.plan import Plan
    from kinoloom.quality.score import Scores

_MARKS = {"ok": "ok", "warning": "!!", "failed": "XX"}


def show_plan(plan: Plan) -> None:
    """The plan, its estimate, what was changed, and the reasons."""
    write(plan_line(plan))
    estimate = plan.estimate
    if estimate.seconds is not None and estimate.low is not None and estimate.high is not None:
        low, high = duration(estimate.low), duration(estimate.high)
        write(f"time: {duration(estimate.seconds)}, from {low} to {high}; from {estimate.basis}")
    complexity = plan.complexity
    write(f"prompt: {complexity.level.replace('_', ' ')}, {complexity.score:.2f} of 1")
    rows = [
        (f.name.replace("_", " "), f"{f.value:.2f}", f"{f.share:.3f}", ", ".join(f.found))
        for f in complexity.factors
    ]
    _table(("factor", "value", "share", "found"), rows)
    for line in (*plan_notes(plan), *(f"because {r}" for r in plan.reasons)):
        write(f"- {line}")
    write(f"key: {plan.key}")


def show_settings(file: Path, settings: dict[str, Any]) -> None:
    """What a video's file says of how it was made. The values are as untrusted as the file."""
    plan = settings.get("plan")
    plan = plan if isinstance(plan, dict) else {}
    rows = [(str(k), _short(v)) for k, v in plan.items() if not isinstance(v, dict | list)]
    versions, scores = settings.get("versions"), settings.get("scores")
    if isinstance(scores, dict):
        rows.append(("scores", scores_line(scores)))
    if isinstance(versions, dict):
        rows.append(("versions", ", ".join(f"{k} {_short(v)}" for k, v in versions.items())))
    write(str(file))
    _table(("setting", "value"), rows)


def show_scores(file: Path, frames: int, fps: float, scores: Scores) -> None:
    """Every measure of a video and what it means."""
    write(f"{file}: {frames} frames at {fps:g} fps")
    numbers = {k: v for k, v in scores.as_dict().items() if isinstance(v, int | float)}
    _table(("measure", "score"), [(k, f"{v:.3f}") for k, v in numbers.items()])
    for note in scores.notes:
        write(f"- {note}")


def show_models(rows: Sequence[dict[str, Any]], problems: Iterable[str]) -> None:
    """The models, then what is wrong with other cards."""
    _table(
        ("model", "here", "tasks", "size", "frames"),
        [
            (
                r["id"],
                r["state"],
                ", ".join(r["tasks"]),
                r["sizes"][0] + (", ..." if len(r["sizes"]) > 1 else ""),
                "-".join(map(str, r["frames"])),
            )
            for r in rows
        ],
        whole=True,
    )
    for row in rows:
        for reason in row["reasons"] if row["state"] != "missing" else ():
            write(f"- {row['id']}: {reason}; {'; '.join(row['hints'])}")
    if missing := sum(row["state"] == "missing" for row in rows):
        write(f"- {missing} missing on this disk; what to do: kinoloom models check MODEL")
    for problem in problems:
        write(f"- {problem}")


def show_facts(facts: Iterable[tuple[str, str]]) -> None:
    """What is known of a thing, a line each."""
    _table(("fact", "value"), facts)


def show_files(files: Iterable[tuple[str, str, str, str]]) -> None:
    """Files: name, state, size and what is wrong with them."""
    _table(("file", "state", "size", ""), files)


def show_checks(checks: Iterable[Check]) -> None:
    """One line a check, with what to do under those that are not well."""
    for check in checks:
        write(f"{_MARKS[check.state]}  {check.name}: {check.detail}")
        if check.hint and check.state != "ok":
            write(f"    -> {check.hint}")


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, whole: bool = False) -> None:
    """Rows under their columns; with `whole` the first one, a name to be typed, is never broken."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold", no_wrap=whole and column == columns[0])
    for row in rows:
        table.add_row(*(Text(harmless(cell, sys.stdout)) for cell in row))
    Console().print(table)


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 200 else text[:197] + "..."
